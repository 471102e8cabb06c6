"""The submitter: hands a sealed batch over exactly once.

Head of the API's list first, then the body but for its last byte, then the intent on disk, then the last byte. What
the answer says is recorded as a fact; no answer is a doubt, which the reconciler ends.
"""

from collections.abc import Iterator
from dataclasses import replace
from math import inf

from worker.batches_api import CLOCK_DOUBT, ApiError, BatchesApi, Complaint, Created, InDoubt, Listing, NotSent, Refused
from worker.clock import Clock
from worker.config import Config
from worker.core.body import write_body
from worker.core.custom_id import MAX_ATTEMPT, prefix, spell
from worker.core.lifecycle import Event
from worker.core.model import Batch, Claim, State
from worker.core.reconcile import made_before
from worker.core.schedule import poll_delay, refusal_delay
from worker.ledger.barrier import Barrier
from worker.ledger.lease import LeaseKeeper, Leases, LostLeaseError, StoppingError
from worker.ledger.ledger import Ledger
from worker.ledger.store import LedgerFullError, LedgerRefusedError, LedgerUnavailableError
from worker.parking import Parking
from worker.refusals import FIRST_DELAY, MOST_DELAY, Refusals
from worker.telemetry import Telemetry
from worker.workspaces import Workspaces

GATE_DELAY = 5.0
"""Seconds between two looks of a batch that waits for its lane or for the account's queue."""

SUSPICION = 3
"""After so many failures in a row the range itself is looked at."""

INTENT_BYTES = 10
ACCEPT_TRIES = 60
ACCEPT_PAUSE = 0.5


class IntentRefusedError(Exception):
    """The intent was not recorded: somebody else moved the batch, paused the lane, or Redis was restarted."""


class StreamBody:
    """A body that is read from the lane as it is sent; every iteration starts at the first byte."""

    def __init__(self, *, ledger: Ledger, batch: Batch, deployment: str, lease: LeaseKeeper) -> None:
        self.nbytes = batch.bytes
        self._lease = lease
        self._ledger = ledger
        self._batch = batch
        # refusals count as attempts too: a long trouble of the account takes more of them than a token has room for
        self._prefix = prefix(deployment, batch.uid, batch.attempt % MAX_ATTEMPT + 1)

    def __iter__(self) -> Iterator[bytes]:
        """Yield the body in large pieces. Raises LostLeaseError or StoppingError in between."""
        for piece in write_body(self._prefix, self._requests()):
            self._lease.check()
            yield piece

    def _requests(self) -> Iterator[tuple[bytes, bytes]]:
        unusable = {entry_id.encode() for entry_id in self._ledger.prompts.unusable(self._batch)}
        for entry_id, fields in self._ledger.prompts.entries(self._batch):
            if entry_id not in unusable:
                yield entry_id, fields[b"params"]


class Intent:
    """Records the intent to post when all but the last byte has been sent. `asked` decides what a failure leaves.

    `name` is random: it tells this intent from another process's at the same attempt, should ours never have arrived.
    `good_for` is how many seconds it stands: whoever finds it older may have concluded that nothing was sent.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        barrier: Barrier,
        batch: Batch,
        fence: str,
        listing: Listing,
        name: str,
        deployment: str,
        clock: Clock,
        good_for: float,
    ) -> None:
        self.name = name
        self._deployment = deployment
        self._ledger = ledger
        self._barrier = barrier
        self._batch = batch
        self._fence = fence
        self._listing = listing
        self._clock = clock
        self._good_for = good_for
        self.asked = False

    def __call__(self) -> None:
        """Commit the intent and make it durable.

        Raises IntentRefusedError, the ledger's errors (NotDurableError among them), or NotSent when this process was
        frozen meanwhile for so long that the intent no longer stands.
        """
        self.asked = True
        began = self._clock.monotonic()
        newest = self._listing.batches
        # a lower bound of what is newer; a proxy's clock may be anything
        head_at = min(newest[0].created_at, self._listing.server_date or 0.0) if newest else 0.0
        answer = self._ledger.batches.submit(
            self._batch,
            fence=self._fence,
            head=newest[0].id if newest else "",
            head_at=head_at,
            durably=self._barrier.durably,
            intent=self.name,
            deployment=self._deployment,
            ruled_out=made_before(newest, self._batch.count, since=head_at - CLOCK_DOUBT),
        )
        if answer != "OK":
            raise IntentRefusedError(answer)
        if self._clock.monotonic() - began > self._good_for:
            raise NotSent(Complaint("stale before the last byte"))


class Submitter:
    """Posts sealed batches."""

    def __init__(
        self,
        *,
        config: Config,
        ledger: Ledger,
        api: BatchesApi,
        barrier: Barrier,
        refusals: Refusals,
        parking: Parking,
        workspaces: Workspaces,
        leases: Leases,
        telemetry: Telemetry,
        clock: Clock,
        deployment: str,
        unsent: set[str],
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._api = api
        self._barrier = barrier
        self._refusals = refusals
        self._parking = parking
        self._workspaces = workspaces
        self._leases = leases
        self._telemetry = telemetry
        self._clock = clock
        self._deployment = deployment
        self._unsent = unsent

    def step(self, claim: Claim) -> None:
        """Take a sealed batch as far as it will go; a batch in another state is left alone."""
        batch = self._ledger.batches.get(claim.lane, claim.uid)
        if batch is None or batch.state is not State.SEALED:
            return
        if batch.count == 0:
            self._skip(batch, claim)
            return
        if self._waits(batch, claim):
            return
        with self._leases.keep(claim) as lease:
            self._post(batch, claim, lease)

    def _skip(self, batch: Batch, claim: Claim) -> None:
        # nothing is posted, so no intent has brought the seal onto the disk: forgotten, its prompts would be sealed
        # again as another batch, and have a second row each
        self._ledger.deployment.sync(self._barrier.durably, at=self._clock.now())
        attempts = self._config.lane(batch.lane).max_attempts
        answer = self._ledger.batches.end(batch, Event.SKIP, fence=claim.fence, ended_at=None, max_attempts=attempts)
        if answer == "OK":
            self._telemetry.batch_ended(batch)

    def _waits(self, batch: Batch, claim: Claim) -> bool:
        """Whether the lane, its parking or the account's queue keeps the batch back; if so it has been put off."""
        if self._ledger.lanes.marks(batch.lane).paused is not None:
            return self._postpone(batch, claim, GATE_DELAY, "paused")
        match self._parking.ask(batch):
            case "WAIT":
                return self._postpone(batch, claim, self._parking.pause(), "parked")
            case "OK" if batch.count > 1:
                self._refusals.split(batch, claim.fence, 1, probe=True)
                return True
            case "OK":
                self._ledger.batches.advance(batch, None, fence=claim.fence, delay=None, probe="1")
        limit = self._config.anthropic.max_in_flight_requests
        if not self._ledger.deployment.reserve(batch.lane, batch.uid, batch.count, limit):
            return self._postpone(batch, claim, GATE_DELAY * (0.5 + self._clock.jitter() / 2), "queue_full")
        return False

    def _postpone(self, batch: Batch, claim: Claim, delay: float, reason: str) -> bool:
        self._ledger.batches.advance(batch, None, fence=claim.fence, delay=delay)
        self._telemetry.submission_postponed(batch, reason, delay)
        return True

    def _post(self, batch: Batch, claim: Claim, lease: LeaseKeeper) -> None:
        listing = self._look(batch, claim)
        if listing is None:
            return
        posted = replace(batch, state=State.SUBMITTING, attempt=batch.attempt + 1)
        intent = Intent(
            ledger=self._ledger,
            barrier=self._barrier,
            batch=batch,
            fence=claim.fence,
            listing=listing,
            name=spell(self._clock.random_bytes(INTENT_BYTES)),
            deployment=self._deployment,
            clock=self._clock,
            good_for=self._config.submit.horizon or inf,
        )
        body = StreamBody(ledger=self._ledger, batch=batch, deployment=self._deployment, lease=lease)
        try:
            created = self._api.create(body, before_last_byte=intent)
        except (LostLeaseError, StoppingError):
            self._give_back(batch, claim)
            self._ledger.batches.advance(batch, None, fence=claim.fence)
        except IntentRefusedError:
            self._give_back(batch, claim)
        except InDoubt as error:
            self._doubt(posted, intent.name, error)
        except (NotSent, Refused) as error:
            self._give_up(self._withdraw(posted, intent.name) if intent.asked else batch, claim, error)
        except (LedgerUnavailableError, LedgerFullError, LedgerRefusedError):
            if intent.asked:
                # whether the intent stands is unknown, but this process knows that its last byte never left
                self._withdraw(posted, intent.name)
            raise
        else:
            self._accept(posted, created)

    def _look(self, batch: Batch, claim: Claim) -> Listing | None:
        """Take the API's newest batches, which give the head; None when the batch has been put off instead."""
        try:
            listing = self._api.newest()
        except Refused as error:
            self._give_back(batch, claim)
            self._refusals.handle_look(batch, error, claim.fence)
            return None
        except ApiError as error:
            self._give_up(batch, claim, error)
            return None
        if self._workspaces.admits(batch.lane, listing.workspace_id):
            return listing
        self._give_back(batch, claim)
        self._postpone(batch, claim, self._config.park.probe, "workspace")
        return None

    def _accept(self, posted: Batch, created: Created) -> None:
        delay = poll_delay(age=0.0, interval=self._config.poll.interval, retry_after=None, jitter=self._clock.jitter())
        for tries in range(ACCEPT_TRIES):
            try:
                self._ledger.batches.accept(
                    posted,
                    posted.attempt,
                    created.remote,
                    delay=delay,
                    workspace_id=created.workspace_id or "",
                )
                break
            except (LedgerUnavailableError, LedgerFullError, LedgerRefusedError):
                # forgotten here, the answer would have to be found again by reconciling
                if tries == ACCEPT_TRIES - 1:
                    raise
                self._clock.sleep(ACCEPT_PAUSE)
        self._telemetry.batch_submitted(replace(posted, state=State.IN_PROGRESS, remote_id=created.remote.id))
        self._refusals.note_accepted()
        self._parking.accepted(posted)

    def _doubt(self, posted: Batch, intent: str, error: InDoubt) -> None:
        """Date the doubt about this very intent.

        After a restart of Redis that forgot it, the same attempt may be another process's: an overloaded answer to
        ours says nothing about theirs, and would shorten its horizon.
        """
        recorded = self._ledger.batches.get(posted.lane, posted.uid)
        if recorded is None or recorded.intent != intent:
            return
        self._telemetry.submission_in_doubt(posted, error.doubt)
        self._ledger.batches.advance(
            posted,
            None,
            delay=min(1.0, self._config.submit.reconcile_interval),
            doubt=error.doubt,
            doubt_at=repr(self._ledger.store.now()),
        )

    def _withdraw(self, posted: Batch, intent: str) -> Batch:
        """Take the intent back, keeping the claim: nothing was created. A fact, so a lost lease does not matter.

        Only the very intent is taken back: where ours is not on record, the attempt may be another process's, in
        flight. Ours may still arrive, or Redis be away: then `unsent` tells the reconciler.
        """
        self._unsent.add(intent)
        recorded = self._ledger.batches.get(posted.lane, posted.uid)
        if recorded is not None and recorded.intent == intent:
            self._ledger.batches.advance(posted, Event.REFUSE, delay=None, unposted=posted.count)
            self._unsent.discard(intent)
        return replace(posted, state=State.SEALED)

    def _give_up(self, sealed: Batch, claim: Claim, error: ApiError) -> None:
        self._give_back(sealed, claim)
        if isinstance(error, Refused):
            self._refusals.handle(sealed, error, claim.fence)
            return
        if sealed.failures >= SUSPICION and self._refusals.mend(sealed, claim.fence):
            return
        delay = refusal_delay(
            retry_after=error.retry_after,
            failures=sealed.failures + 1,
            first=FIRST_DELAY,
            most=MOST_DELAY,
            jitter=self._clock.jitter(),
        )
        self._ledger.batches.advance(sealed, None, fence=claim.fence, delay=delay, failures=str(sealed.failures + 1))
        self._telemetry.submission_postponed(sealed, error.outcome, delay)

    def _give_back(self, batch: Batch, claim: Claim) -> None:
        """Free the batch's share of the account's queue, unless somebody else has claimed the batch and the share."""
        if self._ledger.batches.renew(claim, self._config.lease):
            self._ledger.deployment.release([(batch.lane, batch.uid)])

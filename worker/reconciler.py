"""The reconciler: ends the doubt about a POST whose answer nobody saw, by proof and never by guess."""

from dataclasses import replace

from worker.batches_api import ApiError, BatchesApi
from worker.clock import Clock
from worker.config import Config
from worker.core.errors import Doubt
from worker.core.lifecycle import Event
from worker.core.model import Batch, Claim, RemoteBatch, State
from worker.core.reconcile import Absent, Adopt, Hold, LookAgain, Peek, conclude
from worker.ledger.batches import NEVER
from worker.ledger.lease import Leases
from worker.ledger.ledger import Ledger
from worker.parking import Parking
from worker.readings import look_for_token
from worker.telemetry import Telemetry
from worker.workspaces import Workspaces

MOST_PEEKS = 8
"""So many candidates are looked into before what is known of them is written down: a crash forgets no more."""

AT_ONCE = 0.01


class Reconciler:
    """Looks for the remote batches of batches that are `submitting`."""

    def __init__(
        self,
        *,
        config: Config,
        ledger: Ledger,
        api: BatchesApi,
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
        self._parking = parking
        self._workspaces = workspaces
        self._leases = leases
        self._telemetry = telemetry
        self._clock = clock
        self._deployment = deployment
        self._unsent = unsent

    def step(self, claim: Claim) -> None:
        """Look once at a batch in doubt; one in another state is left alone."""
        batch = self._ledger.batches.get(claim.lane, claim.uid)
        if batch is None or batch.state is not State.SUBMITTING:
            return
        if batch.intent in self._unsent:
            self._withdraw(batch, claim)
            return
        if batch.doubt_at is None:
            batch = self._begin_doubt(batch)
        with self._leases.keep(claim):
            self._reconcile(batch, claim)

    def _withdraw(self, batch: Batch, claim: Claim) -> None:
        answer = self._ledger.batches.advance(batch, Event.REFUSE, fence=claim.fence, unposted=batch.count)
        if answer == "OK":
            self._unsent.discard(batch.intent or "")
            self._telemetry.doubt_resolved(batch, "rejected")

    def _begin_doubt(self, batch: Batch) -> Batch:
        """Date the doubt a dead worker left: it begins when it is noticed, which is later than it was and safe."""
        now = self._ledger.store.now()
        self._ledger.batches.advance(batch, None, delay=None, doubt=Doubt.LOST, doubt_at=repr(now))
        self._telemetry.submission_in_doubt(batch, Doubt.LOST)
        return replace(batch, doubt=Doubt.LOST, doubt_at=now)

    def _reconcile(self, batch: Batch, claim: Claim) -> None:
        began_at = self._ledger.store.now()
        try:
            # without a head there was no remote batch at all: then everything that is listed is newer
            not_before = batch.head_at if batch.head and batch.head_at else 0.0
            listing = self._api.newer_than(batch.head, not_before=not_before)
        except ApiError as error:
            self._look_again(batch, claim, batch.seen, retry_after=error.retry_after)
            return
        if not self._workspaces.admits(batch.lane, listing.workspace_id):
            self._look_again(batch, claim, batch.seen, retry_after=self._config.park.probe)
            return
        lanes = self._ledger.deployment.lanes()
        same_count = [remote.id for remote in listing.batches if remote.counts.total == batch.count]
        conclusion = conclude(
            batch,
            listing.batches,
            owned=self._ledger.batches.owners([*same_count, *batch.seen], lanes),
            began_at=began_at,
            horizon=self._horizon(batch),
            exclusive=self._may_guess(batch),
        )
        match conclusion:
            case Adopt(remote):
                self._adopt(batch, claim, remote, lanes, alone=True)
            case Peek(remotes, seen, closed):
                self._peek(replace(batch, seen=seen, closed=batch.closed or closed), claim, remotes, lanes)
            case LookAgain(seen, closed):
                self._look_again(replace(batch, closed=batch.closed or closed), claim, seen)
            case Absent():
                self._send_again(batch, claim)
            case Hold(reason):
                self._hold(batch, claim, reason)

    def _may_guess(self, batch: Batch) -> bool:
        """Whether a lone candidate may be taken by its count: nobody else creates batches, and Redis knows all of ours.

        One that was emptied does not know those posted before, and they may still commit for a while.
        """
        if not self._config.anthropic.exclusive_workspace:
            return False
        emptied_at = self._ledger.deployment.origin().emptied_at
        if emptied_at is None:
            return True
        submit = self._config.submit
        return (batch.posted_at or 0.0) > emptied_at + submit.timeout + submit.horizon

    def _adopt(self, batch: Batch, claim: Claim, remote: RemoteBatch, lanes: list[str], *, alone: bool) -> None:
        answer = self._ledger.batches.adopt(batch, remote, fence=claim.fence, lanes=lanes, alone=alone)
        if answer == "OK":
            self._telemetry.doubt_resolved(replace(batch, remote_id=remote.id), "adopted")
            self._parking.accepted(batch)
        elif answer == "SHARED":
            self._by_token(batch, claim, remote, lanes)
        elif answer == "OWNED":
            self._look_again(batch, claim, batch.seen)

    def _by_token(self, batch: Batch, claim: Claim, remote: RemoteBatch, lanes: list[str]) -> None:
        """Another batch of ours has the same count: only the token tells whose the candidate is."""
        if remote.status == "ended":
            self._peek(replace(batch, seen=batch.seen | {remote.id}), claim, (remote,), lanes)
        else:
            self._look_again(batch, claim, batch.seen | {remote.id})

    def _peek(self, batch: Batch, claim: Claim, remotes: tuple[RemoteBatch, ...], lanes: list[str]) -> None:
        ruled_out = set(batch.ruled_out)
        # the oldest first: ours was made right behind the head, and what others made first they delete first
        for remote in sorted(remotes, key=lambda remote: remote.created_at)[:MOST_PEEKS]:
            try:
                token = look_for_token(self._api, remote, batch.deployment or self._deployment)
            except ApiError:
                continue  # too few lines to be had right now; it stays a candidate
            if token is not None and token.uid == batch.uid:
                self._adopt(batch, claim, remote, lanes, alone=False)
                return
            ruled_out.add(remote.id)
        self._look_again(
            replace(batch, ruled_out=frozenset(ruled_out)),
            claim,
            batch.seen,
            retry_after=AT_ONCE if len(remotes) > MOST_PEEKS else None,
        )

    def _look_again(
        self, batch: Batch, claim: Claim, seen: frozenset[str], *, retry_after: float | None = None
    ) -> None:
        delay = retry_after or self._config.submit.reconcile_interval
        due = (batch.doubt_at or 0.0) + self._horizon(batch) - self._ledger.store.now()
        if due > 0:
            delay = min(delay, due + 0.05)
        self._ledger.batches.advance(
            batch,
            None,
            fence=claim.fence,
            delay=delay,
            seen=" ".join(sorted(seen)),
            ruled_out=" ".join(sorted(batch.ruled_out)),
            closed="1" if batch.closed else "",
        )

    def _send_again(self, batch: Batch, claim: Claim) -> None:
        answer = self._ledger.batches.advance(
            batch, Event.ABSENT, fence=claim.fence, recovered=True, unposted=batch.count
        )
        if answer == "OK":
            self._telemetry.doubt_resolved(batch, "resubmitted")

    def _hold(self, batch: Batch, claim: Claim, reason: str) -> None:
        answer = self._ledger.batches.advance(batch, Event.HOLD, fence=claim.fence, delay=NEVER, reason=reason)
        if answer == "OK":
            self._telemetry.batch_held(batch, reason)

    def _horizon(self, batch: Batch) -> float:
        submit = self._config.submit
        return submit.overload_horizon if batch.doubt == Doubt.OVERLOADED else submit.horizon

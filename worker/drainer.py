"""The drainer: streams an ended batch's results into its lane's sinks, and settles every prompt of it.

All rows are accounted for before any sink commits, all sinks have committed before the batch is delivered, and only
of a delivered batch are entries deleted. A crash in between repeats what is harmless to repeat.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from worker.batches_api import ApiError, BatchesApi, NotFound, Truncated
from worker.clock import Clock
from worker.config import Config
from worker.core.account import Account
from worker.core.cost import PriceTable
from worker.core.intake import Flaw
from worker.core.lifecycle import Event
from worker.core.model import Batch, Claim, State
from worker.core.schedule import backoff
from worker.deliveries import Deliveries, NoSinkLeftError
from worker.ledger.barrier import Barrier
from worker.ledger.batches import NEVER
from worker.ledger.lease import LeaseKeeper, Leases, LostLeaseError, StoppingError
from worker.ledger.ledger import Ledger
from worker.ledger.prompts import SETTLE_CHUNK
from worker.ledger.store import LedgerUnavailableError
from worker.parking import ROWS, Parking
from worker.readings import GarbledError, Reading, Write, abandoned
from worker.sinks import Sink
from worker.telemetry import Telemetry

ABANDONED = "abandoned"
"""The reason of a batch that an operator gave up: its prompts are buried unread."""

FIRST_DELAY, MOST_DELAY = 1.0, 300.0
PATIENCE = 10
"""After so many readings that were not broken off and still do not add up, a human looks."""


class Drainer:
    """Delivers and settles ended batches."""

    def __init__(
        self,
        *,
        config: Config,
        ledger: Ledger,
        api: BatchesApi,
        barrier: Barrier,
        sinks: Mapping[str, Sink],
        prices: PriceTable,
        parking: Parking,
        leases: Leases,
        telemetry: Telemetry,
        clock: Clock,
        deployment: str,
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._api = api
        self._barrier = barrier
        self._sinks = sinks
        self._prices = prices
        self._parking = parking
        self._leases = leases
        self._telemetry = telemetry
        self._clock = clock
        self._deployment = deployment

    def step(self, claim: Claim) -> None:
        """Deliver an ended batch and settle it; a batch in another state is left alone."""
        batch = self._ledger.batches.get(claim.lane, claim.uid)
        if batch is None or batch.state not in (State.ENDED, State.DELIVERED):
            return
        with self._leases.keep(claim) as lease:
            try:
                self._drain(batch, claim, lease)
            except LostLeaseError:
                return
            except StoppingError:
                self._hand_over(claim)
            except (ApiError, GarbledError) as error:
                self._read_again(batch, claim, error)

    def _drain(self, batch: Batch, claim: Claim, lease: LeaseKeeper) -> None:
        reading = self._open(batch)
        if batch.state is State.ENDED:
            if not self._deliver(batch, claim, lease, reading):
                return
            batch = replace(batch, state=State.DELIVERED)
        elif not self._read(batch, reading, lambda _: lease.check()):
            self._not_added_up(batch, claim, reading.account)
            return
        self._settle(batch, claim, lease, reading)

    def _open(self, batch: Batch) -> Reading:
        given_up = batch.reason == ABANDONED
        unusable: dict[str, Flaw] = abandoned(self._ledger, batch) if given_up else self._ledger.prompts.unusable(batch)
        account = Account(batch=batch, deployment=batch.deployment or self._deployment, unusable=unusable)
        return Reading(ledger=self._ledger, account=account, prices=self._prices, now=self._ledger.store.now())

    def _deliver(self, batch: Batch, claim: Claim, lease: LeaseKeeper, reading: Reading) -> bool:
        """Bring the rows into every sink that has not committed them; True when all have."""
        names = self._config.lane(batch.lane).sinks
        waiting = {name: self._sinks[name] for name in names if name not in batch.commits}
        with Deliveries(sinks=waiting, batch=batch, clock=self._clock) as deliveries:

            def write(rows: Sequence[bytes]) -> None:
                lease.check()
                if waiting:
                    deliveries.write(rows)

            try:
                if not self._read(batch, reading, write):
                    self._not_added_up(batch, claim, reading.account)
                    return False
                self._commit(batch, claim, deliveries)
            except NoSinkLeftError:
                pass
            if deliveries.errors:
                self._sinks_failed(batch, claim, deliveries)
                return False
        return self._ledger.batches.advance(batch, Event.DELIVER, fence=claim.fence, delay=None, failures="0") == "OK"

    def _read(self, batch: Batch, reading: Reading, write: Write) -> bool:
        """Read everything; False when the results do not account for every prompt."""
        if batch.count and batch.reason != ABANDONED:
            reading.read_results(self._api, write)
            if not reading.account.complete:
                return False
            if reading.account.foreign or reading.account.doubled:
                self._telemetry.foreign_line(batch)
        reading.read_unusable(write)
        return True

    def _commit(self, batch: Batch, claim: Claim, deliveries: Deliveries) -> None:
        for name, delivery in deliveries.commit().items():
            if self._ledger.batches.commit(batch, name, fence=claim.fence) != "OK":
                raise LostLeaseError
            self._telemetry.batch_delivered(
                batch, sink=name, rows=delivery.rows, nbytes=delivery.nbytes, seconds=deliveries.seconds[name]
            )

    def _settle(self, batch: Batch, claim: Claim, lease: LeaseKeeper, reading: Reading) -> None:
        account = reading.account
        now = self._ledger.store.now()
        if account.parks:
            # before the prompts go back into the lane, so that none of them is sent into the same trouble
            self._parking.park(batch.lane, ROWS)
        rulings = account.in_order()
        while chunk := list(islice(rulings, SETTLE_CHUNK)):
            lease.check()
            if not self._ledger.prompts.settle(batch, chunk, fence=claim.fence, now=now):
                raise LostLeaseError
        answer, durable = self._finish(batch, claim, now)
        if answer == "LEFT" and not self._has_come_back(batch, account):
            self._telemetry.warning(
                "prompts.unknown", lane=batch.lane, batch=batch.uid, hint="they follow by themselves"
            )
            answer, durable = self._finish(batch, claim, now, leaving=True)
        if answer == "LEFT":
            self._put_off(batch, claim, "Redis has forgotten that prompts were settled")
        elif answer != "STALE":  # MINE: the first reply was lost, for a chunk was settled under this claim just before
            self._tell(batch, reading, now)
            if not account.parks:
                self._parking.answered(batch)
            if durable:
                self._delete_remote(batch)

    def _has_come_back(self, batch: Batch, account: Account) -> bool:
        """Whether prompts of the batch are there again; others may have been given ids of its range since."""
        return any(account.knows(entry_id.decode()) for entry_id, _ in self._ledger.prompts.entries(batch))

    def _finish(self, batch: Batch, claim: Claim, now: float, *, leaving: bool = False) -> tuple[str, bool]:
        """Close the batch; returns the answer, and whether its remote batch is to be deleted and may be.

        A Redis that forgot the settling would look for the remote batch again, and take its absence for proof that
        nothing was ever made: so it is on disk before that is true.
        """

        def finish(connection: Any) -> str:
            return self._ledger.batches.finish(
                batch,
                fence=claim.fence,
                retention=self._config.retention,
                dead_before=now - self._config.dead_retention,
                leaving=leaving,
                on=connection,
            )

        wanted = self._config.poll.delete_when_settled and batch.remote_id is not None
        # without a barrier nothing says that Redis will remember; nor that a replica will that takes its place
        if not wanted or self._barrier.kind == "none" or self._config.redis.moves:
            return finish(None), False
        try:
            answer = self._barrier.durably(finish)
        except LedgerUnavailableError as error:
            self._telemetry.warning("remote.not_deleted", remote_id=batch.remote_id, outcome=str(error))
            return finish(None), False
        return answer, answer == "OK"  # of another answer the barrier does not say that it is on disk

    def _tell(self, batch: Batch, reading: Reading, now: float) -> None:
        for model, tally in reading.tallies.items():
            self._telemetry.usage(
                batch.lane,
                model,
                input=tally.input,
                output=tally.output,
                cache_read=tally.cache_read,
                cache_write_5m=tally.cache_write_5m,
                cache_write_1h=tally.cache_write_1h,
                microdollars=tally.microdollars,
            )
        account = reading.account
        self._telemetry.batch_settled(
            batch,
            results=account.results,
            retried=account.reasons("retry"),
            buried=account.reasons("bury"),
            seconds=now - batch.sealed_at,
            prompt_seconds=reading.waits,
        )

    def _delete_remote(self, batch: Batch) -> None:
        try:
            self._api.delete(batch.remote_id or "")
        except ApiError as error:
            self._telemetry.warning("remote.not_deleted", remote_id=batch.remote_id, outcome=error.outcome)

    def _not_added_up(self, batch: Batch, claim: Claim, account: Account) -> None:
        if account.all_foreign:
            self._telemetry.foreign_line(batch)
            if batch.guessed and batch.state is State.ENDED:
                self._ledger.batches.disown(batch, fence=claim.fence)
                return
        self._missed(batch, claim, f"{len(account.rulings)} of {batch.count} results")

    def _missed(self, batch: Batch, claim: Claim, reason: str) -> None:
        """Read again what came whole and is not right; what never is, is for a human."""
        misses = batch.misses + 1
        if misses >= PATIENCE:
            self._hold(batch, claim, f"the results do not add up: {reason}")
        else:
            self._put_off(batch, claim, reason, misses=misses)

    def _read_again(self, batch: Batch, claim: Claim, error: Exception) -> None:
        if isinstance(error, NotFound) and batch.failures + 1 >= PATIENCE and self._is_gone(batch):
            self._hold(batch, claim, "the remote batch was deleted before its results were read")
        elif isinstance(error, GarbledError) or (isinstance(error, Truncated) and not error.broken_off):
            self._missed(batch, claim, str(error))
        else:
            self._put_off(batch, claim, str(error))

    def _is_gone(self, batch: Batch) -> bool:
        try:
            return self._api.retrieve(batch.remote_id or "").remote.archived_at is not None
        except NotFound:
            return self._is_our_workspace(batch)
        except ApiError:
            return False

    def _is_our_workspace(self, batch: Batch) -> bool:
        """Whether the key still shows the workspace that the batch is in: another one's silence says nothing."""
        try:
            seen = self._api.newest().workspace_id
        except ApiError:
            return False
        return seen is None or batch.workspace_id in (None, seen)

    def _hold(self, batch: Batch, claim: Claim, reason: str) -> None:
        if self._ledger.batches.advance(batch, Event.HOLD, fence=claim.fence, delay=NEVER, reason=reason) == "OK":
            self._telemetry.batch_held(batch, reason)

    def _put_off(self, batch: Batch, claim: Claim, reason: str, *, misses: int | None = None) -> None:
        failures = batch.failures + 1
        delay = self._delay(failures)
        missed = str(batch.misses if misses is None else misses)
        self._ledger.batches.advance(batch, None, fence=claim.fence, delay=delay, failures=str(failures), misses=missed)
        self._telemetry.results_truncated(batch, reason, failures)

    def _sinks_failed(self, batch: Batch, claim: Claim, deliveries: Deliveries) -> None:
        failures = batch.failures + 1
        delay = self._delay(failures)
        self._ledger.batches.advance(batch, None, fence=claim.fence, delay=delay, failures=str(failures))
        for name, error in deliveries.errors.items():
            self._telemetry.sink_failed(
                name, error_type=error.error_type, retryable=error.retryable, retry_in=delay, hint=error.hint
            )

    def _delay(self, failures: int) -> float:
        return backoff(failures=failures, first=FIRST_DELAY, most=MOST_DELAY, jitter=self._clock.jitter())

    def _hand_over(self, claim: Claim) -> None:
        """Leave the batch to the next who looks, at once: this process is stopping."""
        batch = self._ledger.batches.get(claim.lane, claim.uid)
        if batch is not None:
            self._ledger.batches.advance(batch, None, fence=claim.fence)

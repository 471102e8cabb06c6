"""The poller: asks how open remote batches are. Many are answered by one list call, few by a retrieve each."""

from collections.abc import Sequence

from worker.batches_api import ApiError, BatchesApi, NotFound
from worker.clock import Clock
from worker.config import Config
from worker.core.lifecycle import Event
from worker.core.model import Batch, Claim, RemoteBatch, State
from worker.core.schedule import poll_delay, refusal_delay
from worker.ledger.batches import NEVER
from worker.ledger.ledger import Ledger
from worker.telemetry import Telemetry
from worker.workspaces import Workspaces

FEW = 3
"""Up to so many open batches are asked for one by one; beyond, one list call covers a thousand."""

YOUNG_SECONDS = 600.0
MISSED_LOOKS = 5
"""A remote batch that is not found is waited for while it is young, and for so many looks: lists and reads lag."""

FIRST_DELAY = 1.0


class Poller:
    """Looks at batches that are in progress or being canceled."""

    def __init__(
        self,
        *,
        config: Config,
        ledger: Ledger,
        api: BatchesApi,
        workspaces: Workspaces,
        telemetry: Telemetry,
        clock: Clock,
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._api = api
        self._workspaces = workspaces
        self._telemetry = telemetry
        self._clock = clock

    def step(self, claims: Sequence[Claim]) -> None:
        """Look at every claimed batch once; batches in other states are left alone."""
        fences = {claim.uid: claim.fence for claim in claims}
        found = self._ledger.batches.get_many([(claim.lane, claim.uid) for claim in claims])
        batches = [batch for batch in found if batch.state in (State.IN_PROGRESS, State.CANCELING) and batch.remote_id]
        listed = self._list(batches) if len(batches) > FEW else {}
        if listed is None:
            for batch in batches:
                self._fail(batch, fences[batch.uid], None)
            return
        for batch in batches:
            remote = listed.get(batch.remote_id or "")
            if remote is None:
                self._retrieve(batch, fences[batch.uid])
            else:
                self._move(batch, remote, fences[batch.uid], retry_after=None)

    def _list(self, batches: list[Batch]) -> dict[str, RemoteBatch] | None:
        oldest = min((batch.created_at for batch in batches if batch.created_at), default=0.0)
        try:
            listing = self._api.newer_than(None, not_before=oldest)
        except ApiError:
            return None
        self._telemetry.poll_succeeded()
        return {remote.id: remote for remote in listing.batches}

    def _retrieve(self, batch: Batch, fence: str) -> None:
        try:
            retrieved = self._api.retrieve(batch.remote_id or "")
        except NotFound:
            self._miss(batch, fence)
            return
        except ApiError as error:
            self._fail(batch, fence, error.retry_after)
            return
        self._telemetry.poll_succeeded()
        self._move(batch, retrieved.remote, fence, retry_after=retrieved.retry_after)

    def _move(self, batch: Batch, remote: RemoteBatch, fence: str, *, retry_after: float | None) -> None:
        if remote.archived_at is not None:
            self._hold(batch, fence, "the results of the remote batch are archived")
        elif remote.status == "ended":
            self._end(batch, remote, fence)
        elif remote.status == "canceling" and batch.state is State.IN_PROGRESS:
            if self._ledger.batches.advance(batch, Event.CANCEL, fence=fence, delay=self._delay(batch, None)) == "OK":
                self._telemetry.batch_canceled(batch)
        else:
            self._put_off(batch, fence, self._delay(batch, retry_after))

    def _end(self, batch: Batch, remote: RemoteBatch, fence: str) -> None:
        answer = self._ledger.batches.end(
            batch,
            Event.END,
            fence=fence,
            ended_at=remote.ended_at,
            counts=remote.counts,
            max_attempts=self._config.lane(batch.lane).max_attempts,
        )
        if answer == "OK":
            self._ledger.deployment.release([(batch.lane, batch.uid)])
            self._telemetry.batch_ended(batch)

    def _miss(self, batch: Batch, fence: str) -> None:
        young = self._ledger.store.now() - (batch.posted_at or 0.0) < YOUNG_SECONDS
        if young or batch.misses < MISSED_LOOKS:
            self._put_off(batch, fence, self._delay(batch, None), failures=batch.failures, misses=batch.misses + 1)
        elif self._is_our_workspace(batch):
            self._hold(batch, fence, "the remote batch was deleted by somebody else")
        else:
            self._put_off(batch, fence, self._config.park.probe, failures=batch.failures, misses=batch.misses)

    def _is_our_workspace(self, batch: Batch) -> bool:
        try:
            return self._workspaces.admits(batch.lane, self._api.newest().workspace_id)
        except ApiError:
            return False

    def _hold(self, batch: Batch, fence: str, reason: str) -> None:
        if self._ledger.batches.advance(batch, Event.HOLD, fence=fence, delay=NEVER, reason=reason) == "OK":
            self._ledger.deployment.release([(batch.lane, batch.uid)])
            self._telemetry.batch_held(batch, reason)

    def _fail(self, batch: Batch, fence: str, retry_after: float | None) -> None:
        delay = refusal_delay(
            retry_after=retry_after,
            failures=batch.failures + 1,
            first=FIRST_DELAY,
            most=self._config.poll.interval,
            jitter=self._clock.jitter(),
        )
        self._put_off(batch, fence, delay, failures=batch.failures + 1, misses=batch.misses)

    def _put_off(self, batch: Batch, fence: str, delay: float, *, failures: int = 0, misses: int = 0) -> None:
        self._ledger.batches.advance(batch, None, fence=fence, delay=delay, failures=str(failures), misses=str(misses))

    def _delay(self, batch: Batch, retry_after: float | None) -> float:
        return poll_delay(
            age=max(0.0, self._ledger.store.now() - (batch.posted_at or 0.0)),
            interval=self._config.poll.interval,
            retry_after=retry_after,
            jitter=self._clock.jitter(),
        )

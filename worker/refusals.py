"""Refusals: what follows when the API has definitely said no to a create. Nothing was made, nothing is lost.

The guilty prompt of a refused batch is found by halving; every half is real work, so nothing is wasted. Halving ends
in burying one prompt only when the account is known to work, or after many tries.
"""

from collections.abc import Iterator

from worker.batches_api import Refused
from worker.clock import Clock
from worker.config import Config
from worker.core.custom_id import spell_uid
from worker.core.errors import Refusal, Verdict, judge_refusal
from worker.core.grouping import cut_in_two, measure, request_bytes
from worker.core.intake import Flaw
from worker.core.model import Batch
from worker.core.schedule import refusal_delay
from worker.ledger.ledger import Ledger
from worker.parking import Parking
from worker.telemetry import Telemetry

TRUST_SECONDS = 600.0
"""How long an accepted create vouches for the account."""

PATIENCE = 10
"""After so many refusals in a row a lone prompt is buried although nothing vouches for the account."""

FIRST_DELAY, MOST_DELAY = 1.0, 60.0
UID_BYTES = 10


class Refusals:
    """Decides and commits what becomes of a refused batch, which is sealed again when it comes here."""

    def __init__(self, *, config: Config, ledger: Ledger, parking: Parking, telemetry: Telemetry, clock: Clock) -> None:
        self._config = config
        self._ledger = ledger
        self._parking = parking
        self._telemetry = telemetry
        self._clock = clock

    def handle(self, batch: Batch, error: Refused, fence: str) -> None:
        """Act on the refusal of a create."""
        verdict = _judge(error)
        action = verdict.refusal
        if action is Refusal.PARK:
            self._park(batch, verdict, fence)
        elif action is Refusal.WAIT:
            self._wait(batch, fence, error.retry_after)
        elif action is Refusal.EJECT and verdict.index is not None and verdict.index < batch.count:
            self._eject(batch, fence, verdict.index)
        elif batch.count > 1:
            self.split(batch, fence, batch.count // 2, probe=False)
        elif self._may_bury(batch, verdict):
            self._eject(batch, fence, 0)
        else:
            # counted apart from other trouble: only refusals that name nothing speak against the prompt
            self._wait(batch, fence, error.retry_after, misses=batch.misses + 1)
        self._telemetry.submission_refused(batch, status=error.status, reason=verdict.reason, action=action)

    def handle_look(self, batch: Batch, error: Refused, fence: str) -> None:
        """Act on the refusal of the look before a create: it may tell of the account, never of the batch's prompts."""
        verdict = _judge(error)
        action = Refusal.PARK if verdict.refusal is Refusal.PARK else Refusal.WAIT
        if action is Refusal.PARK:
            self._park(batch, verdict, fence)
        else:
            self._wait(batch, fence, error.retry_after)
        self._telemetry.submission_refused(batch, status=error.status, reason=verdict.reason, action=action)

    def split(self, batch: Batch, fence: str, head_count: int, *, probe: bool) -> None:
        """Cut a sealed batch behind its first `head_count` prompts."""
        requests = self._as_sealed(batch, fence)
        if requests is None:
            return
        parts = cut_in_two(requests, head_count)
        tail_uid = spell_uid(batch.lane, self._clock.random_bytes(UID_BYTES))
        delay = self._parking.pause() if probe else 0.0
        answer = self._ledger.batches.split(batch, parts, tail_uid, fence=fence, probe=probe, delay=delay)
        if answer == "OK":
            self._telemetry.batch_split(batch, 2)

    def mend(self, batch: Batch, fence: str) -> bool:
        """Let a batch go on with what is left of it, should somebody have deleted prompts of it; False: nobody has.

        Its body could never be what was sealed. Those that are gone leave nothing to tell anybody about.
        """
        left = measure(self._requests(batch))
        if left.entries == batch.entries:
            return False
        if self._ledger.batches.mend(batch, left, fence=fence) == "OK":
            self._telemetry.prompts_vanished(batch, batch.entries - left.entries)
        return True

    def note_accepted(self) -> None:
        """Remember that the account can create batches."""
        self._ledger.deployment.note(accepted_at=repr(self._ledger.store.now()))

    def _may_bury(self, batch: Batch, verdict: Verdict) -> bool:
        if verdict.refusal is Refusal.SPLIT or batch.misses >= PATIENCE:
            return True
        accepted_at = self._ledger.deployment.recall("accepted_at")
        return accepted_at is not None and self._ledger.store.now() - float(accepted_at) < TRUST_SECONDS

    def _eject(self, batch: Batch, fence: str, index: int) -> None:
        requests = self._as_sealed(batch, fence)
        if requests is None:
            return
        entry_id, size = [(entry_id, size) for entry_id, size in requests if size is not None][index]
        nbytes = batch.bytes - size - (1 if batch.count > 1 else 0)
        self._ledger.batches.eject(batch, entry_id, Flaw.REFUSED, nbytes, fence=fence)

    def _park(self, batch: Batch, verdict: Verdict, fence: str) -> None:
        self._parking.park(batch.lane, verdict.reason)
        self._postpone(batch, fence, self._config.park.probe if batch.probe else self._parking.pause())

    def _wait(self, batch: Batch, fence: str, retry_after: float | None, *, misses: int | None = None) -> None:
        delay = refusal_delay(
            retry_after=retry_after,
            failures=batch.failures + 1,
            first=FIRST_DELAY,
            most=MOST_DELAY,
            jitter=self._clock.jitter(),
        )
        self._postpone(batch, fence, delay, misses=misses)

    def _postpone(self, batch: Batch, fence: str, delay: float, *, misses: int | None = None) -> None:
        missed = str(batch.misses if misses is None else misses)
        failed = str(batch.failures + 1)
        self._ledger.batches.advance(batch, None, fence=fence, delay=delay, failures=failed, misses=missed)

    def _as_sealed(self, batch: Batch, fence: str) -> list[tuple[str, int | None]] | None:
        """Return the range as the record has it; None where it is no longer so.

        A process that was frozen finds its batch posted, even settled, by another: it has nothing more to decide.
        """
        requests = list(self._requests(batch))
        if len(requests) != batch.entries:
            self.mend(batch, fence)
            return None
        return requests if sum(size is not None for _, size in requests) == batch.count else None

    def _requests(self, batch: Batch) -> Iterator[tuple[str, int | None]]:
        unusable = self._ledger.prompts.unusable(batch)
        for raw_id, fields in self._ledger.prompts.entries(batch):
            entry_id = raw_id.decode()
            yield entry_id, None if entry_id in unusable else request_bytes(entry_id, fields[b"params"])


def _judge(error: Refused) -> Verdict:
    return judge_refusal(error.status or 0, error.error_type, error.error_code, error.message)

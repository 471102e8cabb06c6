"""What really happened: every POST seen, every prompt committed, and how often each was paid for."""

import threading
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from worker.core.custom_id import LANE_LENGTH, decode
from worker.simulator.batch import Batch
from worker.simulator.remote import Remote
from worker.simulator.rows import Rows

ATTEMPTS_KEPT = 10_000
EXAMPLES = 20


@dataclass(slots=True)
class Attempt:
    """One POST to create. `outcome` says how it ended; `batch` is set when it was committed."""

    at: float
    content_length: int | None
    received: int = 0
    complete: bool = False
    outcome: str = "arriving"
    count: int | None = None
    first_custom_id: str | None = None
    batch: str | None = None


class Audit:
    """The record of requests. Thread-safe."""

    def __init__(self) -> None:
        self._attempts: deque[Attempt] = deque(maxlen=ATTEMPTS_KEPT)
        self._outcomes: Counter[str] = Counter()
        self._operations: Counter[str] = Counter()
        self._lock = threading.Lock()

    def arrived(self, at: float, content_length: int | None) -> Attempt:
        """Open the record of a POST."""
        attempt = Attempt(at, content_length)
        with self._lock:
            self._attempts.append(attempt)
        return attempt

    def ended(self, attempt: Attempt, outcome: str) -> None:
        """Close it."""
        with self._lock:
            attempt.outcome = outcome
            self._outcomes[outcome] += 1

    def counted(self, operation: str, outcome: int | str) -> None:
        """Count a request of any kind."""
        with self._lock:
            self._operations[f"{operation} {outcome}"] += 1

    def describe(self) -> dict[str, object]:
        """Attempts (the latest 10,000, oldest first) and counts of everything."""
        with self._lock:
            attempts = [asdict(attempt) for attempt in self._attempts]
            return {"attempts": attempts, "posts": dict(self._outcomes), "requests": dict(self._operations)}


def prompt_of(custom_id: str) -> str:
    """The prompt a custom_id stands for: its entry id and, as two lanes may have it, what its uid says of the lane.

    Of one that is not of our making it is what follows the third `_`, or all of it if there is none.
    """
    if (token := decode(custom_id)) is not None:
        return f"{token.uid[-LANE_LENGTH:]} {token.entry_id}"
    return custom_id.split("_", 3)[-1] if custom_id.count("_") >= 3 else custom_id  # noqa: PLR2004  # ours has three


def verdict(remote: Remote, now: float, *, custom_ids: bool, only: str | None) -> dict[str, object]:
    """Count prompts over all batches that are not foreign; `billed` needs an end, so open batches count as nothing."""
    committed: Counter[str] = Counter()
    billed: Counter[str] = Counter()
    listing: dict[str, list[str]] = {}
    ours = [batch for batch in remote.batches() if not batch.foreign]
    for batch in ours:
        rows = remote.rows(batch)
        committed.update(map(prompt_of, rows.ids))
        billed.update(map(prompt_of, paid(batch, rows, now)))
        if custom_ids and only in (None, batch.id):
            listing[batch.id] = rows.ids
    report: dict[str, object] = {
        "batches": len(ours),
        "open_batches": sum(batch.ended_at(now) is None for batch in ours),
        "prompts_committed": committed.total(),
        "prompts_distinct": len(committed),
        "prompts_committed_twice": _many(committed.values()),
        "prompts_billed": billed.total(),
        "prompts_billed_distinct": len(billed),
        "prompts_billed_twice": _many(billed.values()),
        "times_billed": {str(times): prompts for times, prompts in sorted(Counter(billed.values()).items())},
        "billed_twice_examples": [prompt for prompt, times in billed.most_common(EXAMPLES) if times > 1],
    }
    return report | ({"custom_ids": listing} if custom_ids else {})


def paid(batch: Batch, rows: Rows, now: float) -> Iterable[str]:
    """The custom_ids whose rows succeeded: only those cost money."""
    if batch.ended_at(now) is None:
        return
    for index in batch.order.first(batch.done(now)):
        if rows.verdicts[rows.record(index)[4]].result == "succeeded":
            yield rows.ids[index]


def _many(times: Iterable[int]) -> int:
    return sum(each > 1 for each in times)

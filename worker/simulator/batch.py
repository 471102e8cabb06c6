"""One batch and its life, computed from the time: nothing ticks, a batch is what it is when somebody looks."""

import math
from collections import Counter
from dataclasses import dataclass, field

from worker.simulator.instants import rfc3339
from worker.simulator.rows import Order, Rows, Verdict, tally

NEVER = math.inf
RESULTS = ("succeeded", "errored", "canceled", "expired")


@dataclass(slots=True, kw_only=True, eq=False)
class Batch:
    """A committed batch. Instants are Unix seconds of the simulator's time.

    It lives from `born_at`; `created_at` is shown instead, a little later if need be, for no two batches share it.
    It is processed for `takes` seconds, NEVER for a stuck one; `forced_at` is when somebody ended it by hand.
    """

    id: str
    workspace: str
    number: int
    created_at: float
    born_at: float
    takes: float
    lifetime: float
    retention: float
    order: Order
    place: tuple[int, int]
    models: list[str]
    verdicts: list[Verdict]
    body_bytes: int = 0
    foreign: bool = False
    listed_at: float = 0.0
    cancel_at: float | None = None
    cancel_takes: float = 0.0
    forced_at: float | None = None
    deleted_at: float | None = None
    downloads: int = 0
    counts: Counter[str] | None = field(default=None)

    @property
    def count(self) -> int:
        """How many requests it was created with."""
        return self.order.count

    def ended_at(self, now: float) -> float | None:
        """When processing ended, or None if it goes on."""
        end = NEVER
        if self.takes != NEVER:
            end = self.born_at + min(self.takes, self.lifetime)
            end = end if self.cancel_at is None else min(end, self.cancel_at + self.cancel_takes)
        end = end if self.forced_at is None else min(end, self.forced_at)
        return end if end <= now else None

    def status(self, now: float) -> str:
        """`in_progress`, `canceling` or `ended`."""
        if self.ended_at(now) is not None:
            return "ended"
        return "canceling" if self.cancel_at is not None else "in_progress"

    def archived(self, now: float) -> bool:
        """Whether its results are gone."""
        return now >= self.born_at + self.retention and self.ended_at(now) is not None

    def done(self, now: float) -> int:
        """How many requests have been processed; canceling and expiry stop the count."""
        if self.forced_at is not None and self.cancel_at is None:
            return self.count
        spent = min((now if self.cancel_at is None else min(now, self.cancel_at)) - self.born_at, self.lifetime)
        return self.count if spent >= self.takes else int(self.count * max(0.0, spent) / self.takes)

    @property
    def rest(self) -> str:
        """What becomes of those never processed."""
        return "expired" if self.cancel_at is None else "canceled"

    def end(self, now: float) -> None:
        """End it here: all of it processed, or, if it was being canceled, what was processed by then."""
        if self.ended_at(now) is None:
            self.forced_at = now

    def tally(self, now: float, rows: Rows) -> Counter[str]:
        """Counts by result, kept once it has ended."""
        counts = tally(rows, self.order, self.done(now), self.rest)
        if self.ended_at(now) is not None:
            self.counts = counts
        return counts

    def document(self, now: float, *, base_url: str, counts: Counter[str] | None) -> dict[str, object]:
        """The API's `message_batch` object; `counts` is None while everything counts as processing."""
        ended = self.ended_at(now)
        finished = {name: counts[name] if counts else 0 for name in RESULTS}
        archived = self.archived(now)
        return {
            "id": self.id,
            "type": "message_batch",
            "processing_status": self.status(now),
            "request_counts": {"processing": self.count - sum(finished.values()), **finished},
            "ended_at": None if ended is None else rfc3339(max(ended, self.created_at)),
            "created_at": rfc3339(self.created_at),
            "expires_at": rfc3339(self.created_at + self.lifetime),
            "archived_at": rfc3339(self.created_at + self.retention) if archived else None,
            "cancel_initiated_at": rfc3339(self.cancel_at),
            "results_url": f"{base_url}/v1/messages/batches/{self.id}/results" if ended and not archived else None,
        }

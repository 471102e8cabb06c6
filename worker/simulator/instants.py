"""The simulator's time: a given clock, moved forward on demand, and the two ways the API spells an instant."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import formatdate

from worker.simulator.notes import Moved, Note, forget


class Timeline:
    """The time all batches live by. Moving it forward is how a test lets a day pass."""

    def __init__(self, clock: Callable[[], float], *, note: Note = forget) -> None:
        self._clock = clock
        self._note = note
        self._offset = 0.0
        self._lock = threading.Lock()

    def now(self) -> float:
        """Unix seconds."""
        return self._clock() + self._offset

    def advance(self, seconds: float) -> float:
        """Move forward (never back: ValueError) and return the new time."""
        if seconds < 0:
            raise ValueError("time only moves forward")
        with self._lock:
            self._offset += seconds
            self._note(Moved(self._offset))
        return self.now()

    def recall(self, record: Moved) -> None:
        """Take over how far an earlier life had moved."""
        self._offset = record.offset


def rfc3339(at: float | None) -> str | None:
    """`2026-11-22T10:00:00.123456Z`, or None for None."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def http_date(at: float) -> str:
    """`Sun, 22 Nov 2026 10:00:00 GMT`."""
    return formatdate(at, usegmt=True)

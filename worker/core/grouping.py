"""Grouping: when the head of a lane becomes a batch, and how much of it.

A `Window` is fed the lane's entries in order, looks before it adds, and never holds a payload. `decide` turns it
into a `Seal` or a `Wait`; nothing here knows Redis or the time of day.
"""

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import msgspec

from worker.core.custom_id import PREFIX_LENGTH
from worker.core.entry_ids import order
from worker.core.intake import Flaw, Unusable, entry_instant
from worker.core.model import Prompt, Trigger

ENVELOPE_BYTES = len(b'{"requests":[]}')
REQUEST_BYTES = len(b'{"custom_id":"","params":}') + PREFIX_LENGTH
DEADLINE_LEAD = 3600.0
"""Seconds before a prompt's deadline at which it is sealed: most remote batches end within the hour."""

TRIM = 16
"""How many entries a seal may leave behind to make its count unique among the batches not yet posted."""


@dataclass(frozen=True, slots=True)
class Limits:
    """A lane's ceilings: prompts and body bytes per batch, seconds that the oldest prompt waits."""

    max_count: int
    max_bytes: int
    max_age: float


class Cut(msgspec.Struct, frozen=True, gc=False):
    """Where a window may be cut: everything up to the entry `last` is `entries` entries, `count` of them usable."""

    last: str
    entries: int
    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Seal:
    """Seal the window up to `cut`."""

    cut: Cut
    trigger: Trigger


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing before `until` (Unix seconds; None: until something arrives)."""

    until: float | None


def request_bytes(entry_id: str, params: bytes) -> int:
    """Return what a prompt takes in a body, without the comma before it."""
    return REQUEST_BYTES + len(entry_id) + len(params)


@dataclass(slots=True)
class Window:
    """The head of a lane as far as it has been read, from the lane's cursor `after` on.

    `add` answers False, and changes nothing, when the entry would push the window over its limits. `seen_at` is when
    its first entry was noticed: an entry id may name a time to come (its producer chose it, or a clock was put back),
    and Redis then gives every later entry of the stream such an id too.
    `incarnation` is the life of Redis it was read in: another life may not know the entries.
    """

    after: str
    limits: Limits
    incarnation: str = ""
    first: str | None = None
    seen_at: float | None = None
    deadline: float | None = None
    full: Trigger | None = None
    unusable: dict[str, Flaw] = field(default_factory=dict)
    cuts: deque[Cut] = field(default_factory=lambda: deque(maxlen=TRIM + 1))

    @property
    def cut(self) -> Cut | None:
        """The whole window as a cut; None while it is empty."""
        return self.cuts[-1] if self.cuts else None

    @property
    def end(self) -> str:
        """The last entry that was read; what is behind it is news."""
        return self.cuts[-1].last if self.cuts else self.after

    def add(self, entry: Prompt | Unusable) -> bool:
        """Take the next entry in, if it fits; a window that is full stays as it is."""
        if self.full is not None:
            return False
        cut = self.cut or Cut(self.after, 0, 0, ENVELOPE_BYTES)
        count, nbytes = cut.count, cut.bytes
        if isinstance(entry, Prompt):
            nbytes += request_bytes(entry.entry_id, entry.params) + (1 if count else 0)
            count += 1
            if nbytes > self.limits.max_bytes:
                if count > 1:
                    self.full = Trigger.BYTES
                    return False
                # alone it exceeds a body: the envelope took what the intake's check had left
                entry = Unusable(entry.entry_id, Flaw.TOO_LARGE, entry.id)
                count, nbytes = cut.count, cut.bytes
        if isinstance(entry, Unusable):
            self.unusable[entry.entry_id] = entry.flaw
        elif entry.deadline is not None:
            self.deadline = entry.deadline if self.deadline is None else min(self.deadline, entry.deadline)
        self.first = self.first or entry.entry_id
        self.cuts.append(Cut(entry.entry_id, cut.entries + 1, count, nbytes))
        if cut.entries + 1 == self.limits.max_count:
            self.full = Trigger.COUNT
        return True

    def notice(self, now: float) -> None:
        """Note that the window is looked at; what counts is the first time that something was in it."""
        if self.first is not None and self.seen_at is None:
            self.seen_at = now

    @property
    def oldest_at(self) -> float | None:
        """Since when the oldest entry waits; None while the window is empty."""
        if self.first is None:
            return None
        instant = entry_instant(self.first)
        return instant if self.seen_at is None else min(instant, self.seen_at)

    def unusable_within(self, cut: Cut) -> dict[str, Flaw]:
        """Return the unusable entries that a seal at `cut` takes along."""
        if cut is self.cut or cut == self.cut:
            return dict(self.unusable)
        behind = order(cut.last)
        return {entry: flaw for entry, flaw in self.unusable.items() if order(entry) <= behind}


def decide(
    window: Window, *, now: float, flush: bool = False, room: bool = True, taken: Collection[int] = ()
) -> Seal | Wait:
    """Say whether the window becomes a batch now.

    `room` is False while too many batches of the lane are not yet posted: then the window just grows. `taken` holds
    the counts of batches not yet posted; a seal leaves up to TRIM entries behind to get a count of its own, and
    takes a shared one when that is impossible (a lone prompt must not wait for a stranger's doubt).
    """
    cut, oldest_at = window.cut, window.oldest_at
    if cut is None or oldest_at is None:
        return Wait(None)
    due = oldest_at + window.limits.max_age
    trigger: Trigger | None = window.full
    if trigger is None and flush:
        trigger = Trigger.FLUSH
    if trigger is None and window.deadline is not None:
        if now >= window.deadline - DEADLINE_LEAD:
            trigger = Trigger.DEADLINE
        else:
            due = min(due, window.deadline - DEADLINE_LEAD)
    if trigger is None and now >= oldest_at + window.limits.max_age:
        trigger = Trigger.AGE
    if trigger is None:
        return Wait(due)
    if not room:
        return Wait(None)
    own = (shorter for shorter in reversed(window.cuts) if shorter.count not in taken and shorter.count)
    return Seal(next(own, cut) if taken else cut, trigger)


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a batch's range: `entries` stream entries from `first` to `last`, `count` of them in its body."""

    first: str
    last: str
    entries: int
    count: int
    bytes: int


def cut_in_two(requests: Iterable[tuple[str, int | None]], head_count: int) -> tuple[Part, Part]:
    """Divide a range into a head with `head_count` prompts and the rest.

    `requests` are (entry id, its `request_bytes` or None where unusable), in order. Unusable entries behind the cut
    go with the tail. Raises ValueError when either part would hold no prompt.
    """
    head: list[tuple[str, int | None]] = []
    tail: list[tuple[str, int | None]] = []
    usable = 0
    for request in requests:
        part = tail if usable >= head_count else head
        part.append(request)
        usable += request[1] is not None
    if not 0 < head_count < usable:
        raise ValueError(f"{usable} prompts cannot be cut behind the first {head_count}")
    return _part(head), _part(tail)


@dataclass(frozen=True, slots=True)
class Remainder:
    """What is left of a range: `entries` stream entries, `count` of them in a body of `bytes`."""

    entries: int
    count: int
    bytes: int


def measure(requests: Iterable[tuple[str, int | None]]) -> Remainder:
    """Measure a range anew; `requests` as for `cut_in_two`."""
    entries = count = nbytes = 0
    for _, size in requests:
        entries += 1
        if size is not None:
            count += 1
            nbytes += size
    return Remainder(entries, count, ENVELOPE_BYTES + nbytes + max(0, count - 1))


def _part(requests: list[tuple[str, int | None]]) -> Part:
    whole = measure(requests)
    return Part(requests[0][0], requests[-1][0], whole.entries, whole.count, whole.bytes)

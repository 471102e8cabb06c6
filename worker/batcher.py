"""The batcher: looks at a lane's window and seals its head when a limit, a deadline or an operator says so."""

from collections import Counter
from collections.abc import Collection

from worker.clock import Clock
from worker.config import Config, Lane
from worker.core.custom_id import spell_uid
from worker.core.entry_ids import order
from worker.core.grouping import Limits, Seal, Wait, Window, decide
from worker.core.model import Batch, State
from worker.ledger.lanes import Glance, Marks
from worker.ledger.ledger import Ledger
from worker.telemetry import Telemetry

AT_ONCE = 0.0
FIRST = "0-0"
UID_BYTES = 10


class Batcher:
    """Seals windows. It remembers how far it has read each lane, so that waiting prompts are read once."""

    def __init__(self, *, config: Config, ledger: Ledger, telemetry: Telemetry, clock: Clock) -> None:
        self._config = config
        self._ledger = ledger
        self._telemetry = telemetry
        self._clock = clock
        self._windows: dict[str, Window] = {}

    def glance(self, lanes: Collection[str]) -> dict[str, Glance | Exception]:
        """Look at many lanes at once, and forget what was read of others; `step` goes on from there."""
        for lane in self._windows.keys() - set(lanes):
            del self._windows[lane]
        ends = ((lane, self._windows.get(lane)) for lane in lanes)
        return self._ledger.lanes.glance({lane: window.end if window else FIRST for lane, window in ends})

    def step(self, lane: str, glance: Glance | None = None) -> float | None:
        """Look at one lane and seal at most one batch; returns seconds until the next look, None: when one is due.

        With the `glance` of just before, a lane without anything new is not asked again.
        """
        settings = self._config.lane(lane)
        marks = self._ledger.lanes.marks(lane) if glance is None else glance.marks
        known, window = self._windows.get(lane), self._window(lane, marks, settings)
        if glance is None or glance.more or window is not known:
            self._ledger.lanes.extend(lane, window)
        window.notice(marks.now)
        decision = self._decide(window, marks)
        if not isinstance(decision, Seal):
            self._end_flush(lane, marks, window)
            return None if decision.until is None else max(AT_ONCE, decision.until - marks.now)
        return self._seal(lane, window, decision, marks.now)

    def limits_from(self, config: Config) -> None:
        """Take over new limits; windows that are open are read again under them."""
        self._config = config

    def _decide(self, window: Window, marks: Marks) -> Seal | Wait:
        flush = _flushes(marks)
        room = marks.unposted < self._config.submit.max_unposted
        decision = decide(window, now=marks.now, flush=flush, room=room)
        if isinstance(decision, Seal) and self._config.anthropic.exclusive_workspace:
            # counts are only told apart where a lone candidate may be adopted by its count
            taken = self._ledger.lanes.taken_counts(self._ledger.deployment.lanes())
            decision = decide(window, now=marks.now, flush=flush, room=room, taken=taken)
        return decision

    def _seal(self, lane: str, window: Window, decision: Seal, now: float) -> float | None:
        uid = spell_uid(lane, self._clock.random_bytes(UID_BYTES))
        answer = self._ledger.lanes.seal(lane, uid, window, decision, max_unposted=self._config.submit.max_unposted)
        if answer in ("RECOVER", "FULL"):
            return None
        del self._windows[lane]
        if answer == "SEALED":
            cut = decision.cut
            self._telemetry.batch_sealed(
                Batch(
                    uid=uid,
                    lane=lane,
                    state=State.SEALED,
                    first=window.first or cut.last,
                    last=cut.last,
                    entries=cut.entries,
                    count=cut.count,
                    bytes=cut.bytes,
                    trigger=decision.trigger,
                    sealed_at=now,
                )
            )
            unusable = Counter(flaw.value for flaw in window.unusable_within(cut).values())
            if unusable:
                self._telemetry.prompts_refused(lane, unusable)
        return AT_ONCE

    def _window(self, lane: str, marks: Marks, settings: Lane) -> Window:
        limits = Limits(settings.max_count, settings.max_bytes, settings.max_age)
        window = self._windows.get(lane)
        seen = (marks.cursor, limits, marks.incarnation)
        if window is None or (window.after, window.limits, window.incarnation) != seen:
            # a Redis that was restarted may have lost entries that this window has
            window = self._windows[lane] = Window(marks.cursor, limits, marks.incarnation)
        return window

    def _end_flush(self, lane: str, marks: Marks, window: Window) -> None:
        if marks.flush_to is not None and not _flushes(marks) and window.after == marks.cursor:
            self._ledger.lanes.end_flush(lane, marks.flush_to)


def _flushes(marks: Marks) -> bool:
    """Whether an operator's flush still covers the head of the lane."""
    return marks.flush_to is not None and order(marks.cursor) < order(marks.flush_to)

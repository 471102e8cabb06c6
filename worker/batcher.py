"""The batcher: looks at a lane's window and seals its head when a limit, a deadline or an operator says so."""

from collections import Counter
from collections.abc import Collection

from worker.clock import Clock
from worker.config import Config, Lane
from worker.core.custom_id import spell_uid
from worker.core.entry_ids import order
from worker.core.grouping import Limits, Seal, Window, decide
from worker.core.model import Batch, State
from worker.ledger.lanes import Marks
from worker.ledger.ledger import Ledger
from worker.telemetry import Telemetry

AT_ONCE = 0.0
UID_BYTES = 10


class Batcher:
    """Seals windows. It remembers how far it has read each lane, so that waiting prompts are read once."""

    def __init__(self, *, config: Config, ledger: Ledger, telemetry: Telemetry, clock: Clock) -> None:
        self._config = config
        self._ledger = ledger
        self._telemetry = telemetry
        self._clock = clock
        self._windows: dict[str, Window] = {}

    def step(self, lane: str) -> float | None:
        """Look at one lane and seal at most one batch; returns seconds until the next look, None: when one is due."""
        settings = self._config.lane(lane)
        marks = self._ledger.lanes.marks(lane)
        window = self._window(lane, marks, settings)
        self._ledger.lanes.extend(lane, window)
        window.notice(marks.now)
        decision = decide(
            window,
            now=marks.now,
            flush=_flushes(marks),
            room=marks.unposted < self._config.submit.max_unposted,
            taken=self._taken(),
        )
        if not isinstance(decision, Seal):
            self._end_flush(lane, marks, window)
            return None if decision.until is None else max(AT_ONCE, decision.until - marks.now)
        return self._seal(lane, window, decision, marks.now)

    def limits_from(self, config: Config) -> None:
        """Take over new limits; windows that are open are read again under them."""
        self._config = config

    def forget_all_but(self, lanes: Collection[str]) -> None:
        """Forget what was read of lanes that are gone."""
        for lane in self._windows.keys() - set(lanes):
            del self._windows[lane]

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

    def _taken(self) -> set[int]:
        """Counts are only told apart where a lone candidate may be adopted by its count."""
        if not self._config.anthropic.exclusive_workspace:
            return set()
        return self._ledger.lanes.taken_counts(self._ledger.deployment.lanes())

    def _end_flush(self, lane: str, marks: Marks, window: Window) -> None:
        if marks.flush_to is not None and not _flushes(marks) and window.after == marks.cursor:
            self._ledger.lanes.end_flush(lane)


def _flushes(marks: Marks) -> bool:
    """Whether an operator's flush still covers the head of the lane."""
    return marks.flush_to is not None and order(marks.cursor) < order(marks.flush_to)

"""Parking: a lane waits while the account is in trouble, and probes with one prompt when it may be over."""

from worker.clock import Clock
from worker.config import Config
from worker.core.model import Batch, State
from worker.ledger.ledger import Ledger
from worker.telemetry import Telemetry

ROWS = "account"
"""The reason when result rows told of the trouble: only rows can tell that it is over."""

OPEN, WAIT, PROBE = "OPEN", "WAIT", "OK"


class Parking:
    """Parks and unparks lanes."""

    def __init__(self, *, config: Config, ledger: Ledger, telemetry: Telemetry, clock: Clock) -> None:
        self._config = config
        self._ledger = ledger
        self._telemetry = telemetry
        self._clock = clock

    def park(self, lane: str, reason: str) -> None:
        """Stop submitting a lane's batches; the first probe comes after `park.probe`."""
        probe_at = self._ledger.store.now() + self._config.park.probe
        if self._ledger.lanes.park(lane, reason, probe_at):
            self._telemetry.lane_parked(lane, reason)

    def ask(self, batch: Batch) -> str:
        """Say whether a sealed batch may be posted: OPEN, WAIT, or OK when one prompt of it may be the probe."""
        if batch.probe:
            return OPEN
        if self._probe_waits(batch.lane):
            return WAIT
        return self._ledger.lanes.may_probe(batch.lane, self._config.park.probe)

    def accepted(self, batch: Batch) -> None:
        """End trouble that an accepted create disproves."""
        marks = self._ledger.lanes.marks(batch.lane)
        if marks.parked not in (None, ROWS):
            self._unpark(batch.lane)

    def answered(self, batch: Batch) -> None:
        """End trouble that good rows of a probe disprove."""
        if batch.probe and self._ledger.lanes.marks(batch.lane).parked is not None:
            self._unpark(batch.lane)

    def pause(self) -> float:
        """Return how long a batch of a parked lane waits before it asks again, in seconds."""
        return min(self._config.park.probe, 5.0) * (0.5 + self._clock.jitter() / 2)

    def _probe_waits(self, lane: str) -> bool:
        """Whether a refused probe is to be sent again: it asks for everybody, or each period would cut off one more."""
        if self._ledger.lanes.marks(lane).parked is None:
            return False
        live = [(lane, uid) for uid in self._ledger.batches.live(lane)]
        return any(batch.probe and batch.state is State.SEALED for batch in self._ledger.batches.get_many(live))

    def _unpark(self, lane: str) -> None:
        self._ledger.lanes.unpark(lane)
        self._telemetry.lane_unparked(lane)

"""The rescuer: brings lanes back after a restart of Redis, and takes back what crashed workers left behind."""

from collections.abc import Callable

from worker.clock import Clock
from worker.config import Config
from worker.ledger.barrier import Barrier
from worker.ledger.lanes import Past
from worker.ledger.ledger import Ledger
from worker.telemetry import Telemetry

LOOK_TICKS = 2
HOUSEKEEPING_SECONDS = 60.0
WAITING_SECONDS = 5.0


class Rescuer:
    """Watches Redis' incarnation, the registry of lanes and the shares of the account's queue."""

    def __init__(
        self,
        *,
        config: Config,
        ledger: Ledger,
        barrier: Barrier,
        telemetry: Telemetry,
        clock: Clock,
        deployment: str,
        recover_by_token: Callable[[str], bool],
        tidy_knocks: Callable[[], object],
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._barrier = barrier
        self._telemetry = telemetry
        self._clock = clock
        self._deployment = deployment
        self._recover_by_token = recover_by_token
        self._tidy_knocks = tidy_knocks
        self._incarnation = ""
        self._life_began = 0.0
        self._housekeeping_at = 0.0
        self._waiting_at = 0.0

    def step(self) -> float:
        """Look once; returns seconds until the next look."""
        incarnation = self._ledger.deployment.incarnation()
        if incarnation != self._incarnation:
            self._register(incarnation)
            self._incarnation = incarnation
        for lane in self._ledger.deployment.lanes():
            self._recover(lane, incarnation)
        now = self._clock.monotonic()
        if now >= self._waiting_at:
            self._waiting_at = now + WAITING_SECONDS
            self._publish_waiting()
        if now >= self._housekeeping_at:
            self._housekeeping_at = now + HOUSEKEEPING_SECONDS
            self._ledger.deployment.sweep_in_flight()
            self._ledger.deployment.register_lanes(self._ledger.deployment.discover_lanes())
            self._tidy_knocks()
        return self._config.tick * LOOK_TICKS

    def _register(self, incarnation: str) -> None:
        """Write our id and lanes again should Redis have come back empty: results of ours stay ours."""
        now = self._ledger.store.now()
        found = self._ledger.deployment.enter(self._deployment, life=incarnation, life_at=now)
        if found != self._deployment:
            raise ForeignDeploymentError
        self._life_began = self._ledger.deployment.life_began(incarnation)
        self._ledger.deployment.register_lanes(self._config.lanes)

    def _recover(self, lane: str, incarnation: str) -> None:
        past = self._ledger.lanes.past(lane)
        if past.incarnation == incarnation and past.barrier == self._barrier.kind:
            return
        if self._is_sure(lane, past, incarnation):
            self._ledger.lanes.recovered(lane, incarnation, self._barrier.kind)
            if past.incarnation not in (None, incarnation):
                self._telemetry.recovery_finished(lane, 0.0)
            return
        if past.recovering_since is None or past.recovering_in != incarnation:
            # a second restart may bring back the date of the first one's recovery: what was posted between, it missed
            self._ledger.lanes.begin_recovery(lane, incarnation)
            self._telemetry.recovery_started(lane)
            return
        if self._recover_by_token(lane):
            self._ledger.lanes.recovered(lane, incarnation, self._barrier.kind)
            self._telemetry.recovery_finished(lane, self._ledger.store.now() - past.recovering_since)

    def _is_sure(self, lane: str, past: Past, incarnation: str) -> bool:
        """Whether nothing that the API may know of can have been forgotten.

        A lane without a past is a new one only if no prompt of it is older than this life of the server: otherwise it
        may be its past that was forgotten.
        """
        if past.incarnation is None:
            if not self._ledger.lanes.has_older(lane, self._life_began):
                return True
            kept = self._barrier.kind != "none"
        else:
            kept = past.incarnation == incarnation or past.barrier != "none"
        return kept and not self._ledger.store.facts().was_replica

    def _publish_waiting(self) -> None:
        lanes = self._ledger.deployment.lanes()
        self._ledger.deployment.record_waiting(self._ledger.lanes.stream_bytes(lanes))


class ForeignDeploymentError(Exception):
    """The data in Redis belongs to another deployment than when this process started (a clone, or a restore).

    Nothing of it is touched; start anew to work for that deployment.
    """

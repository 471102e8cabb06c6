"""The rescuer: brings lanes back after a restart of Redis, and takes back what crashed workers left behind."""

from collections.abc import Callable, Sequence

from worker.clock import Clock
from worker.config import Config
from worker.core.model import State
from worker.ledger.barrier import Barrier
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
        self._housekeeping_at = 0.0
        self._waiting_at = 0.0

    def step(self) -> float:
        """Look once; returns seconds until the next look."""
        incarnation = self._ledger.deployment.incarnation()
        if incarnation != self._incarnation:
            self._register()
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
            self._tidy_lanes()
            found = self._ledger.deployment.discover_lanes()
            self._ledger.deployment.register_lanes({*self._config.lanes, *found})
            self._tidy_knocks()
        return self._config.tick * LOOK_TICKS

    def _register(self) -> None:
        """Write our id and lanes again should Redis have come back empty: results of ours stay ours."""
        found = self._ledger.deployment.enter(self._deployment)
        if found != self._deployment:
            raise ForeignDeploymentError
        self._ledger.deployment.register_lanes(self._config.lanes)

    def _recover(self, lane: str, incarnation: str) -> None:
        past = self._ledger.lanes.past(lane)
        if past.incarnation == incarnation and past.barrier == self._barrier.kind:
            return
        if past.incarnation is None:
            # no record is no proof of a new lane where the record itself may have been forgotten
            sure = self._barrier.kind != "none" or not self._ledger.lanes.may_be_older(lane)
        else:
            sure = past.incarnation == incarnation or past.barrier != "none"
        if sure and not (past.incarnation and self._ledger.store.facts().was_replica):
            self._ledger.lanes.recovered(lane, incarnation, self._barrier.kind)
            if past.incarnation not in (None, incarnation):
                self._telemetry.recovery_finished(lane, 0.0)
            return
        if past.recovering_since is None:
            self._ledger.lanes.begin_recovery(lane)
            self._telemetry.recovery_started(lane)
            return
        if self._recover_by_token(lane):
            self._ledger.lanes.recovered(lane, incarnation, self._barrier.kind)
            self._telemetry.recovery_finished(lane, self._ledger.store.now() - past.recovering_since)

    def _tidy_lanes(self) -> None:
        """Let go of what is too old in every lane, and of lanes that nobody configured and nothing is left of."""
        lanes, config = self._ledger.deployment.lanes(), self._config
        strangers = [lane for lane in lanes if lane not in config.lanes]
        # which remote batches are whose is asked of all lanes: while somebody is in doubt, no lane may be missing
        may_go = set() if strangers and self._any_in_doubt(lanes) else set(strangers)
        gone = [
            lane
            for lane in lanes
            if self._ledger.lanes.tidy(
                lane,
                retention=config.retention,
                dead_before=self._ledger.store.now() - config.dead_retention,
                may_go=lane in may_go,
            )
        ]
        self._ledger.deployment.strike_lanes(gone)
        for lane in gone:
            self._telemetry.lane_ended(lane)

    def _any_in_doubt(self, lanes: Sequence[str]) -> bool:
        live = [(lane, uid) for lane in lanes for uid in self._ledger.batches.live(lane)]
        return any(batch.state is State.SUBMITTING for batch in self._ledger.batches.get_many(live))

    def _publish_waiting(self) -> None:
        lanes = self._ledger.deployment.lanes()
        self._ledger.deployment.record_waiting(self._ledger.lanes.stream_bytes(lanes))


class ForeignDeploymentError(Exception):
    """The data in Redis belongs to another deployment than when this process started (a clone, or a restore).

    Nothing of it is touched; start anew to work for that deployment.
    """

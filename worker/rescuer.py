"""The rescuer: brings lanes back after a restart of Redis, and takes back what crashed workers left behind."""

from collections.abc import Callable, Sequence

from worker.clock import Clock
from worker.config import Config
from worker.core.entry_ids import order
from worker.core.model import State
from worker.ledger.barrier_in_force import BarrierInForce
from worker.ledger.deployment import Origin
from worker.ledger.fitness import weaknesses
from worker.ledger.lanes import Past
from worker.ledger.ledger import Ledger
from worker.ledger.store import LedgerRefusedError
from worker.telemetry import Telemetry

LOOK_TICKS = 2
HOUSEKEEPING_SECONDS = 60.0
WAITING_SECONDS = 5.0


class Rescuer:
    """Watches Redis' incarnation and whose data it holds, the registry of lanes and the shares of the queue."""

    def __init__(
        self,
        *,
        config: Config,
        ledger: Ledger,
        barrier: BarrierInForce,
        telemetry: Telemetry,
        clock: Clock,
        deployment: str,
        recover_by_token: Callable[[str], bool],
        count_orphans: Callable[[float], object],
        tidy_knocks: Callable[[], object],
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._barrier = barrier
        self._telemetry = telemetry
        self._clock = clock
        self._deployment = deployment
        self._recover_by_token = recover_by_token
        self._count_orphans = count_orphans
        self._tidy_knocks = tidy_knocks
        self._incarnation = ""
        self._weak: set[str] = set()
        self._rewritten_in = ""
        self._unfit: set[str] = set()
        self._heads: dict[str, str | None] = {}
        self._deleted: dict[str, str] = {}
        self._life_began = 0.0
        self._housekeeping_at = 0.0
        self._waiting_at = 0.0

    def step(self) -> float:
        """Look once; returns seconds until the next look."""
        incarnation = self._ledger.deployment.incarnation()
        origin = self._ledger.deployment.origin()
        if origin.id != self._deployment:
            self._claim_what_is_ours(origin, incarnation)
        if incarnation != self._incarnation:
            self._register(incarnation)
        if incarnation != self._incarnation or self._barrier.doubtful:
            self._look_at_server()
            self._incarnation = incarnation
        self._in_each_lane(lambda lane: self._recover(lane, incarnation))
        if origin.emptied_at is not None and origin.orphans is None:
            self._count_orphans(origin.emptied_at)
        now = self._clock.monotonic()
        if now >= self._waiting_at:
            self._waiting_at = now + WAITING_SECONDS
            self._publish_waiting()
        if now >= self._housekeeping_at:
            self._housekeeping_at = now + HOUSEKEEPING_SECONDS
            self._keep_house()
        return self._config.tick * LOOK_TICKS

    def _in_each_lane(self, act: Callable[[str], object]) -> list[str]:
        """Do something in every lane; returns those in which it came to something.

        A lane that somebody has made unfit (a string in the place of its stream, say) keeps no other lane waiting. It
        is told of once, until it is fit again.
        """
        done = []
        for lane in self._ledger.deployment.lanes():
            try:
                if act(lane):
                    done.append(lane)
            except LedgerRefusedError as error:
                if lane not in self._unfit:
                    self._unfit.add(lane)
                    self._telemetry.warning("lane.refused", lane=lane, error=str(error))
            else:
                self._unfit.discard(lane)
        return done

    def _claim_what_is_ours(self, origin: Origin, incarnation: str) -> None:
        """Write our id again should Redis have come back empty, or have been emptied: results of ours stay ours."""
        if origin.id is None and self._ledger.deployment.reclaim(self._deployment):
            self._telemetry.redis_emptied(self._deployment)
        self._register(incarnation)

    def _register(self, incarnation: str) -> None:
        """Write our id and lanes again should Redis have come back empty: results of ours stay ours."""
        now = self._ledger.store.now()
        found = self._ledger.deployment.enter(self._deployment, life=incarnation, life_at=now)
        if found != self._deployment:
            raise ForeignDeploymentError
        self._life_began = self._ledger.deployment.life_began(incarnation)
        intake = self._config.intake
        told = {"dedupe_ttl": str(int(intake.dedupe_ttl)), "intake_max_bytes": str(intake.max_bytes)}
        self._ledger.deployment.note(**told)
        self._ledger.deployment.register_lanes(self._config.lanes)

    def _look_at_server(self) -> None:
        """Choose the barrier for the server that is there, and tell what endangers a promise, each thing once."""
        facts = self._ledger.store.facts()
        if self._barrier.choose(facts):
            self._telemetry.barrier_chosen(self._barrier.kind, self._barrier.reason)
        found = {weakness.word: weakness for weakness in weaknesses(facts)}
        for word in sorted(found.keys() - self._weak):
            weakness = found[word]
            self._telemetry.redis_weak(word, weakness.detail, weakness.hint, grave=weakness.grave)
        for word in sorted(self._weak - found.keys()):
            self._telemetry.redis_strong(word)
        self._weak = set(found)
        if facts.appendonly and not facts.rewritten and self._rewritten_in != facts.run_id:
            self._rewritten_in = facts.run_id
            if not self._ledger.deployment.rewrite_aof():
                hint = "after a power cut run redis-check-aof before the next start, or allow BGREWRITEAOF"
                self._telemetry.warning("redis.not_rewritten", hint=hint)

    def _recover(self, lane: str, incarnation: str) -> None:
        past = self._ledger.lanes.past(lane)
        if past.incarnation == incarnation and past.barrier in (self._barrier.kind, "none"):
            return  # what one replica posted without a barrier stays in need of recovery, whatever the others have
        if past.incarnation is None:
            self._remember(lane)
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
        may be its past that was forgotten. A recovery that an earlier life did not end is begun anew: its reason, a
        promotion say, is none that a restart would show again.
        """
        if past.recovering_since is not None:
            return False
        if past.incarnation is None:
            if not self._ledger.lanes.has_older(lane, self._life_began):
                return True
            kept = self._barrier.kind != "none"
        else:
            kept = past.incarnation == incarnation or past.barrier != "none"
        if not kept:
            return False
        facts = self._ledger.store.facts()  # after a failover another connection may still lead to the old master
        return facts.run_id == incarnation and not facts.was_replica

    def _tidy_lanes(self) -> None:
        """Let go of what is too old in every lane, and of lanes that nobody configured and nothing is left of."""
        lanes, config = self._ledger.deployment.lanes(), self._config
        strangers = [lane for lane in lanes if lane not in config.lanes]
        # which remote batches are whose is asked of all lanes: while somebody is in doubt, no lane may be missing
        may_go = set() if strangers and self._any_in_doubt(lanes) else set(strangers)
        dead_before = self._ledger.store.now() - config.dead_retention
        gone = self._in_each_lane(
            lambda lane: self._ledger.lanes.tidy(
                lane, retention=config.retention, dead_before=dead_before, may_go=lane in may_go
            )
        )
        self._ledger.deployment.strike_lanes(gone)
        for lane in gone:
            self._heads.pop(lane, None)
            self._deleted.pop(lane, None)
            self._unfit.discard(lane)
            self._telemetry.lane_ended(lane)

    def _any_in_doubt(self, lanes: Sequence[str]) -> bool:
        live = [(lane, uid) for lane in lanes for uid in self._ledger.batches.live(lane)]
        return any(batch.state is State.SUBMITTING for batch in self._ledger.batches.get_many(live))

    def _remember(self, lane: str) -> None:
        """Put the cursor back where it was, should somebody have deleted the lane's record: or all is sealed again."""
        live = [(lane, uid) for uid in self._ledger.batches.live(lane)]
        batches = self._ledger.batches.get_many(live)
        if batches:
            last = max((batch.last for batch in batches), key=order)
            if self._ledger.lanes.remember(lane, last, sum(batch.entries for batch in batches)):
                self._telemetry.lane_forgotten(lane)

    def _keep_house(self) -> None:
        self._look_at_server()
        self._ledger.deployment.sweep_in_flight()
        self._tidy_lanes()
        found = self._ledger.deployment.discover_lanes()
        self._ledger.deployment.register_lanes({*self._config.lanes, *found})
        self._in_each_lane(self._look_for_deletions)
        self._tidy_knocks()

    def _look_for_deletions(self, lane: str) -> None:
        """Tell, once for each, of waiting prompts that somebody deletes: only what is settled is ours to delete."""
        deleted = self._ledger.lanes.deleted(lane, self._heads.get(lane))
        if deleted is not None and self._deleted.get(lane) != deleted:
            self._deleted[lane] = deleted
            self._telemetry.prompts_deleted(lane, deleted)
        if self._ledger.lanes.rewind(lane):
            self._telemetry.lane_rewound(lane)
        self._heads[lane] = self._ledger.lanes.head(lane)

    def _publish_waiting(self) -> None:
        lanes = self._ledger.deployment.lanes()
        self._ledger.deployment.record_waiting(self._ledger.lanes.stream_bytes(lanes))


class ForeignDeploymentError(Exception):
    """The data in Redis belongs to another deployment than when this process started (a clone, or a restore).

    Nothing of it is touched; start anew to work for that deployment.
    """

"""The report that `batchmill status --json` prints and `/statusz` serves: figures as plain JSON values."""

from typing import Any

from worker.core.figures import Figures, LaneFigures
from worker.core.model import State


def report(figures: Figures, *, in_flight_limit: int) -> dict[str, Any]:
    """Shape figures for humans and scripts; ages are seconds."""
    lanes = [_lane(lane, figures.read_at) for lane in figures.lanes]
    return {
        "read_at": figures.read_at,
        "healthy": not figures.evicting and not any(lane["held"] or lane["parked"] for lane in lanes),
        "in_flight_requests": figures.in_flight,
        "in_flight_limit": in_flight_limit,
        "redis_evicting": figures.evicting,
        "redis_emptied_at": figures.emptied_at,
        "orphaned_batches": figures.orphans or 0,
        "sink_pending_batches": dict(figures.sink_pending),
        "lanes": {lane["lane"]: lane for lane in lanes},
    }


def _lane(lane: LaneFigures, now: float) -> dict[str, Any]:
    return {
        "lane": lane.lane,
        "depth": lane.depth,
        "bytes": lane.bytes,
        "oldest_prompt_age_seconds": _age(lane.oldest_prompt_at, now),
        "oldest_batch_age_seconds": _age(lane.oldest_batch_at, now),
        "enqueued": lane.enqueued,
        "batches": {state.value: lane.batches.get(state, 0) for state in State if state is not State.SETTLED},
        "in_doubt": lane.in_doubt,
        "held": lane.held,
        "dead_letters": lane.dead_letters,
        "paused": lane.paused,
        "parked": lane.parked,
    }


def _age(since: float | None, now: float) -> float:
    return 0.0 if since is None else round(max(0.0, now - since), 3)

import json
from typing import Any

import pytest
from core_builders import NOON

from worker.core.figures import Figures, LaneFigures
from worker.core.model import State
from worker.core.report import report


def lane(name: str = "default", **given: Any) -> LaneFigures:
    """Build the figures of a lane in which nothing happens."""
    quiet: dict[str, Any] = {
        "depth": 0,
        "bytes": 0,
        "enqueued": 0,
        "batches": {},
        "in_doubt": 0,
        "held": 0,
        "dead_letters": 0,
    }
    return LaneFigures(lane=name, **(quiet | given))


def reported(*lanes: LaneFigures, evicting: bool = False, in_flight: int = 0) -> dict[str, Any]:
    """Report on lanes at noon."""
    figures = Figures(read_at=NOON, lanes=lanes, in_flight=in_flight, evicting=evicting, sink_pending={"results": 2})
    return report(figures, in_flight_limit=200_000)


def test_a_report_is_plain_json() -> None:
    """Scripts read it: every key, spelled out."""
    busy = lane(
        depth=7,
        bytes=9000,
        enqueued=100,
        batches={State.SEALED: 1, State.IN_PROGRESS: 2, State.SETTLED: 50},
        in_doubt=1,
        dead_letters=3,
        oldest_prompt_at=NOON - 12.3456,
        oldest_batch_at=NOON - 3600,
        paused="upgrade",
    )
    assert json.loads(json.dumps(reported(busy, in_flight=42))) == {
        "read_at": NOON,
        "healthy": True,
        "in_flight_requests": 42,
        "in_flight_limit": 200_000,
        "redis_evicting": False,
        "redis_emptied_at": None,
        "orphaned_batches": 0,
        "sink_pending_batches": {"results": 2},
        "lanes": {
            "default": {
                "lane": "default",
                "depth": 7,
                "bytes": 9000,
                "oldest_prompt_age_seconds": 12.346,
                "oldest_batch_age_seconds": 3600.0,
                "enqueued": 100,
                "batches": {
                    "sealed": 1,
                    "submitting": 0,
                    "in_progress": 2,
                    "canceling": 0,
                    "ended": 0,
                    "delivered": 0,
                    "held": 0,
                },
                "in_doubt": 1,
                "held": 0,
                "dead_letters": 3,
                "paused": "upgrade",
                "parked": None,
            }
        },
    }


@pytest.mark.parametrize(
    ("given", "healthy"),
    [({}, True), ({"paused": "x"}, True), ({"in_doubt": 3}, True), ({"parked": "x"}, False), ({"held": 1}, False)],
)
def test_what_an_operator_has_to_mend_is_unhealthy(given: dict[str, Any], *, healthy: bool) -> None:
    """A pause is the operator's own doing and a doubt ends by itself; one bad lane is enough."""
    assert reported(lane("other"), lane(**given))["healthy"] is healthy


def test_a_redis_that_evicts_is_unhealthy() -> None:
    """It may throw prompts away at any moment."""
    assert reported(lane(), evicting=True)["healthy"] is False


def test_an_age_is_never_negative() -> None:
    """A prompt that arrived while the figures were read is new, not from the future."""
    young = reported(lane(oldest_prompt_at=NOON + 1))["lanes"]["default"]
    assert (young["oldest_prompt_age_seconds"], young["oldest_batch_age_seconds"]) == (0.0, 0.0)

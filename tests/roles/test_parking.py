from typing import Any

import pytest
from bench import Bench, turn
from endings import calls, dead, ends_right, enqueue, has_ended_right, marks, posts, sizes, states, succeeded, turns

from worker.core.model import State

CREDIT = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade."
LIMIT = "You have reached your specified API usage limits. You will regain access on 2026-12-01."

TROUBLE: dict[str, dict[str, Any]] = {
    "payment required": {"status": 402},
    "key without permission": {"status": 403},
    "no such endpoint": {"status": 404},
    "credit too low": {"status": 400, "message": CREDIT},
    "own usage limit": {"status": 400, "message": LIMIT},
    "spend limit": {"status": 429, "error_code": "enforced_spend_limit_reached"},
    "contract limit": {"status": 429, "error_code": "contract_spend_limit_reached"},
    "on hold": {"status": 400, "error_code": "organization_on_hold"},
    "policy": {"status": 400, "error_code": "workspace_policy_violation"},
}


def parked(bench: Bench) -> str | None:
    """Return why the lane is parked, as Redis has it."""
    value: Any = bench.redis.hget("batchmill:{default}:lane", "parked")
    return value.decode() if value else None


@pytest.mark.parametrize("fault", TROUBLE.values(), ids=TROUBLE)
def test_account_trouble_at_a_create_parks_the_lane_until_a_probe_goes_through(
    bench: Bench, fault: dict[str, Any]
) -> None:
    """No prompt is blamed, halved out or counted down for it; one prompt tries, then the others follow."""
    bench.simulator.control.inject({"kind": "status", "on": "create", **fault})
    names = enqueue(bench, 6)
    app = bench.start()
    bench.drive(app, lambda: parked(bench))
    ends_right(bench, app, names)
    assert marks(app) == (None, None)
    assert dead(app) == []
    assert sizes(bench) == [1, 5]
    assert {row["attempt"] for row in bench.rows()} == {1}


def test_trouble_that_lasts_is_probed_with_one_and_the_same_prompt(bench: Bench) -> None:
    """While creates are refused, one prompt asks again and again; the rest waits in one piece."""
    fault = {"kind": "status", "on": "create", "status": 402, "times": 4}
    bench.simulator.control.inject(fault)
    names = enqueue(bench, 5)
    app = bench.start(lease="10s")  # on a busy machine a lease of the bench runs out within a step
    ends_right(bench, app, names)
    attempts: Any = bench.simulator.control.state()["attempts"]
    assert [attempt["received"] > 300 for attempt in attempts] == [True, False, False, False, False, True]
    assert sizes(bench) == [1, 4]


def test_a_lone_prompt_is_its_own_probe(bench: Bench) -> None:
    """A lane with a single prompt finds its way out as well."""
    bench.simulator.control.inject({"kind": "status", "on": "create", "status": 402, "times": 2})
    names = enqueue(bench, 1)
    app = bench.start()
    ends_right(bench, app, names)
    assert marks(app) == (None, None)


def test_a_revoked_key_parks_and_a_restored_one_goes_on(bench: Bench) -> None:
    """401 on every call: nothing is lost, nothing is buried, and it ends by itself."""
    names = enqueue(bench, 4)
    bench.simulator.control.inject({"kind": "revoke_key", "key": "sk-ant-bench"})
    app = bench.start()
    bench.drive(app, lambda: parked(bench))
    turns(app, 20)
    assert states(app).count(State.SEALED) == len(states(app))
    bench.simulator.control.inject({"kind": "restore_key", "key": "sk-ant-bench"})
    ends_right(bench, app, names)
    assert marks(app) == (None, None)
    assert succeeded(bench) == 4


def test_a_key_that_is_revoked_while_a_batch_is_open_loses_nothing(bench: Bench) -> None:
    """Polls and reads fail until the key is back, then the rows come."""
    bench.simulator.control.inject({"kind": "stuck", "on": "create"})
    names = enqueue(bench, 4)
    app = bench.start()
    bench.drive(app, lambda: states(app) == [State.IN_PROGRESS])
    bench.simulator.control.inject({"kind": "revoke_key", "key": "sk-ant-bench"})
    bench.simulator.control.end()
    turns(app, 20)
    assert states(app) == [State.IN_PROGRESS]
    bench.simulator.control.inject({"kind": "restore_key", "key": "sk-ant-bench"})
    ends_right(bench, app, names)


def row_trouble(bench: Bench, *, times: int = 1, error_type: str = "invalid_request_error") -> None:
    """Let every row of a batch tell of too little credit."""
    fault = {"kind": "rows", "result": "errored", "error_type": error_type, "message": CREDIT, "fraction": 1.0}
    bench.simulator.control.inject(fault | {"times": times})


@pytest.mark.parametrize("error_type", ["invalid_request_error", "billing_error"])
def test_rows_without_credit_cost_no_attempt(bench: Bench, error_type: str) -> None:
    """Dozens of rows say that the money is gone: none is buried, and once it is back each is at its first attempt."""
    row_trouble(bench, error_type=error_type)
    names = enqueue(bench, 24)
    app = bench.start(lanes__default__max_attempts="1")
    bench.drive(app, lambda: parked(bench))
    ends_right(bench, app, names)
    assert {row["attempt"] for row in bench.rows()} == {1}
    assert succeeded(bench) == 24
    assert dead(app) == []
    assert sizes(bench)[:2] == [24, 1]
    assert sum(sizes(bench)) == 48
    assert marks(app) == (None, None)


def test_a_probe_without_credit_leaves_the_lane_parked(bench: Bench) -> None:
    """Each probe risks one prompt, and only its good row ends the parking."""
    row_trouble(bench, times=3)
    names = enqueue(bench, 12)
    app = bench.start()
    ends_right(bench, app, names)
    assert sizes(bench)[:3] == [12, 1, 1]
    assert {row["attempt"] for row in bench.rows()} == {1}
    assert marks(app) == (None, None)


def test_a_lone_prompt_without_credit_unparks_its_lane(bench: Bench) -> None:
    """The only prompt of a lane is a probe like any other, and its good row ends the parking."""
    row_trouble(bench)
    names = enqueue(bench, 1)
    app = bench.start()
    ends_right(bench, app, names)
    assert marks(app) == (None, None)


def test_an_accepted_create_does_not_end_what_rows_told(bench: Bench) -> None:
    """Creates are accepted without credit; only a row can tell that it is back."""
    row_trouble(bench)
    enqueue(bench, 6)
    app = bench.start()
    bench.drive(app, lambda: parked(bench))
    bench.simulator.control.inject({"kind": "stuck", "on": "create", "times": None})
    bench.drive(app, lambda: State.IN_PROGRESS in states(app))
    turns(app, 10)
    assert parked(bench)
    assert sizes(bench)[:2] == [6, 1]


def test_resume_ends_a_parking_at_once(bench: Bench) -> None:
    """An operator who has paid does not wait for the probe, and everything goes out in one batch."""
    bench.simulator.control.inject({"kind": "status", "on": "create", "status": 402})
    names = enqueue(bench, 5)
    app = bench.start(park__probe="1h")
    bench.drive(app, lambda: parked(bench))
    app.ledger.lanes.resume("default")
    assert marks(app) == (None, None)
    bench.redis.zadd("batchmill:{default}:due", dict.fromkeys(app.ledger.batches.live("default"), 0))
    ends_right(bench, app, names)
    assert sizes(bench) == [5]


def test_a_paused_lane_seals_and_does_not_post(bench: Bench) -> None:
    """Pausing keeps what is sealed; resuming posts it."""
    app = bench.start()
    app.ledger.lanes.pause("default", "maintenance")
    names = enqueue(bench, 3)
    turns(app, 20)
    assert states(app) == [State.SEALED]
    assert not posts(bench)
    app.ledger.lanes.resume("default")
    ends_right(bench, app, names)
    assert sizes(bench) == [3]


def test_pausing_in_the_middle_of_a_post_sends_no_last_byte(bench: Bench) -> None:
    """The intent asks for the pause too: between the body and its last byte is not too late."""
    names = enqueue(bench, 3)
    app = bench.start()
    assert app.api is not None
    newest = app.api.newest

    def pause_meanwhile() -> Any:
        app.ledger.lanes.pause("default", "maintenance")
        return newest()

    app.api.newest = pause_meanwhile  # type: ignore[method-assign]
    turn(app)
    app.api.newest = newest  # type: ignore[method-assign]
    turns(app, 20)
    assert states(app) == [State.SEALED]
    assert calls(bench, "create") == 0
    assert app.ledger.deployment.in_flight() == 0
    app.ledger.lanes.resume("default")
    ends_right(bench, app, names)
    assert sizes(bench) == [3]


def test_a_pause_lets_open_batches_finish(bench: Bench) -> None:
    """Pausing is about submitting: what the API has is polled, delivered and settled."""
    bench.simulator.control.inject({"kind": "stuck", "on": "create"})
    names = enqueue(bench, 3)
    app = bench.start()
    bench.drive(app, lambda: states(app) == [State.IN_PROGRESS])
    app.ledger.lanes.pause("default", "maintenance")
    bench.simulator.control.end()
    bench.drive(app)
    has_ended_right(bench, app, names)
    assert marks(app) == ("maintenance", None)

from typing import Any

import pytest
from bench import Bench, turn
from endings import (
    batches,
    calls,
    dead,
    ends_right,
    enqueue,
    has_ended_right,
    held,
    remote_ids,
    sizes,
    states,
    succeeded,
    turns,
)

from worker import poller
from worker.actors import Queue
from worker.config import Config, load_config
from worker.core.lifecycle import Event
from worker.core.model import Batch, State
from worker.simulator import Simulator
from worker.wiring import App


def stuck(bench: Bench, times: int = 1) -> None:
    """Let batches stay in progress until the test ends them."""
    bench.simulator.control.inject({"kind": "stuck", "on": "create", "times": times})


def in_progress(bench: Bench, app: App) -> Batch:
    """Work until the lane's one batch is in progress."""
    bench.drive(app, lambda: states(app) == [State.IN_PROGRESS])
    return batches(app)[0]


def resubmit(app: App, batch: Batch) -> None:
    """Decide as an operator would that a held batch is paid for again."""
    forgotten: dict[str, Any] = dict.fromkeys(
        ("remote_id", "created_at", "ended_at", "judged_at", "counts", "reason", "doubt"), ""
    )
    app.ledger.batches.advance(batch, Event.RESUBMIT, unposted=batch.count, failures="0", **forgotten)


def bury(app: App, batch: Batch) -> None:
    """Decide as an operator would that a held batch is given up."""
    app.ledger.batches.end(batch, Event.BURY, fence="", ended_at=None, max_attempts=3, reason="abandoned")


def test_a_first_look_that_finds_nothing_is_forgiven(bench: Bench) -> None:
    """A batch is not found for a moment after its creation: reads lag behind writes."""
    bench.simulator.control.inject({"kind": "not_found", "on": "retrieve", "times": 2})
    names = enqueue(bench, 3)
    app = bench.start()
    ends_right(bench, app, names)
    assert sizes(bench) == [3]


def test_a_look_that_finds_nothing_between_good_ones_is_forgiven(bench: Bench) -> None:
    """Even for an old batch it takes several misses in a row to believe them."""
    stuck(bench)
    bench.simulator.control.inject({"kind": "not_found", "on": "retrieve", "after": 2, "times": 3})
    names = enqueue(bench, 3)
    app = bench.start()
    in_progress(bench, app)
    bench.drive(app, lambda: calls(bench, "retrieve") > 6)
    assert states(app) == [State.IN_PROGRESS]
    bench.simulator.control.end()
    ends_right(bench, app, names)


def test_an_old_batch_is_not_given_up_for_misses_that_a_look_interrupts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each good look starts the count of misses anew."""
    monkeypatch.setattr(poller, "YOUNG_SECONDS", 0.0)
    stuck(bench)
    bench.simulator.control.inject({"kind": "not_found", "on": "retrieve", "after": 1, "times": 4})
    names = enqueue(bench, 3)
    app = bench.start()
    in_progress(bench, app)
    bench.drive(app, lambda: calls(bench, "retrieve") > 3)
    bench.simulator.control.inject({"kind": "not_found", "on": "retrieve", "times": 4})
    bench.drive(app, lambda: calls(bench, "retrieve") > 6)
    assert states(app) == [State.IN_PROGRESS]
    bench.simulator.control.end()
    ends_right(bench, app, names)


@pytest.mark.parametrize("status", [408, 429, 500, 503, 529])
def test_a_look_that_fails_is_repeated(bench: Bench, status: int) -> None:
    """An error says nothing about the batch."""
    bench.simulator.control.inject({"kind": "status", "on": "retrieve", "status": status, "times": 3})
    names = enqueue(bench, 3)
    app = bench.start()
    ends_right(bench, app, names)
    assert sizes(bench) == [3]


def test_a_good_look_ends_the_count_of_bad_ones(bench: Bench) -> None:
    """Patience begins anew, for what is not found and for what fails."""
    stuck(bench)
    bench.simulator.control.inject({"kind": "not_found", "on": "retrieve", "times": 2})
    enqueue(bench, 3)
    app = bench.start()
    in_progress(bench, app)
    bench.drive(app, lambda: batches(app)[0].misses)
    bench.drive(app, lambda: not batches(app)[0].misses)
    bench.simulator.control.inject({"kind": "status", "on": "retrieve", "status": 500, "times": 2})
    bench.drive(app, lambda: batches(app)[0].failures)
    bench.drive(app, lambda: not batches(app)[0].failures)


def test_a_batch_that_somebody_cancels_ends_with_rows_and_dead_letters(bench: Bench) -> None:
    """Nobody waits for ever: canceled prompts tell their producers, and can be redriven."""
    with Simulator(ends_after=600.0, cancel_takes=60.0, poll_hint=0) as slow:
        bench.simulator = slow
        names = enqueue(bench, 3)
        app = bench.start()
        batch = in_progress(bench, app)
        slow.control.cancel(str(batch.remote_id))
        bench.drive(app, lambda: states(app) == [State.CANCELING])
        slow.control.advance(61)
        ends_right(bench, app, names)
        assert [row["result"]["type"] for row in bench.rows()] == ["canceled"] * 3
        assert sorted(dead(app)) == [(name, "canceled", 1) for name in names]
        assert sizes(bench) == [3]


def test_a_batch_canceled_half_way_keeps_what_was_done(bench: Bench) -> None:
    """What succeeded before the cancel is delivered; the rest is canceled."""
    with Simulator(ends_after=10.0, cancel_takes=0.05, poll_hint=0) as slow:
        bench.simulator = slow
        names = enqueue(bench, 20)
        app = bench.start()
        batch = in_progress(bench, app)
        slow.control.advance(5)
        slow.control.cancel(str(batch.remote_id))
        ends_right(bench, app, names)
        assert 0 < succeeded(bench) < 20
        assert len(dead(app)) == 20 - succeeded(bench)


@pytest.fixture
def deleted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> App:
    """A worker with one held batch of three prompts, whose remote batch somebody has deleted."""
    monkeypatch.setattr(poller, "YOUNG_SECONDS", 0.0)
    stuck(bench)
    enqueue(bench, 3)
    app = bench.start()
    batch = in_progress(bench, app)
    bench.simulator.control.end(batch.remote_id)
    bench.simulator.control.delete(str(batch.remote_id))
    bench.drive(app, lambda: held(app))
    return app


def test_a_batch_that_somebody_deletes_is_held_with_the_reason(bench: Bench, deleted: App) -> None:
    """It was paid for, perhaps, and its results are gone: paying again is for a human to decide."""
    batch = held(deleted)
    assert batch is not None
    assert "deleted" in str(batch.reason)
    assert deleted.ledger.deployment.in_flight() == 0
    turns(deleted, 10)
    assert held(deleted) == batch
    assert sizes(bench) == [3]
    assert bench.rows() == []


def test_a_held_batch_does_not_hold_up_its_lane(bench: Bench, deleted: App) -> None:
    """Whoever comes later is answered."""
    names = enqueue(bench, 2, stem="later")
    bench.drive(deleted, lambda: len(bench.rows()) == 2)
    assert sorted(row["id"] for row in bench.rows()) == names
    assert states(deleted) == [State.HELD]


def test_a_held_batch_that_is_resubmitted_is_answered(bench: Bench, deleted: App) -> None:
    """The operator pays again, knowingly, and every prompt has its row."""
    batch = held(deleted)
    assert batch is not None
    resubmit(deleted, batch)
    bench.drive(deleted)
    assert sorted(row["id"] for row in bench.rows()) == ["p0", "p1", "p2"]
    assert succeeded(bench) == 3
    assert sizes(bench) == [3, 3]
    assert bench.verdict()["prompts_committed_twice"] == 3
    assert {row["batch_id"] for row in bench.rows()} == {remote_ids(bench)[1]}


def test_a_held_batch_that_is_buried_tells_its_producers(bench: Bench, deleted: App) -> None:
    """Given up means a row that says so and a dead letter each, and no second create."""
    batch = held(deleted)
    assert batch is not None
    bury(deleted, batch)
    bench.drive(deleted)
    has_ended_right(bench, deleted, ["p0", "p1", "p2"])
    assert {row["result"]["error"]["error"]["type"] for row in bench.rows()} == {"invalid_request_error"}
    assert sorted(dead(deleted)) == [(name, "abandoned", 1) for name in ("p0", "p1", "p2")]
    assert sizes(bench) == [3]


def test_results_that_are_archived_are_held(bench: Bench) -> None:
    """After 29 days the API keeps the batch and not its results."""
    stuck(bench)
    enqueue(bench, 3)
    app = bench.start()
    batch = in_progress(bench, app)
    bench.simulator.control.end(batch.remote_id)
    bench.simulator.control.advance(30 * 86_400)
    bench.drive(app, lambda: held(app))
    found = held(app)
    assert found is not None
    assert "archived" in str(found.reason)


def with_other_key(**settings: Any) -> Config:
    """Load the configuration as if the operator had switched the key."""
    return load_config(**settings | {"environ": {"ANTHROPIC_API_KEY": "sk-ant-other"}})


def test_a_key_of_another_workspace_does_not_make_batches_look_deleted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A switched key sees none of our batches: the lane is parked until the old key is back, and nothing is held."""
    monkeypatch.setattr(poller, "YOUNG_SECONDS", 0.0)
    keys = {"sk-ant-bench": "wrkspc_ours", "sk-ant-other": "wrkspc_theirs"}
    with Simulator(ends_after=60.0, poll_hint=0, workspaces=keys) as two:
        bench.simulator = two
        names = enqueue(bench, 3)
        app = bench.start()
        in_progress(bench, app)
        with monkeypatch.context() as patch:
            patch.setattr("bench.load_config", with_other_key)
            switched = bench.start()
        bench.drive(switched, lambda: app.ledger.lanes.marks("default").parked)
        turns(switched, 20)
        assert states(app) == [State.IN_PROGRESS]
        two.control.end()
        ends_right(bench, app, names)


def test_many_open_batches_are_looked_at_by_one_list_call(bench: Bench) -> None:
    """A hundred open batches cost one call a round, not a hundred."""
    stuck(bench, times=8)
    names = enqueue(bench, 8)
    app = bench.start(lanes__default__max_count="1", poll__interval="1h")
    bench.drive(app, lambda: states(app) == [State.IN_PROGRESS] * 8)
    bench.simulator.control.end()
    lists, retrieves = calls(bench, "list"), calls(bench, "retrieve")
    look_at_all(bench, app)
    assert calls(bench, "list") - lists == 1
    assert calls(bench, "retrieve") == retrieves
    assert states(app) == [State.ENDED] * 8
    ends_right(bench, app, names)


def look_at_all(bench: Bench, app: App) -> None:
    """Make every batch due and answer one knock for all of them, as the ticker sends it."""
    bench.redis.zadd("batchmill:{default}:due", dict.fromkeys(app.ledger.batches.live("default"), 0))
    app.steps[Queue.POLL](app.ledger.batches.claim("default", limit=100, lease=10.0))


def test_a_list_that_fails_leaves_many_batches_for_later(bench: Bench) -> None:
    """One failed call says nothing about any of them."""
    stuck(bench, times=5)
    names = enqueue(bench, 5)
    app = bench.start(lanes__default__max_count="1", poll__interval="50ms")
    bench.drive(app, lambda: states(app) == [State.IN_PROGRESS] * 5)
    bench.simulator.control.inject({"kind": "status", "on": "list", "status": 500})
    look_at_all(bench, app)
    assert states(app) == [State.IN_PROGRESS] * 5
    assert {batch.failures for batch in batches(app)} == {1}
    bench.simulator.control.end()
    ends_right(bench, app, names)


def test_a_batch_that_the_list_leaves_out_is_asked_for_by_itself(bench: Bench) -> None:
    """A list that lags is no proof: each batch it does not show is retrieved."""
    bench.simulator.control.inject({"kind": "hide_from_list", "seconds": 1000})
    stuck(bench, times=5)
    names = enqueue(bench, 5)
    app = bench.start(lanes__default__max_count="1", poll__interval="1h")
    bench.drive(app, lambda: states(app) == [State.IN_PROGRESS] * 5)
    bench.simulator.control.end()
    retrieves = calls(bench, "retrieve")
    look_at_all(bench, app)
    assert calls(bench, "retrieve") - retrieves == 1
    assert states(app) == [State.ENDED] * 5
    ends_right(bench, app, names)


def test_a_batch_that_takes_its_time_is_waited_for_as_the_api_asks(bench: Bench) -> None:
    """retry-after on a batch in progress wins over the usual interval."""
    with Simulator(ends_after=600.0, poll_hint=30) as slow:
        bench.simulator = slow
        enqueue(bench, 2)
        app = bench.start()
        batch = in_progress(bench, app)
        bench.drive(app, lambda: calls(bench, "retrieve") == 1)
        turn(app)
        due: Any = bench.redis.zscore("batchmill:{default}:due", batch.uid)
        assert due / 1000 - app.ledger.store.now() > 25
        assert calls(bench, "retrieve") == 1


def test_everything_expired_is_sent_again(bench: Bench) -> None:
    """A batch that the API did not get to within its day costs nothing and goes into the next one."""
    with Simulator(ends_after=200_000.0, poll_hint=0) as overloaded:
        bench.simulator = overloaded
        names = enqueue(bench, 4)
        app = bench.start()
        in_progress(bench, app)
        overloaded.control.advance(90_000)
        bench.drive(app, lambda: len(sizes(bench)) == 2)
        overloaded.control.end()
        ends_right(bench, app, names)
        assert {row["attempt"] for row in bench.rows()} <= {1, 2}
        assert succeeded(bench) == 4

from bench import Bench
from endings import enqueue, has_ended_right, sizes, states, turns

from worker.core.model import State
from worker.simulator import Simulator
from worker.wiring import App


def stuck(bench: Bench, times: int) -> None:
    """Let batches stay in progress until the test ends them."""
    bench.simulator.control.inject({"kind": "stuck", "on": "create", "times": times})


def settle_one_by_one(bench: Bench, app: App, rounds: int) -> None:
    """End what is open, so often, and let the worker take the next batch after each."""
    for done in range(rounds):
        bench.drive(app, lambda done=done: len(sizes(bench)) > done)  # type: ignore[misc]
        turns(app, 10)
        assert len(sizes(bench)) == done + 1
        bench.simulator.control.end()


def test_a_second_batch_waits_for_room_in_the_accounts_queue(bench: Bench) -> None:
    """Two batches of three do not fit into five: the second is posted when the first has ended."""
    stuck(bench, 2)
    names = enqueue(bench, 6)
    app = bench.start(lanes__default__max_count="3", anthropic__max_in_flight_requests="5")
    settle_one_by_one(bench, app, 2)
    bench.drive(app)
    has_ended_right(bench, app, names)
    assert sizes(bench) == [3, 3]


def test_the_queue_is_shared_by_all_replicas(bench: Bench) -> None:
    """The limit is the account's: what one worker has in flight leaves less for the other."""
    stuck(bench, 2)
    names = enqueue(bench, 6)
    first = bench.start(lanes__default__max_count="3", anthropic__max_in_flight_requests="5")
    second = bench.start()
    bench.drive(first, lambda: len(sizes(bench)) == 1)
    turns(second, 20)
    assert sizes(bench) == [3]
    assert sorted(states(second)) == [State.IN_PROGRESS, State.SEALED]
    bench.simulator.control.end()
    bench.drive(second, lambda: len(sizes(bench)) == 2)
    bench.simulator.control.end()
    bench.drive(second)
    has_ended_right(bench, second, names)


def test_the_queue_is_shared_by_all_lanes(bench: Bench) -> None:
    """A batch of another lane takes room as well."""
    stuck(bench, 2)
    names = enqueue(bench, 3)
    app = bench.start(
        lanes__default__max_count="5",
        lanes__other__max_count="5",
        lanes__other__max_age="0s",
        anthropic__max_in_flight_requests="5",
    )
    names += enqueue(bench, 3, stem="other", lane="other")
    settle_one_by_one(bench, app, 2)
    bench.drive(app)
    has_ended_right(bench, app, names)


def test_a_batch_larger_than_the_queue_goes_alone(bench: Bench) -> None:
    """One that was sealed before the limit was lowered would wait for ever otherwise: it is the API's to refuse it."""
    names = enqueue(bench, 6)
    before = bench.start()
    assert before.batcher is not None
    before.batcher.step("default")
    app = bench.start(lanes__default__max_count="2", anthropic__max_in_flight_requests="2")
    bench.drive(app)
    has_ended_right(bench, app, names)
    assert sizes(bench) == [6]


def test_a_doubt_keeps_its_share(bench: Bench) -> None:
    """A batch that may be at the API counts as if it were."""
    bench.simulator.control.inject(
        [{"kind": "hide_from_list", "seconds": 1000}, {"kind": "drop_reply", "on": "create"}]
    )
    names = enqueue(bench, 6)
    app = bench.start(lanes__default__max_count="3", anthropic__max_in_flight_requests="5", submit__horizon="1h")
    bench.drive(app, lambda: State.SUBMITTING in states(app))
    turns(app, 10)
    assert sizes(bench) == [3]
    assert app.ledger.deployment.in_flight() == 3
    bench.simulator.control.advance(1001)
    bench.drive(app)
    has_ended_right(bench, app, names)


def test_a_share_that_a_crash_left_behind_is_swept(bench: Bench) -> None:
    """A batch that is no longer at the API cannot block the queue for ever."""
    app = bench.start(lanes__default__max_count="5", anthropic__max_in_flight_requests="5")
    app.ledger.deployment.reserve("default", "gone" * 4, 5, 5)
    names = enqueue(bench, 3)
    turns(app, 5)
    assert sizes(bench) == []
    successor = bench.start()
    bench.drive(successor)
    has_ended_right(bench, successor, names)


def test_our_own_gate_keeps_the_accounts_limit_from_being_met(bench: Bench) -> None:
    """With the same limit on both sides the API never has to refuse."""
    with Simulator(ends_after=0.05, poll_hint=0, queue_limit=6) as narrow:
        bench.simulator = narrow
        names = enqueue(bench, 20)
        app = bench.start(lanes__default__max_count="3", anthropic__max_in_flight_requests="6")
        bench.drive(app)
        has_ended_right(bench, app, names)
        assert set(narrow.control.state()["posts"]) == {"created"}  # type: ignore[call-overload]

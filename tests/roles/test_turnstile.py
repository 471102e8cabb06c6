import threading
from collections.abc import Sequence
from typing import Any

from bench import Bench, turn, wait_until
from endings import batches, ends_right, enqueue, states

from worker.actors import QUEUE_OF, Queue
from worker.clock import Clock
from worker.core.model import Claim, State
from worker.loops import Loop
from worker.rescuer import ForeignDeploymentError
from worker.telemetry import Telemetry


def test_drains_that_hang_leave_threads_for_everything_else(bench: Bench, monkeypatch: Any) -> None:
    """With three threads one may drain; a second ended batch is put off for a second instead of taking another."""
    app = bench.start(threads="3", lanes__default__max_count="1")
    names = enqueue(bench, 2)
    drain = app.steps[Queue.DRAIN]
    monkeypatch.setitem(app.steps, Queue.DRAIN, lambda _claims: None)
    bench.drive(app, lambda: states(app) == [State.ENDED, State.ENDED])
    stuck, free = threading.Event(), threading.Event()
    sink = app.sinks["results"]
    usual = sink.open

    def hang(batch: Any) -> Any:
        stuck.set()
        free.wait(30)
        return usual(batch)

    monkeypatch.setattr(sink, "open", hang)
    claims: Sequence[Claim] = []

    def two_claims() -> bool:
        nonlocal claims
        claims = [*claims, *app.ledger.batches.claim("default", limit=10, lease=30.0)]
        return len(claims) == 2

    wait_until(two_claims, description="both are due")
    first = threading.Thread(target=drain, args=([claims[0]],))
    first.start()
    assert stuck.wait(10)
    drain([claims[1]])  # returns at once: there is no place
    assert {batch.state for batch in batches(app)} == {State.ENDED}
    free.set()
    first.join()
    monkeypatch.setitem(app.steps, Queue.DRAIN, drain)
    ends_right(bench, app, names)


def test_a_resumed_lane_submits_what_waits_at_once(bench: Bench) -> None:
    """`resume` does not leave batches to the delay they were put off by."""
    app = bench.start(park__probe="1h")
    app.ledger.lanes.pause("default", "test")
    names = enqueue(bench, 2)
    bench.drive(app, lambda: states(app) == [State.SEALED])
    turn(app)
    app.ledger.lanes.resume("default")
    app.ledger.batches.hasten("default")
    [claim] = app.ledger.batches.claim("default", limit=10, lease=0.0)
    assert QUEUE_OF[claim.state] is Queue.SUBMIT
    ends_right(bench, app, names)


def test_a_process_does_not_work_on_for_another_deployment(bench: Bench) -> None:
    """A clone or a restore under a running worker ends it; started anew, it works for whom the data belongs to."""
    app = bench.start()
    bench.redis.hset("batchmill:deployment", "id", "zzzzzz")
    app.rescuer._incarnation = "another life"
    stop = threading.Event()
    loop = Loop(name="rescuer", step=app.rescuer.step, clock=Clock(), telemetry=Telemetry(version="test"), stop=stop)
    deaths: list[threading.ExceptHookArgs] = []
    hook, threading.excepthook = threading.excepthook, deaths.append
    try:
        loop.thread.start()
        loop.thread.join(10)
    finally:
        threading.excepthook = hook
        stop.set()
    assert [death.exc_type for death in deaths] == [ForeignDeploymentError]

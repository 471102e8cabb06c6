"""A Redis that fills up at every stage of a batch's life: what exists finishes, and then the same process goes on."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from bench import Bench, params, turn
from endings import before_create, dead, ends_right, enqueue, has_ended_right, refuse_bodies_with, sizes, states, turns
from mortal import Mortal

from worker.core.model import State
from worker.ledger.prompts import Prompts
from worker.simulator import Simulator
from worker.wiring import App

Fill = Callable[[], None]


def fill_up(client: Any) -> None:
    """Take all free memory away, and the scripts that are loaded with it."""
    client.script_flush()
    client.config_set("maxmemory", "1mb")


def is_refused(client: Any) -> bool:
    """Whether a producer's plain XADD is refused for want of memory."""
    try:
        client.xadd("batchmill:{default}:prompts", {"params": params("one too many"), "id": "too-many"})
    except redis.OutOfMemoryError:
        return True
    return False


@pytest.fixture
def roomy(bench: Bench) -> Iterator[Bench]:
    """A bench whose server has its memory back in the end."""
    yield bench
    bench.redis.config_set("maxmemory", "0")


def waiting(_bench: Bench, _app: App, fill: Fill) -> None:
    """Fill up while the prompts wait for a batch."""
    fill()


def sealed(_bench: Bench, app: App, fill: Fill) -> None:
    """Fill up between the seal and the submission."""
    assert app.batcher is not None
    app.batcher.step("default")
    assert states(app) == [State.SEALED]
    fill()


def uploading(bench: Bench, app: App, fill: Fill) -> None:
    """Fill up after the look for the head, before the intent."""
    before_create(app, fill)
    bench.drive(app, lambda: bool(sizes(bench)))


def answered(bench: Bench, app: App, fill: Fill) -> None:
    """Fill up between the intent and the record of the answer."""
    assert app.api is not None
    create, once = app.api.create, iter([fill])

    def wrapped(*args: Any, **named: Any) -> Any:
        created = create(*args, **named)
        next(once, lambda: None)()
        return created

    app.api.create = wrapped  # type: ignore[method-assign]
    bench.drive(app, lambda: bool(sizes(bench)))


def doubted(bench: Bench, app: App, fill: Fill) -> None:
    """Fill up while nobody knows whether the batch was created."""
    bench.simulator.control.inject({"kind": "drop_reply", "on": "create"})
    bench.drive(app, lambda: states(app) == [State.SUBMITTING])
    fill()


def never_created(bench: Bench, app: App, fill: Fill) -> None:
    """Fill up in a doubt that ends with sending it again."""
    bench.simulator.control.inject({"kind": "reset_before", "on": "create"})
    bench.drive(app, lambda: states(app) == [State.SUBMITTING])
    fill()


def in_progress(bench: Bench, app: App, fill: Fill) -> None:
    """Fill up while the API works."""
    bench.simulator.control.inject({"kind": "stuck", "on": "create"})
    bench.drive(app, lambda: states(app) == [State.IN_PROGRESS])
    fill()
    bench.simulator.control.end()


def ended(bench: Bench, app: App, fill: Fill) -> None:
    """Fill up before the results are read."""
    bench.drive(app, lambda: states(app) == [State.ENDED])
    fill()


def refused(bench: Bench, app: App, fill: Fill) -> None:
    """Fill up before the guilty prompt of a refused batch is looked for."""
    bench.enqueue("guilty", id="guilty")
    refuse_bodies_with(app, b"guilty")
    before_create(app, fill)
    bench.drive(app, lambda: bool(sizes(bench)))


def limited(bench: Bench, app: App, fill: Fill) -> None:
    """Fill up while the API refuses because it is asked too often."""
    bench.simulator.control.inject({"kind": "status", "on": "create", "status": 429, "retry_after": 0})
    before_create(app, fill)
    bench.drive(app, lambda: bool(sizes(bench)))


def parked(bench: Bench, app: App, fill: Fill) -> None:
    """Fill up in account trouble: parking, probing and its end need no memory."""
    trouble = {"kind": "status", "on": "create", "status": 403, "error_type": "permission_error", "times": 2}
    bench.simulator.control.inject(trouble)
    before_create(app, fill)
    bench.drive(app, lambda: bool(sizes(bench)))


STAGES = (waiting, sealed, uploading, answered, doubted, never_created, in_progress, ended, refused, limited, parked)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
@pytest.mark.parametrize("exclusive", ["true", "false"], ids=["exclusive", "shared"])
def test_what_exists_finishes_in_a_full_redis(
    roomy: Bench, stage: Callable[[Bench, App, Fill], None], exclusive: str
) -> None:
    """Whatever the stage at which it fills up: producers are refused, the batch ends, the same process goes on."""
    names = enqueue(roomy, 4)
    roomy.redis.xadd("batchmill:{default}:prompts", {"params": "[]", "id": "bad"})
    app = roomy.start(anthropic__exclusive_workspace=exclusive)
    assert app.barrier.kind != "none"
    stage(roomy, app, lambda: fill_up(roomy.redis))
    assert is_refused(roomy.redis)
    extra = ["guilty"] if stage is refused else []
    ends_right(roomy, app, [*names, "bad", *extra])
    assert sorted(prompt for prompt, _, _ in dead(app)) == ["bad", *extra]
    assert is_refused(roomy.redis)
    roomy.redis.config_set("maxmemory", "0")
    later = enqueue(roomy, 2, stem="later")
    ends_right(roomy, app, [*names, "bad", *extra, *later])


@pytest.mark.parametrize("result", ["expired", "errored"])
def test_what_is_retried_and_buried_fits_into_a_full_redis(
    roomy: Bench, monkeypatch: pytest.MonkeyPatch, result: str
) -> None:
    """Between the sinks' commit and the settling: prompts go back into the lane, hopeless ones become dead letters."""
    names = enqueue(roomy, 6)
    fault = {"kind": "rows", "result": result, "error_type": "overloaded_error", "fraction": 0.5, "times": 2}
    roomy.simulator.control.inject(fault)
    app = roomy.start(lanes__default__max_attempts="2")
    settle, once = Prompts.settle, iter([fill_up])

    def full(*args: Any, **named: Any) -> bool:
        next(once, lambda _client: None)(roomy.redis)
        return settle(*args, **named)

    monkeypatch.setattr(Prompts, "settle", full)
    ends_right(roomy, app, names)
    assert is_refused(roomy.redis)
    assert len(sizes(roomy)) == 2
    assert dead(app)


def test_a_lane_nobody_configured_is_found_in_a_full_redis(roomy: Bench) -> None:
    """Its prompts may be what fills it."""
    names = enqueue(roomy, 2, lane="surprise")
    app = roomy.start()
    fill_up(roomy.redis)
    app.rescuer._housekeeping_at = 0.0
    ends_right(roomy, app, names)


@pytest.mark.parametrize("appendonly", [True, False], ids=["barrier", "by token"])
def test_a_full_redis_recovers(tmp_path: Path, simulator: Simulator, appendonly: bool) -> None:
    """After a restart, too: what was forgotten is sealed again as it was, although nothing new fits in."""
    mortal = Mortal(tmp_path, simulator, appendonly=appendonly)
    bench = mortal.bench
    try:
        names = enqueue(bench, 5)
        bench.simulator.control.inject({"kind": "stuck", "on": "create", "times": 2})
        app = bench.start(lanes__default__max_count="3")
        if not appendonly:
            mortal.snapshot()
        bench.drive(app, lambda: len(sizes(bench)) == 2)
        app.close()
        mortal.dies_and_comes_back()
        fill_up(bench.redis)
        successor = bench.start()
        bench.simulator.control.end()
        ends_right(bench, successor, names)
        assert sizes(bench) == [3, 2]
        assert is_refused(bench.redis)
    finally:
        mortal.end()


def test_a_full_redis_takes_nothing_from_whoever_looks(roomy: Bench) -> None:
    """Turns without work change nothing and fail at nothing."""
    app = roomy.start()
    fill_up(roomy.redis)
    turns(app, 3)
    turn(app)
    has_ended_right(roomy, app, [])

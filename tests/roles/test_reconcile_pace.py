"""How soon a doubt is looked at again: found by mutants that lived (docs/mutation.md)."""

from collections.abc import Iterator

import pytest
from bench import Bench
from endings import enqueue, states

from worker.actors import Queue
from worker.core.model import State
from worker.simulator import Simulator

HORIZON, INTERVAL = 1000.0, 60.0
ROUNDED, BEHIND = 0.002, 0.1
"""Seconds: a due time is in milliseconds, and just behind a horizon, so that the next look is the last."""


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """An API whose batches do not end while the test runs."""
    with Simulator(ends_after=3600.0, poll_hint=0) as simulator:
        yield simulator


@pytest.mark.parametrize(
    ("age", "pause"),
    [(0.0, INTERVAL), (HORIZON - 30, 30.0), (10 * HORIZON, INTERVAL)],
    ids=["young", "almost-decided", "old"],
)
def test_a_doubt_is_looked_at_when_it_may_be_ended(bench: Bench, age: float, pause: float) -> None:
    """Every interval, and just behind the horizon; a candidate that takes its time is not asked for without a pause."""
    bench.simulator.control.inject([{"kind": "drop_reply", "on": "create", "times": 1}])
    enqueue(bench, 3)
    app = bench.start(
        anthropic__exclusive_workspace="false",
        submit__horizon=f"{HORIZON:g}s",
        submit__reconcile_interval=f"{INTERVAL:g}s",
    )
    bench.drive(app, lambda: states(app) == [State.SUBMITTING])
    (uid,) = app.ledger.batches.live("default")
    record, due = f"batchmill:{{default}}:batch:{uid}", "batchmill:{default}:due"
    bench.redis.zadd(due, {uid: 0})
    (claim,) = app.ledger.batches.claim("default", limit=1, lease=600.0)
    began = app.ledger.store.now()
    bench.redis.hset(record, "doubt_at", repr(began - age))
    app.steps[Queue.SUBMIT]([claim])
    due_at = bench.redis.zscore(due, uid) / 1000
    assert began + pause - ROUNDED <= due_at <= app.ledger.store.now() + pause + BEHIND
    bench.redis.flushall()

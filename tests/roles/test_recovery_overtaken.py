"""Somebody else moves a batch while recovery finds its remote batch."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import turn
from endings import ends_right, enqueue, sizes, states
from mortal import Mortal

from worker.core.model import State
from worker.simulator import Simulator


@pytest.fixture
def forgetful(tmp_path: Path, simulator: Simulator) -> Iterator[Mortal]:
    """A Redis that keeps snapshots only: nothing makes an intent durable."""
    mortal = Mortal(tmp_path, simulator, appendonly=False)
    yield mortal
    mortal.end()


def test_a_batch_that_moved_while_it_was_found_keeps_the_lane_closed(
    forgetful: Mortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found is on record nowhere: the lane may not go on as if it were, and the next look finds it again."""
    bench = forgetful.bench
    bench.simulator.control.inject({"kind": "stuck", "on": "create"})
    names = enqueue(bench, 3)
    app = bench.start()
    assert app.batcher is not None
    app.batcher.step("default")
    forgetful.snapshot()
    bench.drive(app, lambda: states(app) == [State.IN_PROGRESS])
    app.close()
    forgetful.dies_and_comes_back()
    successor = bench.start()
    bench.simulator.control.end()
    found: list[str] = []

    def refuse() -> str:
        found.append("STALE")
        return "STALE"

    with monkeypatch.context() as patched:
        patched.setattr(type(successor.ledger.batches), "found", lambda *_, **__: refuse())
        bench.drive(successor, lambda: found)
        turn(successor)
        assert bench.redis.hget("batchmill:{default}:lane", "recovering_since")
    ends_right(bench, successor, names)
    assert sizes(bench) == [3]

"""A Redis without a barrier comes back from a snapshot that is older than a lane's past, or than its last recovery."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import Bench, turn
from endings import ends_right, enqueue, posts, sizes, turns
from mortal import Mortal

from worker.simulator import Simulator


@pytest.fixture
def forgetful(tmp_path: Path, simulator: Simulator) -> Iterator[Mortal]:
    """A Redis that keeps snapshots only: nothing makes an intent durable."""
    mortal = Mortal(tmp_path, simulator, appendonly=False)
    yield mortal
    mortal.end()


def recovering(bench: Bench) -> bool:
    """Whether the lane waits for its recovery."""
    return bool(bench.redis.hget("batchmill:{default}:lane", "recovering_since"))


def test_a_lane_whose_past_was_forgotten_is_not_taken_for_a_new_one(forgetful: Mortal) -> None:
    """The last snapshot has its prompts, but is older than the lane's first look: they may have been posted since."""
    bench = forgetful.bench
    bench.simulator.control.inject({"kind": "stuck", "on": "create"})
    app = bench.start()
    names = enqueue(bench, 3, lane="alpha")
    forgetful.snapshot()
    app.ledger.deployment.register_lanes(["alpha"])
    bench.drive(app, lambda: len(sizes(bench)) == 1)
    app.close()
    forgetful.dies_and_comes_back()
    successor = bench.start()
    turns(successor, 5)
    bench.simulator.control.end()
    ends_right(bench, successor, names)
    assert sizes(bench) == [3]


def test_a_new_lane_after_a_restart_need_not_be_recovered(forgetful: Mortal) -> None:
    """Prompts that came in this life of the server cannot have been posted in another."""
    bench = forgetful.bench
    app = bench.start(submit__horizon="1h")
    forgetful.snapshot()
    app.close()
    forgetful.dies_and_comes_back()
    successor = bench.start(submit__horizon="1h")
    turn(successor)
    enqueue(bench, 3, lane="alpha")
    successor.ledger.deployment.register_lanes(["alpha"])
    bench.drive(successor, lambda: sizes(bench) == [3])


def test_a_second_restart_begins_its_own_recovery(forgetful: Mortal) -> None:
    """The snapshot has the date of the first one's: what was posted between the two would not be waited for."""
    bench = forgetful.bench
    bench.start(submit__horizon="1500ms").close()
    forgetful.snapshot()
    forgetful.dies_and_comes_back()
    app = bench.start()
    assert recovering(bench)
    names = enqueue(bench, 3)
    forgetful.snapshot()
    bench.simulator.control.inject({"kind": "late_commit", "on": "create", "seconds": 300})
    bench.drive(app, lambda: bool(posts(bench)))
    app.close()
    forgetful.dies_and_comes_back()
    successor = bench.start()
    turns(successor, 5)
    assert recovering(bench)
    bench.simulator.control.advance(300)
    ends_right(bench, successor, names)
    assert sizes(bench) == [3]

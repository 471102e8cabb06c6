"""A Redis that comes back without the last things it had shown, and processes that remember them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import wait_until
from endings import ends_right, enqueue, sizes
from mortal import Mortal

from worker.core.grouping import Limits, Seal, Window, decide
from worker.simulator import Simulator


@pytest.fixture
def careful(tmp_path: Path, simulator: Simulator) -> Iterator[Mortal]:
    """A Redis with an append-only file."""
    mortal = Mortal(tmp_path, simulator, appendonly=True)
    yield mortal
    mortal.end()


def test_a_window_that_was_read_before_a_restart_is_read_again(careful: Mortal, tmp_path: Path) -> None:
    """Redis has lost the last prompts that it had shown: to seal them would hold up those it still has, for ever."""
    bench = careful.bench
    app = bench.start(lanes__default__max_age="1h")
    assert app.batcher is not None
    file = next((tmp_path / "appendonlydir").glob("*.incr.aof"))
    kept = enqueue(bench, 3)
    wait_until(lambda: not bench.redis.info("persistence")["aof_buffer_length"], description="all is written")
    size = file.stat().st_size
    enqueue(bench, 2, stem="lost")
    app.batcher.step("default")
    careful.dies_and_comes_back(meanwhile=lambda: os.truncate(file, size))
    app.rescuer.step()
    app.ledger.lanes.flush("default")
    ends_right(bench, app, kept)
    assert sizes(bench) == [3]


def test_a_seal_needs_the_life_in_which_its_window_was_read(careful: Mortal) -> None:
    """Redis may be restarted and the lane recovered between the last read and the seal."""
    bench = careful.bench
    names = enqueue(bench, 3)
    app = bench.start()
    marks = app.ledger.lanes.marks("default")
    limits = Limits(max_count=100, max_bytes=100_000, max_age=0.0)
    window = Window(after=marks.cursor, limits=limits, incarnation=marks.incarnation)
    app.ledger.lanes.extend("default", window)
    decision = decide(window, now=marks.now, flush=True)
    assert isinstance(decision, Seal)
    careful.dies_and_comes_back()
    app.rescuer.step()
    assert app.ledger.lanes.seal("default", "a" * 16, window, decision, max_unposted=8) == "RECOVER"
    ends_right(bench, app, names)

"""Lanes side by side: what one of them has must not cost, or stop, the others."""

from typing import Any

import pytest
from bench import Bench

from worker.ledger.lanes import Lanes
from worker.ledger.store import LedgerRefusedError


def test_a_lane_without_news_is_not_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window that waits for its time costs one glance a tick, however much is in it."""
    app = bench.start(lanes__quiet__max_age="1h", lanes__busy__max_age="1h")
    assert app.batcher is not None
    read: list[str] = []
    extend = Lanes.extend

    def spy(self: Lanes, lane: str, window: Any) -> int:
        read.append(lane)
        return extend(self, lane, window)

    monkeypatch.setattr(Lanes, "extend", spy)

    def look() -> list[str]:
        assert app.batcher is not None
        read.clear()
        for lane, glance in app.batcher.glance(["busy", "quiet"]).items():
            assert not isinstance(glance, Exception)
            app.batcher.step(lane, glance)
        return list(read)

    bench.enqueue("a", lane="quiet")
    assert look() == ["busy", "quiet"]
    bench.enqueue("b", lane="busy")
    assert look() == ["busy"]
    assert look() == []
    window = app.batcher._windows["quiet"]
    assert (window.cut.count if window.cut else 0) == 1


def test_what_a_restart_lost_is_looked_for_although_nothing_is_behind_it(bench: Bench) -> None:
    """The window of another life ends behind everything that this life has: it begins anew at the cursor."""
    app = bench.start(lanes__default__max_age="1h")
    assert app.batcher is not None
    bench.enqueue("kept", "lost")
    (glance,) = app.batcher.glance(["default"]).values()
    assert not isinstance(glance, Exception)
    app.batcher.step("default", glance)
    window = app.batcher._windows["default"]
    window.incarnation = "another life"
    bench.redis.xdel("batchmill:{default}:prompts", window.end)
    (glance,) = app.batcher.glance(["default"]).values()
    assert not isinstance(glance, Exception)
    assert not glance.more
    app.batcher.step("default", glance)
    window = app.batcher._windows["default"]
    assert window.cut is not None
    assert window.cut.entries == 1


def test_a_lane_that_is_broken_stops_no_other(bench: Bench) -> None:
    """What is due elsewhere is knocked for; then the trouble is told."""
    app = bench.start(lanes__broken__max_age="1h")
    assert app.batcher is not None
    bench.enqueue("a")
    app.batcher.step("default")
    bench.redis.set("batchmill:{broken}:due", "somebody else's")
    with pytest.raises(LedgerRefusedError):
        app.ticker.step()
    assert app.broker.backlog("submit") == 1
    bench.redis.delete("batchmill:{broken}:due")

"""A Redis whose settings endanger a promise: said at the start and when they change, and no intent trusts them."""

from collections.abc import Iterator
from typing import Any

import pytest
from bench import Bench, turn
from endings import ends_right, enqueue, sizes

from worker.ledger.barrier import NotDurableError
from worker.wiring import App


@pytest.fixture
def settings(bench: Bench) -> Iterator[Any]:
    """The server's settings, which are as they were in the end."""
    usual = {
        "maxmemory-policy": "noeviction",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "no-appendfsync-on-rewrite": "no",
    }
    yield bench.redis
    for name, value in usual.items():
        bench.redis.config_set(name, value)


def said(caplog: pytest.LogCaptureFixture, event: str) -> list[tuple[str, str]]:
    """Return (level, weakness) of each line of an event."""
    return [
        (record.levelname, str(record.msg["weakness"]))
        for record in caplog.records
        if isinstance(record.msg, dict) and record.msg["event"] == event
    ]


def test_a_weak_redis_is_said_to_be_at_the_start(bench: Bench, settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    """An eviction policy and a missing append-only file are errors, and the work goes on all the same."""
    settings.config_set("maxmemory-policy", "allkeys-lru")
    settings.config_set("appendonly", "no")
    app = bench.start()
    turn(app)
    assert said(caplog, "redis.weak") == [("ERROR", "append-only file"), ("ERROR", "eviction")]
    assert app.figures().evicting
    assert app.barrier.kind == "none"
    names = enqueue(bench, 2)
    ends_right(bench, app, names)


def test_a_redis_that_becomes_weak_is_seen_while_it_is_worked_on(
    bench: Bench, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """And one that is mended, too."""
    app = bench.start()
    assert said(caplog, "redis.weak") == []
    settings.config_set("appendfsync", "no")
    settings.config_set("maxmemory-policy", "volatile-lru")
    app.rescuer._keep_house()
    app.rescuer._keep_house()
    assert said(caplog, "redis.weak") == [("ERROR", "eviction"), ("WARNING", "fsync")]
    settings.config_set("appendfsync", "everysec")
    settings.config_set("maxmemory-policy", "noeviction")
    caplog.set_level("INFO")
    app.rescuer._keep_house()
    assert len(said(caplog, "redis.weak")) == 2


def post_once(bench: Bench, app: App) -> None:
    """Try to post what waits, once."""
    assert app.batcher is not None
    app.batcher.step("default")
    (claim,) = app.ledger.batches.claim("default", limit=9, lease=9.0)
    app.steps["submit"]([claim])  # type: ignore[index]
    assert sizes(bench)


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ({}, {"appendonly": "no"}, "none"),
        ({"appendfsync": "always"}, {"appendfsync": "everysec"}, "appendfsync"),
        ({"appendfsync": "always"}, {"appendonly": "no"}, "none"),
    ],
    ids=["file switched off", "always no more", "always, file switched off"],
)
def test_an_intent_is_not_trusted_to_a_setting_that_has_changed(
    bench: Bench, settings: Any, before: dict[str, str], after: dict[str, str], kind: str
) -> None:
    """The last byte stays here; at the next look the barrier is chosen for the server as it is."""
    for name, value in before.items():
        settings.config_set(name, value)
    app = bench.start()
    assert app.barrier.kind == before.get("appendfsync", "appendfsync")
    for name, value in after.items():
        settings.config_set(name, value)
    names = enqueue(bench, 2)
    with pytest.raises(NotDurableError):
        post_once(bench, app)
    assert sizes(bench) == []
    app.rescuer.step()
    assert app.barrier.kind == kind
    ends_right(bench, app, names)
    assert sizes(bench) == [2]


@pytest.mark.parametrize("appendfsync", ["everysec", "always"])
def test_a_redis_that_is_lazy_during_rewrites_is_no_barrier(bench: Bench, settings: Any, appendfsync: str) -> None:
    """During a rewrite or a snapshot it writes and does not sync, whatever appendfsync says."""
    settings.config_set("appendfsync", appendfsync)
    assert bench.start().barrier.kind != "none"
    settings.config_set("no-appendfsync-on-rewrite", "yes")
    app = bench.start()
    assert (app.barrier.kind, app.barrier.reason) == ("none", "no-appendfsync-on-rewrite is yes")
    assert bench.redis.hget("batchmill:{default}:lane", "barrier") == b"none"


def test_what_one_replica_posts_without_a_barrier_is_not_covered_by_anothers(bench: Bench, settings: Any) -> None:
    """Two settings side by side, as in a deploy: for this life of the server the lane stays in need of recovery."""
    careful = bench.start()
    careless = bench.start(redis__barrier="none")
    mark = "batchmill:{default}:lane", "barrier"
    assert settings.hget(*mark) == b"none"
    careful.rescuer.step()
    careless.rescuer.step()
    assert settings.hget(*mark) == b"none"

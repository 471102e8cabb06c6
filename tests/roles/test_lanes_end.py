import pytest
from bench import Bench
from endings import Crash, crash, ends_right, enqueue, has_ended_right, turns
from leftovers import leftovers

from worker.core.model import State
from worker.ledger.deployment import Deployment
from worker.wiring import App


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every turn keeps house."""
    monkeypatch.setattr("worker.rescuer.HOUSEKEEPING_SECONDS", 0.0)
    monkeypatch.setattr("worker.rescuer.WAITING_SECONDS", 0.0)


def lasting(bench: Bench, lane: str) -> set[str]:
    """Return the keys of a lane that no time to live will end."""
    return {key.decode() for key in bench.redis.keys(f"*{{{lane}}}*") if bench.redis.ttl(key) == -1}


def gone(app: App, lane: str) -> bool:
    """Whether nobody knows the lane any more."""
    return lane not in app.ledger.deployment.lanes()


def test_a_lane_that_nobody_configured_ends_with_its_last_record(bench: Bench) -> None:
    """A producer that makes up names fills neither Redis nor the daemon; the configured lanes stay."""
    app = bench.start(retention="1s")
    names = enqueue(bench, 3, lane="visitor") + enqueue(bench, 1, stem="d")
    turns(app, 1)
    assert app.ledger.deployment.lanes() == ["default", "visitor"]
    bench.drive(app, lambda: len(bench.rows()) == 4 and bench.idle(app))
    assert not gone(app, "visitor")
    bench.drive(app, lambda: gone(app, "visitor") and not bench.redis.exists("batchmill:{default}:settled"))
    turns(app, 2)
    assert lasting(bench, "visitor") == set()
    assert bench.redis.hexists("batchmill:{default}:lane", "cursor")
    assert app.ledger.deployment.lanes() == ["default"]
    assert set(bench.redis.hkeys("batchmill:waiting")) == {b"total", b"default"}
    has_ended_right(bench, app, names)


def test_a_lane_that_went_comes_back_with_its_next_prompt(bench: Bench) -> None:
    """It is found as any lane that only a plain XADD has made."""
    app = bench.start(retention="1s")
    first = enqueue(bench, 2, lane="visitor", stem="a")
    turns(app, 1)
    bench.drive(app, lambda: gone(app, "visitor"))
    second = enqueue(bench, 2, lane="visitor", stem="b")
    turns(app, 1)
    ends_right(bench, app, first + second)


def test_a_lane_with_dead_letters_stays_until_they_are_too_old(bench: Bench) -> None:
    """They wait for a person for as long as was promised, and no longer."""
    app = bench.start(retention="1s")
    bench.redis.xadd("batchmill:{visitor}:prompts", {"params": "{"})
    turns(app, 1)
    bench.drive(app, lambda: bench.rows() and not app.ledger.batches.live("visitor"))
    bench.drive(app, lambda: not bench.redis.exists("batchmill:{visitor}:settled"))
    assert not gone(app, "visitor")
    app = bench.start(dead_retention="1s")
    bench.drive(app, lambda: gone(app, "visitor"))
    assert lasting(bench, "visitor") == set()


def test_no_lane_goes_while_a_batch_is_in_doubt(bench: Bench) -> None:
    """Whose a remote batch is, is asked of all lanes: one that is missing would not speak up for its own."""
    app = bench.start(retention="1s", submit__horizon="24h")
    enqueue(bench, 1, lane="visitor", stem="v")
    turns(app, 1)
    bench.drive(app, lambda: len(bench.rows()) == 1 and bench.idle(app))
    bench.simulator.control.inject({"kind": "reset_before", "on": "create"})
    enqueue(bench, 2)
    bench.drive(
        app,
        lambda: (
            [
                b.state
                for b in app.ledger.batches.get_many([("default", uid) for uid in app.ledger.batches.live("default")])
            ]
            == [State.SUBMITTING]
        ),
    )
    bench.drive(app, lambda: not bench.redis.exists("batchmill:{visitor}:settled"))
    turns(app, 3)
    assert not gone(app, "visitor")


def test_a_crash_before_a_lane_is_struck_off_is_mended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its keys are gone, its name is not; whoever looks next writes a record for it, and lets it go again."""
    app = bench.start(retention="1s")
    enqueue(bench, 1, lane="visitor")
    turns(app, 1)
    bench.drive(app, lambda: bench.rows() and bench.idle(app))
    with monkeypatch.context() as patch:
        patch.setattr(Deployment, "strike_lanes", lambda _, lanes: crash() if lanes else None)
        with pytest.raises(Crash):
            bench.drive(app, lambda: False)
    assert not gone(app, "visitor")
    bench.drive(app, lambda: gone(app, "visitor"))
    assert lasting(bench, "visitor") == set()


def test_a_batcher_forgets_lanes_that_are_gone(bench: Bench) -> None:
    """What it has read of a lane is worth nothing without it."""
    app = bench.start()
    assert app.batcher is not None
    for lane in ("default", "visitor"):
        app.batcher.step(lane)
    app.batcher.glance(["default"])
    assert set(app.batcher._windows) == {"default"}


def test_what_nobody_owns_is_seen_after_every_test_of_the_roles(bench: Bench) -> None:
    """The look that each of them ends with would find a key, a record and a member that were left."""
    app = bench.start()
    assert leftovers(bench.redis) == []
    keys = app.ledger.store.keys
    bench.redis.set("batchmill:{default}:note:1", "x")
    bench.redis.hset(keys.batch("default", "uid1"), "state", "settled")
    bench.redis.zadd(keys.unposted("default"), {"uid1": 1})
    assert leftovers(bench.redis) == [
        "uid1 outlives its batch in lane default",
        "batchmill:{default}:batch:uid1",
        "batchmill:{default}:note:1",
    ]
    bench.redis.flushall()

"""A failover to a replica that lags: what it never heard of is read back from the API, by token."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench import Bench, turn, wait_until
from endings import batches, ends_right, enqueue, has_ended_right, posts, remote_ids, sizes, states, turns
from switchboard import Pair

from worker.core.model import State
from worker.simulator import Simulator
from worker.wiring import App


@pytest.fixture
def pair(tmp_path: Path, simulator: Simulator) -> Iterator[Pair]:
    """Both keep an append-only file: the intent is durable where it was written, which is no longer there."""
    pair = Pair(tmp_path, simulator)
    yield pair
    pair.close()


def settle_later(bench: Bench, times: int = 1) -> None:
    """Let batches stay in progress until the test ends them."""
    bench.simulator.control.inject({"kind": "stuck", "on": "create", "times": times})


def recovering(bench: Bench) -> bool:
    """Whether the lane waits for its recovery."""
    return bool(bench.redis.hget("batchmill:{default}:lane", "recovering_since"))


def lag_when_sealed(app: App, pair: Pair) -> None:
    """Let the replica know of the seal and of no intent."""
    assert app.batcher is not None
    app.batcher.step("default")
    pair.lag()


def lag_at_intent(app: App, pair: Pair) -> None:
    """Let the replica know of the intent and of no answer."""
    assert app.api is not None
    create = app.api.create

    def wrapped(*args: Any, **named: Any) -> Any:
        created = create(*args, **named)
        app.api.create = create  # type: ignore[method-assign,union-attr]
        pair.lag()
        return created

    app.api.create = wrapped  # type: ignore[method-assign]


def lag_at_once(_app: App, pair: Pair) -> None:
    """Let the replica know of the prompts and of no seal."""
    pair.lag()


@pytest.mark.parametrize("lag", [lag_at_once, lag_when_sealed, lag_at_intent], ids=lambda lag: lag.__name__)
@pytest.mark.parametrize("same", [True, False], ids=["same process", "new process"])
def test_what_the_replica_never_heard_of_is_found_at_the_api(pair: Pair, lag: Any, *, same: bool) -> None:
    """The seal, the intent or the answer was lost with the master: the batch is found by its token, made once."""
    bench = pair.bench
    settle_later(bench)
    app = bench.start()
    assert app.barrier.kind == "appendfsync"
    names = enqueue(bench, 4)
    lag(app, pair)
    bench.drive(app, lambda: states(app) == [State.IN_PROGRESS])
    pair.fail_over(app)
    worker = app if same else bench.start()
    turn(worker)
    assert recovering(bench)
    bench.simulator.control.end()
    ends_right(bench, worker, names)
    assert sizes(bench) == [4]
    assert {row["batch_id"] for row in bench.rows()} == set(remote_ids(bench))
    assert not recovering(bench)
    later = enqueue(bench, 2, stem="later")
    ends_right(bench, worker, names + later)


def test_what_was_settled_is_not_paid_for_again(pair: Pair) -> None:
    """The replica still has the prompts: their rows are delivered again into the same file, as they were."""
    bench = pair.bench
    app = bench.start()
    names = enqueue(bench, 4)
    pair.lag()
    bench.drive(app)
    assert len(bench.rows()) == 4
    pair.fail_over(app)
    assert not bench.idle(app)
    ends_right(bench, app, names)
    assert sizes(bench) == [4]


def test_several_batches_that_the_replica_never_heard_of_are_told_apart(pair: Pair) -> None:
    """Of the same size, in the order of their prompts, each under its old uid."""
    bench = pair.bench
    settle_later(bench, 3)
    app = bench.start(lanes__default__max_count="2")
    names = enqueue(bench, 6)
    pair.lag()
    bench.drive(app, lambda: len(sizes(bench)) == 3)
    uids = [batch.uid for batch in batches(app)]
    pair.fail_over(app)
    bench.simulator.control.end()
    bench.drive(app, lambda: len(batches(app)) == 3)
    assert [batch.uid for batch in sorted(batches(app), key=lambda each: each.first)] == uids
    ends_right(bench, app, names)
    assert sizes(bench) == [2, 2, 2]


def test_prompts_that_only_the_master_had_are_answered_to_nobody(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """Redis lost what it had acknowledged: their results are no other prompt's, and everything else goes on."""
    bench = pair.bench
    settle_later(bench, 2)
    app = bench.start()
    names = enqueue(bench, 2)
    pair.lag()
    bench.drive(app, lambda: len(sizes(bench)) == 1)
    enqueue(bench, 3, stem="gone")
    bench.drive(app, lambda: len(sizes(bench)) == 2)
    pair.fail_over(app)
    bench.simulator.control.end()
    later = enqueue(bench, 3, stem="later")
    bench.drive(app)
    has_ended_right(bench, app, [*names, *later])
    assert sizes(bench) == [2, 3, 3]
    orphaned = [str(record.msg) for record in caplog.records if "remote.orphaned" in str(record.msg)]
    assert [remote_ids(bench)[1] in line for line in orphaned] == [True]


def test_a_replica_that_has_everything_is_asked_about_all_the_same(pair: Pair) -> None:
    """Nothing tells whether it lagged: recovery looks, finds nothing unknown, and goes on."""
    bench = pair.bench
    app = bench.start()
    names = enqueue(bench, 3)
    bench.drive(app)
    pair.in_step()
    pair.fail_over(app)
    names += enqueue(bench, 2, stem="later")
    turn(app)
    assert recovering(bench)
    ends_right(bench, app, names)
    assert sizes(bench) == [3, 2]


def test_a_post_under_way_at_the_failover_is_found(pair: Pair) -> None:
    """It commits after the new master has begun: recovery looks when a horizon has passed."""
    bench = pair.bench
    bench.simulator.control.inject({"kind": "late_commit", "on": "create", "seconds": 300})
    app = bench.start(submit__horizon="1500ms")
    names = enqueue(bench, 3)
    pair.lag()
    bench.drive(app, lambda: bool(posts(bench)))
    pair.fail_over(app)
    turns(app, 5)
    assert recovering(bench)
    bench.simulator.control.advance(300)
    ends_right(bench, app, names)
    assert sizes(bench) == [3]


def test_nothing_is_posted_to_a_replica_that_is_not_promoted(pair: Pair) -> None:
    """The address leads there too early: it is read-only, and waited for."""
    bench = pair.bench
    app = bench.start()
    pair.lag()
    pair.address.switch(pair.replica.port)
    with pytest.raises(Exception, match="cannot be reached"):
        turns(app, 3)
    with pytest.raises(Exception, match="read-only replica"):
        bench.start()
    pair.fail_over(app)
    names = enqueue(bench, 2)
    ends_right(bench, app, names)


@pytest.fixture
def half_durable(tmp_path: Path, simulator: Simulator) -> Iterator[Pair]:
    """The replica keeps no append-only file."""
    pair = Pair(tmp_path, simulator, appendonly=("yes", "no"))
    yield pair
    pair.close()


def test_the_barrier_is_chosen_anew_for_the_server_that_took_over(half_durable: Pair) -> None:
    """It cannot make anything durable: the lane knows it, and after its next restart recovery goes by token."""
    pair, bench = half_durable, half_durable.bench
    app = bench.start()
    assert app.barrier.kind == "appendfsync"
    names = enqueue(bench, 2)
    bench.drive(app)
    pair.in_step()
    pair.fail_over(app)
    names += enqueue(bench, 2, stem="later")
    ends_right(bench, app, names)
    assert app.barrier.kind == "none"
    assert bench.redis.hget("batchmill:{default}:lane", "barrier") == b"none"
    settle_later(bench)
    pair.replica.client.save()
    names += enqueue(bench, 3, stem="last")
    pair.replica.client.save()
    bench.drive(app, lambda: states(app) == [State.IN_PROGRESS])
    pair.replica.kill()
    pair.replica.start()
    pair.address.switch(pair.replica.port)
    successor = bench.start()
    assert states(successor) == []
    assert recovering(bench)
    bench.simulator.control.end()
    ends_right(bench, successor, names)
    assert sizes(bench) == [2, 2, 3]


def test_an_intent_under_the_old_barrier_is_not_taken_by_the_new_server(half_durable: Pair) -> None:
    """Another replica has recovered the lane already, this process has not looked yet: its last byte stays here."""
    pair, bench = half_durable, half_durable.bench
    slow, quick = bench.start(), bench.start()
    pair.in_step()
    pair.fail_over(slow, quick)
    names = enqueue(bench, 2)
    mark = "batchmill:{default}:lane", "barrier"
    wait_until(
        lambda: quick.rescuer.step() and bench.redis.hget(*mark) == b"none", description="one replica has recovered"
    )
    assert quick.batcher is not None
    quick.batcher.step("default")
    (claim,) = quick.ledger.batches.claim("default", limit=9, lease=9.0)
    with pytest.raises(Exception, match="another server"):
        slow.steps["submit"]([claim])  # type: ignore[index]
    assert not sizes(bench)
    assert slow.barrier.doubtful
    slow.rescuer.step()
    assert (slow.barrier.kind, slow.barrier.doubtful) == ("none", False)
    ends_right(bench, slow, names)
    assert sizes(bench) == [2]


def posted_behind_the_replica(pair: Pair) -> tuple[App, list[str]]:
    """Start a worker that posts a batch of which the replica knows no intent; returns it, and the prompts' names."""
    settle_later(pair.bench)
    app = pair.bench.start()
    names = enqueue(pair.bench, 4)
    lag_when_sealed(app, pair)
    pair.bench.drive(app, lambda: states(app) == [State.IN_PROGRESS])
    return app, names


def test_a_promoted_replica_that_restarts_is_recovered_all_the_same(pair: Pair) -> None:
    """A restart takes the trace of the promotion away; what the old master alone had is still to be looked for."""
    bench, (app, names) = pair.bench, posted_behind_the_replica(pair)
    pair.fail_over(app)
    turn(app)
    assert recovering(bench)
    pair.replica.client.config_set("appendfsync", "always")
    turn(app)
    pair.replica.kill()
    pair.replica.start()
    assert not app.ledger.store.facts().was_replica
    again = bench.start()
    turn(again)
    assert recovering(bench)
    bench.simulator.control.end()
    ends_right(bench, again, names)
    assert sizes(bench) == [4]


def test_facts_of_the_old_master_prove_nothing_about_the_new_one(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection from before may still lead to it, and it was never a replica."""
    bench, (app, names) = pair.bench, posted_behind_the_replica(pair)
    old = app.ledger.store.facts()
    pair.fail_over(app)
    with monkeypatch.context() as patched:
        patched.setattr(type(app.ledger.store), "facts", lambda _: old)
        turn(app)
    assert recovering(bench)
    turn(app)
    bench.simulator.control.end()
    ends_right(bench, app, names)
    assert sizes(bench) == [4]

"""Ways by which a prompt was once lost, paid for twice or left to a human. Each was found by reading, then shown."""

from typing import Any

import pytest
from bench import Bench
from endings import batches, ends_right, enqueue, posts, remote_ids, sizes, succeeded, turns

from worker.actors import Queue
from worker.core.model import State
from worker.ledger.batches import Batches
from worker.ledger.store import LedgerUnavailableError
from worker.ticker import BACKLOG
from worker.wiring import App


def record(bench: Bench, uid: str, **fields: str) -> None:
    """Write fields of a batch's record straight into Redis."""
    bench.redis.hset(f"batchmill:{{default}}:batch:{uid}", mapping=fields)


def lose_redis_at_the_intent(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Redis be away when the intent is recorded, and when it is to be taken back."""

    def away(*_args: Any, **_named: Any) -> str:
        raise LedgerUnavailableError("the connection is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Batches, "submit", away)
        patch.setattr(Batches, "advance", away)
        with pytest.raises(LedgerUnavailableError):
            turns(app, 5)


def test_an_intent_that_never_arrived_is_not_taken_for_the_next_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt after a lost intent has the same number, and its answer may be lost: it must not be sent again."""
    names = enqueue(bench, 3)
    app = bench.start(submit__horizon="1h")
    lose_redis_at_the_intent(app, monkeypatch)
    bench.simulator.control.inject({"kind": "drop_reply", "on": "create"})
    ends_right(bench, app, names)
    assert sizes(bench) == [3]


def test_a_late_process_takes_back_no_intent_but_its_own(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frozen at a lost intent, it wakes up when another process has posted under the same attempt's number."""
    bench.simulator.control.inject({"kind": "stuck", "on": "create"})
    enqueue(bench, 3)
    slow, quick = bench.start(submit__horizon="1h", lease="1h"), bench.start()
    bench.simulator.control.inject({"kind": "drop_reply", "on": "create"})

    def freeze(*_args: Any, **_named: Any) -> str:
        monkeypatch.setattr(Batches, "submit", submit)
        bench.redis.zadd("batchmill:{default}:due", {batches(slow)[0].uid: 0})
        bench.drive(quick, lambda: posts(bench))
        raise LedgerUnavailableError("the connection is gone")

    submit = Batches.submit
    monkeypatch.setattr(Batches, "submit", freeze)
    with pytest.raises(LedgerUnavailableError):
        turns(slow, 5)
    assert [batch.state for batch in batches(quick)] == [State.SUBMITTING]
    turns(slow, 5)
    turns(quick, 5)
    assert len(remote_ids(bench)) == 1


def test_the_hundredth_attempt_is_sent_like_any_other(bench: Bench) -> None:
    """Every refusal is an attempt: two hours of 429 must not end a batch for ever."""
    names = enqueue(bench, 2)
    app = bench.start()
    assert app.batcher is not None
    app.batcher.step("default")
    [batch] = batches(app)
    record(bench, batch.uid, attempt="98")
    bench.simulator.control.inject({"kind": "status", "on": "create", "status": 429, "times": 3})
    ends_right(bench, app, names)
    assert succeeded(bench) == 2


def test_a_claim_that_has_waited_too_long_sends_nothing(bench: Bench) -> None:
    """With all threads busy a knock waits longer than its lease; a body that must be thrown away is not even begun."""
    enqueue(bench, 3)
    app = bench.start(lease="1h")
    assert app.batcher is not None
    app.batcher.step("default")
    [late] = app.ledger.batches.claim("default", limit=10, lease=0.0)
    bench.redis.zadd("batchmill:{default}:due", {late.uid: 0})
    app.ledger.batches.claim("default", limit=10, lease=60.0)
    app.ledger.deployment.reserve("default", late.uid, 3, 100)
    app.steps[Queue.SUBMIT]([late])
    state: Any = bench.simulator.control.state()
    assert state["attempts"] == []
    assert app.ledger.deployment.in_flight() == 3


def test_a_queue_that_nobody_answers_holds_up_no_other(bench: Bench) -> None:
    """Where all submitters are gone, their knocks pile up; what has been paid for is fetched all the same."""
    enqueue(bench, 3)
    app = bench.start(lease="1s")
    assert app.batcher is not None
    app.batcher.step("default")
    app.ticker.step()
    for _ in range(BACKLOG):
        bench.redis.lpush("batchmill:{knocks}:submit", "a knock")
    enqueue(bench, 2, stem="q")
    app.batcher.step("default")
    sealed, ended = batches(app)
    record(bench, ended.uid, state="ended")
    fence = bench.redis.hget("batchmill:{default}:fences", sealed.uid)
    bench.redis.zadd("batchmill:{default}:due", {sealed.uid: 0})
    app.ticker.step()
    assert bench.redis.llen("batchmill:{knocks}:drain") == 1
    assert bench.redis.llen("batchmill:{knocks}:submit") == BACKLOG + 1
    assert bench.redis.hget("batchmill:{default}:fences", sealed.uid) == fence

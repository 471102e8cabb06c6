"""Ways by which a prompt was once lost, paid for twice or left to a human. Each was found by reading, then shown."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from bench import Bench
from endings import Crash, batches, dead, ends_right, enqueue, held, marks, posts, remote_ids, sizes, succeeded, turns

from worker.actors import Queue
from worker.core.lifecycle import Event
from worker.core.model import State
from worker.drainer import PATIENCE
from worker.ledger.batches import Batches
from worker.ledger.prompts import Prompts
from worker.ledger.store import LedgerUnavailableError
from worker.parking import Parking
from worker.ticker import BACKLOG
from worker.wiring import App
from worker.workspaces import Workspaces


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


def test_an_overloaded_answer_shortens_the_doubt_about_its_own_intent_only(bench: Bench) -> None:
    """After a restart that forgot it, the attempt of that number is another process's, and may be on its way."""
    enqueue(bench, 3)
    app = bench.start(submit__horizon="1h")
    bench.simulator.control.inject({"kind": "status", "on": "create", "status": 529})
    assert app.api is not None
    create = app.api.create

    def forgotten_meanwhile(*args: Any, **named: Any) -> Any:
        try:
            return create(*args, **named)
        finally:
            record(bench, batches(app)[0].uid, intent="anothers")

    app.api.create = forgotten_meanwhile  # type: ignore[method-assign]
    bench.drive(app, lambda: posts(bench))
    turns(app, 5)
    [batch] = batches(app)
    assert (batch.state, batch.doubt) == (State.SUBMITTING, "lost")


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


def die_before_settling(bench: Bench, monkeypatch: pytest.MonkeyPatch, *, chunks: int = 0) -> None:
    """Bring the lane's batch to the point where its rows are delivered, and die."""
    settle, left = Prompts.settle, iter(range(chunks))

    def last_breath(*args: Any, **named: Any) -> bool:
        if next(left, None) is None:
            raise Crash
        return settle(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Prompts, "settle", last_breath)
        with pytest.raises(Crash):
            turns(bench.start(), 100)


def test_results_cut_short_at_the_second_reading_lose_no_retry(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A delivered batch is settled by results read anew, and these are proved to be whole, too."""
    bench.simulator.control.inject({"kind": "rows", "result": "expired", "fraction": 1.0, "times": 1})
    names = enqueue(bench, 4)
    die_before_settling(bench, monkeypatch)
    bench.simulator.control.inject({"kind": "cut_results", "mode": "clean", "lines": 1})
    successor = bench.start()
    ends_right(bench, successor, names)
    assert succeeded(bench) == 4


def test_results_that_are_gone_before_all_is_settled_are_a_humans_business(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can tell any more who was to be tried again; it is held and shown, not tried for ever in silence."""
    names = enqueue(bench, 3)
    die_before_settling(bench, monkeypatch)
    successor = bench.start()
    assert successor.api is not None
    successor.api.delete(remote_ids(bench)[0])
    bench.drive(successor, lambda: held(successor))
    batch = held(successor)
    assert batch is not None
    successor.ledger.batches.end(batch, Event.BURY, fence="", ended_at=None, max_attempts=3, reason="abandoned")
    ends_right(bench, successor, names)
    assert len(dead(successor)) == 3
    assert succeeded(bench) == 3


def test_one_short_reading_after_a_long_trouble_of_a_sink_is_just_read_again(bench: Bench) -> None:
    """Patience with readings that do not add up is not used up by a full disk."""
    names = enqueue(bench, 3)
    app = bench.start()
    bench.drive(app, lambda: State.ENDED in {batch.state for batch in batches(app)})
    record(bench, batches(app)[0].uid, failures="30")
    bench.simulator.control.inject({"kind": "cut_results", "mode": "clean", "lines": 1})
    ends_right(bench, app, names)


def test_readings_that_never_add_up_are_a_humans_business(bench: Bench) -> None:
    """Ten times is no accident."""
    enqueue(bench, 3)
    app = bench.start()
    bench.simulator.control.inject({"kind": "missing_line", "times": None})
    bench.drive(app, lambda: held(app))
    batch = held(app)
    assert batch is not None
    assert batch.misses == PATIENCE - 1


def test_one_404_after_a_long_outage_is_forgiven(bench: Bench) -> None:
    """Looks that failed are no looks that found nothing."""
    bench.simulator.control.inject({"kind": "stuck", "on": "create"})
    names = enqueue(bench, 3)
    app = bench.start()
    bench.drive(app, lambda: [batch.state for batch in batches(app)] == [State.IN_PROGRESS])
    record(bench, batches(app)[0].uid, failures="30", posted_at="1.0")
    bench.simulator.control.inject({"kind": "not_found", "on": "retrieve", "times": 2})
    turns(app, 20)
    assert [batch.state for batch in batches(app)] == [State.IN_PROGRESS]
    bench.simulator.control.inject({"kind": "end_now"})
    ends_right(bench, app, names)


def test_strange_results_of_a_batch_that_was_answered_for_are_read_again(bench: Bench) -> None:
    """Only a remote batch that was taken by its count may turn out to be somebody else's; ours would be paid twice."""
    names = enqueue(bench, 2)
    app = bench.start()
    assert app.api is not None
    results, strange = app.api.results, iter(range(2))

    @contextmanager
    def mixed_up(remote_id: str) -> Iterator[Iterator[bytes]]:
        if next(strange, None) is None:
            with results(remote_id) as lines:
                yield lines
        else:
            yield iter([b'{"custom_id":"whose","result":{"type":"succeeded"}}'] * 2)

    app.api.results = mixed_up  # type: ignore[method-assign]
    ends_right(bench, app, names)
    assert sizes(bench) == [2]


def test_a_refused_batch_does_not_tie_the_deployment_to_a_workspace(bench: Bench) -> None:
    """A new key in a new workspace is welcome when nothing is open in the old one; else it would park for ever."""
    names = enqueue(bench, 2)
    app = bench.start()
    bench.simulator.control.inject({"kind": "status", "on": "create", "status": 402})
    bench.drive(app, lambda: marks(app)[1])
    app.ledger.deployment.note(workspace_id="wrkspc_of_the_old_key")
    ends_right(bench, app, names)
    assert app.ledger.deployment.recall("workspace_id") == "wrkspc_sim"


def test_a_batch_that_still_has_its_results_in_the_old_workspace_keeps_it(bench: Bench) -> None:
    """Results that were paid for are not given up because a key was changed."""
    bench.simulator.control.inject({"kind": "stuck", "on": "create"})
    enqueue(bench, 2)
    app = bench.start()
    bench.drive(app, lambda: [batch.state for batch in batches(app)] == [State.IN_PROGRESS])
    record(bench, batches(app)[0].uid, state="ended", judged_at="1.0")
    parking = Parking(config=app.config, ledger=app.ledger, telemetry=app.telemetry, clock=app.clock)
    assert not Workspaces(ledger=app.ledger, parking=parking).admits("default", "wrkspc_new")
    assert marks(app)[1] == "workspace"


def test_a_window_that_may_not_be_sealed_yet_leaves_no_note(bench: Bench) -> None:
    """Recovery may take a day, and each look at a due window notes all its unusable entries in a key of its own."""
    app = bench.start()
    assert app.batcher is not None
    for _ in range(5):
        bench.redis.xadd("batchmill:{default}:prompts", {"params": "[]"})
    bench.redis.hset("batchmill:{default}:lane", "incarnation", "another")
    for _ in range(10):
        app.batcher.step("default")
    assert bench.redis.keys("batchmill:{default}:unusable:*") == []
    bench.drive(app)
    assert len(bench.rows()) == 5


def test_large_prompts_are_read_few_at_a_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of 500 prompts with pictures in them would be gigabytes, and who dies of it once dies of it again."""
    app = bench.start()
    names = [f"p{number}" for number in range(40)]
    for name in names:
        bench.enqueue("x" * 1_000_000, id=name)
    read, most = app.ledger.store.read, 0

    def watched(command: str, *args: Any, **named: Any) -> Any:
        nonlocal most
        answer = read(command, *args, **named)
        if command == "xrange":
            most = max(most, sum(len(fields[b"params"]) for _, fields in answer))
        return answer

    monkeypatch.setattr(app.ledger.store, "read", watched)
    ends_right(bench, app, names)
    assert 0 < most < 10_000_000

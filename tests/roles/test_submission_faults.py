from collections.abc import Callable
from typing import Any

import pytest
from bench import Bench, turn
from endings import (
    Crash,
    batches,
    calls,
    crash,
    doubts,
    ends_right,
    enqueue,
    has_ended_right,
    marks,
    posts,
    sizes,
    succeeded,
    turns,
)

from worker.actors import Queue
from worker.batches_api import Complaint, Created, NotSent
from worker.core.model import State
from worker.ledger.batches import Batches
from worker.ledger.store import LedgerUnavailableError

COMMITTED: dict[str, dict[str, Any]] = {
    "the connection is cut": {"kind": "drop_reply"},
    "the answer is late": {"kind": "hold", "seconds": 10},
    "the answer is garbage": {"kind": "garbage"},
    "the answer is empty": {"kind": "garbage", "body": ""},
    **{f"the answer is {status}": {"kind": "commit_then_status", "status": status} for status in (408, 409, 499)},
    **{f"the answer is {status}": {"kind": "commit_then_status", "status": status} for status in (500, 502, 504)},
    **{f"the answer is {status}": {"kind": "commit_then_status", "status": status} for status in (503, 529)},
}

NOTHING_MADE: dict[str, dict[str, Any]] = {
    "the connection is cut": {"kind": "reset_before"},
    **{f"the answer is {status}": {"kind": "status", "status": status} for status in (408, 409, 499, 500, 503, 529)},
}


def only_create(fault: dict[str, Any]) -> dict[str, Any]:
    """Let a fault strike creates."""
    return {"on": "create", **fault}


@pytest.mark.parametrize("fault", COMMITTED.values(), ids=COMMITTED)
def test_a_batch_whose_answer_was_lost_is_found_and_not_paid_for_again(bench: Bench, fault: dict[str, Any]) -> None:
    """A create that was done and not answered ends as one batch, adopted by its token."""
    bench.simulator.control.inject(only_create(fault))
    names = enqueue(bench, 3)
    app = bench.start(submit__timeout="500ms", submit__horizon="20s", submit__overload_horizon="20s")
    ends_right(bench, app, names)
    assert sizes(bench) == [3]
    assert doubts(app, "adopted") == 1


@pytest.mark.parametrize("fault", NOTHING_MADE.values(), ids=NOTHING_MADE)
def test_a_create_that_made_nothing_is_sent_again_after_the_horizon(bench: Bench, fault: dict[str, Any]) -> None:
    """No batch in a complete listing begun after the horizon proves that there is none, and there is one in the end."""
    bench.simulator.control.inject(only_create(fault))
    names = enqueue(bench, 3)
    app = bench.start()
    ends_right(bench, app, names)
    assert sizes(bench) == [3]
    assert doubts(app, "resubmitted") == 1
    assert succeeded(bench) == 3


def test_overload_is_waited_for_a_short_horizon_and_a_lost_answer_for_the_long_one(bench: Bench) -> None:
    """A well-formed 529 says that nothing was done, so it costs a minute and not half an hour."""
    bench.simulator.control.inject({"kind": "status", "on": "create", "status": 529})
    names = enqueue(bench, 2)
    ends_right(bench, bench.start(submit__horizon="1h"), names)
    assert sizes(bench) == [2]


def test_a_storm_of_529_is_outlasted(bench: Bench) -> None:
    """Overload after overload costs time only."""
    bench.simulator.control.inject({"kind": "status", "on": "create", "status": 529, "times": 4})
    names = enqueue(bench, 3)
    app = bench.start()
    ends_right(bench, app, names)
    assert doubts(app, "resubmitted") == 4
    assert sizes(bench) == [3]
    assert {row["attempt"] for row in bench.rows()} == {1}


def test_a_batch_that_appears_late_within_the_horizon_is_adopted(bench: Bench) -> None:
    """An API that commits after it hung up is the reason for the horizon."""
    bench.simulator.control.inject({"kind": "late_commit", "on": "create", "seconds": 0.15})
    names = enqueue(bench, 3)
    app = bench.start(submit__horizon="1s")
    ends_right(bench, app, names)
    assert sizes(bench) == [3]
    assert doubts(app, "adopted") == 1


def test_death_between_the_answer_and_its_record_costs_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next process finds the batch that the last one had made and told nobody of."""
    names = enqueue(bench, 3)
    app = bench.start()
    with monkeypatch.context() as patch:
        patch.setattr(Batches, "accept", crash)
        with pytest.raises(Crash):
            turns(app, 10)
    successor = bench.start()
    ends_right(bench, successor, names)
    assert sizes(bench) == [3]
    assert doubts(successor, "adopted") == 1


def test_death_before_the_last_byte_made_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An intent on record whose last byte never left ends as absent, and the batch is sent once."""
    names = enqueue(bench, 3)
    app = bench.start()
    submit = Batches.submit

    def record_and_die(*args: Any, **named: Any) -> str:
        submit(*args, **named)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(Batches, "submit", record_and_die)
        with pytest.raises(Crash):
            turns(app, 10)
    successor = bench.start()
    ends_right(bench, successor, names)
    assert sizes(bench) == [3]
    assert doubts(successor, "resubmitted") == 1


def test_a_redis_that_fails_at_the_intent_leaves_no_doubt(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process knows that its last byte never left, whether the intent was recorded or not."""
    names = enqueue(bench, 3)
    app = bench.start(submit__horizon="1h")
    submit = Batches.submit

    def record_and_lose_the_answer(*args: Any, **named: Any) -> str:
        submit(*args, **named)
        raise LedgerUnavailableError("the connection is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Batches, "submit", record_and_lose_the_answer)
        with pytest.raises(LedgerUnavailableError):
            turns(app, 10)
    ends_right(bench, app, names)
    assert sizes(bench) == [3]


def test_an_answer_is_recorded_as_soon_as_redis_is_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The id of a batch that costs money is not forgotten because Redis was away for a moment."""
    names = enqueue(bench, 3)
    app = bench.start(submit__horizon="1h")
    accept, failures = Batches.accept, iter(range(5))

    def flaky(*args: Any, **named: Any) -> str:
        if next(failures, None) is not None:
            raise LedgerUnavailableError("the connection is gone")
        return accept(*args, **named)

    monkeypatch.setattr(Batches, "accept", flaky)
    ends_right(bench, app, names)
    assert doubts(app, "adopted") == 0


@pytest.mark.parametrize("recorded", [False, True], ids=["before the intent", "after the intent"])
def test_what_died_before_its_last_byte_is_sent_again_at_once(bench: Bench, recorded: bool) -> None:
    """No last byte, no doubt: there is no horizon to wait for."""
    names = enqueue(bench, 3)
    app = bench.start(submit__horizon="1h", submit__overload_horizon="1h")
    assert app.api is not None
    create, failures = app.api.create, iter(range(3))

    def cut(body: Any, *, before_last_byte: Callable[[], None]) -> Created:
        if next(failures, None) is None:
            return create(body, before_last_byte=before_last_byte)
        if recorded:
            before_last_byte()
        raise NotSent(Complaint("connection reset"))

    app.api.create = cut  # type: ignore[method-assign]
    ends_right(bench, app, names)
    assert sizes(bench) == [3]
    assert doubts(app, "resubmitted") == doubts(app, "adopted") == 0


def test_nothing_is_posted_while_the_head_of_the_list_cannot_be_had(bench: Bench) -> None:
    """Without a cursor a lost answer could not be resolved, so there is no POST without one."""
    bench.simulator.control.inject({"kind": "status", "on": "list", "status": 500, "times": 3})
    names = enqueue(bench, 2)
    app = bench.start()
    turn(app)
    assert not posts(bench)
    ends_right(bench, app, names)
    assert sizes(bench) == [2]


@pytest.mark.parametrize("status", [400, 404, 413])
def test_a_listing_that_is_refused_says_nothing_about_the_prompts(bench: Bench, status: int) -> None:
    """Only the refusal of a create may split a batch or bury a prompt."""
    first = enqueue(bench, 1, stem="first")
    app = bench.start()
    bench.drive(app)
    bench.simulator.control.inject({"kind": "status", "on": "list", "status": status, "times": 6})
    names = enqueue(bench, 3)
    ends_right(bench, app, first + names)
    assert sizes(bench) == [1, 3]
    assert succeeded(bench) == 4
    assert marks(app) == (None, None)


def test_a_sealed_batch_is_posted_once_however_often_it_is_looked_at(bench: Bench) -> None:
    """A knock that comes twice finds the batch in another state."""
    names = enqueue(bench, 2)
    app = bench.start()
    assert app.batcher is not None
    app.batcher.step("default")
    [claim] = app.ledger.batches.claim("default", limit=10, lease=10.0)
    for _ in range(3):
        app.steps[Queue.SUBMIT]([claim])
    assert [batch.state for batch in batches(app)] == [State.IN_PROGRESS]
    assert calls(bench, "create") == 1
    bench.drive(app)
    has_ended_right(bench, app, names)

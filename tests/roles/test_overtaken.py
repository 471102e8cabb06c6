"""Overtaken: between the look and the commit another replica claims the batch. Then nothing is committed or told."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from bench import Bench
from endings import batches, calls, dead, doubts, ends_right, enqueue, held, remote_ids, sizes, states
from midway import DUE, claim_now, doubtful, ended, in_progress, overtake, sealed

from worker import drainer
from worker.actors import Queue
from worker.core.lifecycle import Event
from worker.core.model import State
from worker.ledger.batches import Batches
from worker.ledger.prompts import Prompts
from worker.simulator import Simulator


def test_a_step_of_another_state_leaves_the_batch_alone(bench: Bench) -> None:
    """A knock that comes late finds the batch further on than it says."""
    app = bench.start()
    names = sealed(bench, app, 2)
    (before,) = batches(app)
    for queue in (Queue.POLL, Queue.DRAIN):
        app.steps[queue]([claim_now(bench, app)])
    assert batches(app) == [before]
    ends_right(bench, app, names)
    assert sizes(bench) == [2]


def test_a_cancellation_that_another_sees_too_is_told_by_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state it finds next is the API's, and the end is as right."""
    with Simulator(ends_after=600.0, cancel_takes=60.0, poll_hint=0) as slow:
        bench.simulator = slow
        app = bench.start()
        names = enqueue(bench, 3)
        bench.drive(app, lambda: states(app) == [State.IN_PROGRESS])
        slow.control.cancel(str(batches(app)[0].remote_id))
        answers = overtake(bench, app, monkeypatch, Batches.advance, Event.CANCEL)
        app.steps[Queue.POLL]([claim_now(bench, app)])
        assert (answers, states(app)) == (["STALE"], [State.IN_PROGRESS])
        bench.drive(app, lambda: states(app) == [State.CANCELING])
        slow.control.advance(61)
        ends_right(bench, app, names)
        assert sorted(dead(app)) == [(name, "canceled", 1) for name in names]


def test_a_batch_is_not_held_by_whoever_lost_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A poller whose claim is over decides nothing for a human, and frees no share of the queue."""
    app = bench.start()
    in_progress(bench, app)
    bench.simulator.control.end()
    bench.simulator.control.advance(30 * 86_400)
    answers = overtake(bench, app, monkeypatch, Batches.advance, Event.HOLD)
    app.steps[Queue.POLL]([claim_now(bench, app)])
    assert (answers, states(app)) == (["STALE"], [State.IN_PROGRESS])
    assert app.ledger.deployment.in_flight() == 3
    bench.drive(app, lambda: held(app))


def test_results_that_do_not_add_up_are_held_by_whoever_has_the_batch(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drainer that was overtaken leaves it to the other's reading, which finds every line."""
    monkeypatch.setattr(drainer, "PATIENCE", 1)
    app = bench.start(lease="30s")
    names = ended(bench, app)
    bench.simulator.control.inject({"kind": "missing_line"})
    answers = overtake(bench, app, monkeypatch, Batches.advance, Event.HOLD)
    app.steps[Queue.DRAIN]([claim_now(bench, app)])
    assert (answers, states(app)) == (["STALE"], [State.ENDED])
    ends_right(bench, app, names)


def test_a_drainer_that_was_overtaken_settles_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are in the sink; who has the batch now writes the same ones and settles."""
    app = bench.start(lease="30s")
    names = ended(bench, app)
    overtake(bench, app, monkeypatch, Prompts.settle)
    app.steps[Queue.DRAIN]([claim_now(bench, app)])
    assert states(app) == [State.DELIVERED]
    assert app.ledger.lanes.length("default") == 3
    ends_right(bench, app, names)


def test_a_batch_that_another_finishes_is_told_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its prompts are settled already: what the account shows must not count them twice."""
    app = bench.start(lease="30s")
    names = ended(bench, app)
    answers = overtake(bench, app, monkeypatch, Batches.finish)
    app.steps[Queue.DRAIN]([claim_now(bench, app)])
    assert answers == ["STALE"]
    told = {"lane": "default", "result": "succeeded"}
    results = app.telemetry.registry.get_sample_value("batchmill_prompts_settled_total", told) or 0.0
    assert results == 0.0
    ends_right(bench, app, names)


def test_a_stopping_drainer_hands_over_nothing_that_is_gone(bench: Bench) -> None:
    """An operator deleted the record meanwhile; the process ends in peace."""
    app = bench.start(lease="30s")
    ended(bench, app)
    claim = claim_now(bench, app)
    assert app.api is not None
    results = app.api.results

    def vanish(remote_id: str) -> Any:
        app.stopping.set()
        bench.redis.delete(f"batchmill:{{default}}:batch:{claim.uid}")
        return results(remote_id)

    app.api.results = vanish  # type: ignore[method-assign]
    app.steps[Queue.DRAIN]([claim])
    assert batches(app) == []
    for key in (DUE, "batchmill:{default}:fences"):
        assert bench.redis.delete(key) == 1


def test_an_empty_batch_is_skipped_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of its prompts are unusable: whoever has it now says so."""
    app = bench.start()
    bench.redis.xadd("batchmill:{default}:prompts", {"params": "[]", "id": "bad"})
    assert app.batcher is not None
    app.batcher.step("default")
    answers = overtake(bench, app, monkeypatch, Batches.end)
    app.steps[Queue.SUBMIT]([claim_now(bench, app)])
    assert (answers, states(app)) == (["STALE"], [State.SEALED])
    ends_right(bench, app, ["bad"])
    assert sizes(bench) == []


def test_a_probe_is_cut_by_whoever_has_the_batch(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One prompt asks for the lane, not one of each replica."""
    app = bench.start()
    names = sealed(bench, app, 3)
    app.ledger.lanes.park("default", "billing", app.ledger.store.now() - 1)
    answers = overtake(bench, app, monkeypatch, Batches.split)
    app.steps[Queue.SUBMIT]([claim_now(bench, app)])
    assert (answers, [batch.count for batch in batches(app)]) == (["STALE"], [3])
    ends_right(bench, app, names)
    assert sorted(sizes(bench)) == [1, 2]


def test_a_doubt_is_given_up_by_whoever_has_the_batch(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could have been ours was deleted: a reconciler that was overtaken tells no human."""
    app = bench.start(submit__horizon="300ms", lease="30s")
    doubtful(bench, app)
    bench.drive(app, lambda: any(batch.seen for batch in batches(app)))
    (remote_id,) = remote_ids(bench)
    bench.simulator.control.end(remote_id)
    bench.simulator.control.delete(remote_id)
    time.sleep(0.5)
    answers = overtake(bench, app, monkeypatch, Batches.advance, Event.HOLD)
    app.steps[Queue.SUBMIT]([claim_now(bench, app)])
    assert (answers, states(app)) == (["STALE"], [State.SUBMITTING])
    bench.drive(app, lambda: held(app))


def test_a_candidate_that_another_batch_has_taken_is_not_taken_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was free when it was listed; the ledger says no, and the doubt goes on."""
    app = bench.start(submit__horizon="1h", lease="30s", anthropic__exclusive_workspace="true")
    names = doubtful(bench, app)
    adopt: Callable[..., str] = Batches.adopt
    refused = ["OWNED"]

    def owned_first(ledger: Batches, *args: Any, **named: Any) -> str:
        return refused.pop() if refused else adopt(ledger, *args, **named)

    monkeypatch.setattr(Batches, "adopt", owned_first)
    app.steps[Queue.SUBMIT]([claim_now(bench, app)])
    assert (refused, states(app)) == ([], [State.SUBMITTING])
    assert doubts(app, "adopted") == 0
    bench.drive(app, lambda: states(app) == [State.IN_PROGRESS])
    bench.simulator.control.end()
    ends_right(bench, app, names)
    assert sizes(bench) == [3]


def test_an_intent_that_came_late_is_taken_back_by_whoever_has_the_batch(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only this process knows that its last byte never left: overtaken, it keeps that in mind for the next look."""
    app = bench.start(submit__horizon="1h", lease="30s")
    names = sealed(bench, app, 3)
    get = Batches.get
    blind: list[bool] = []

    def late(ledger: Batches, lane: str, uid: str) -> Any:
        """Read the record as it was before the intent arrived, once: in the look that would take it back."""
        found = get(ledger, lane, uid)
        if found is not None and found.state is State.SUBMITTING and not blind:
            blind.append(True)
            return replace(found, intent=None)
        return found

    monkeypatch.setattr(Batches, "get", late)
    durably = app.barrier.durably

    def stale(write: Callable[[Any], str]) -> str:
        answer = durably(write)
        monkeypatch.setattr(app.clock, "monotonic", lambda: float("inf"))
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(app.barrier, "durably", stale)
        submit = app.steps[Queue.SUBMIT]
        answers = overtake(bench, app, patch, Batches.advance, Event.REFUSE)
        submit([claim_now(bench, app)])
    assert blind
    assert (answers, states(app)) == (["STALE"], [State.SUBMITTING])
    monkeypatch.undo()
    assert calls(bench, "create") == 0
    ends_right(bench, app, names)
    assert sizes(bench) == [3]

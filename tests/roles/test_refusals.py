from typing import Any

import pytest
from bench import Bench
from endings import (
    batches,
    dead,
    doubts,
    ends_right,
    enqueue,
    marks,
    posts,
    refuse_bodies_with,
    sizes,
    states,
    succeeded,
    turns,
)

from worker import refusals
from worker.core.model import State
from worker.simulator import Simulator


def refuse(bench: Bench, status: int, **more: Any) -> None:
    """Let creates be refused, once unless `times` says otherwise."""
    bench.simulator.control.inject({"kind": "status", "on": "create", "status": status, **more})


def failed_row(bench: Bench, name: str) -> dict[str, Any]:
    """Return the row of a prompt that was buried before the API had it."""
    [row] = [row for row in bench.rows() if row["id"] == name]
    assert row["batch_id"] is None
    error: dict[str, Any] = row["result"]["error"]["error"]
    return error


def test_a_prompt_that_the_refusal_names_is_taken_out(bench: Bench) -> None:
    """`requests.1` costs its own prompt, not its neighbours; they go out at once."""
    refuse(bench, 400, message="requests.1.custom_id: String should match pattern")
    names = enqueue(bench, 4)
    app = bench.start()
    ends_right(bench, app, names)
    assert dead(app) == [("p1", "refused", 1)]
    assert failed_row(bench, "p1")["type"] == "invalid_request_error"
    assert sizes(bench) == [3]
    assert posts(bench) == {"refused 400": 1, "created": 1}


def test_a_named_prompt_is_counted_among_those_that_were_sent(bench: Bench) -> None:
    """The index counts the body's prompts; what never was in the body does not shift it."""
    refuse(bench, 400, message="requests.0.params: is wrong")
    bench.redis.xadd("batchmill:{default}:prompts", {"params": "[]", "id": "bad"})
    names = enqueue(bench, 2)
    app = bench.start()
    ends_right(bench, app, ["bad", *names])
    assert sorted(dead(app)) == [("bad", "not_an_object", 1), ("p0", "refused", 1)]
    assert succeeded(bench) == 1


@pytest.mark.parametrize("index", [4, 77])
def test_an_index_outside_of_the_batch_buries_nobody_for_it(bench: Bench, index: int) -> None:
    """A refusal that names a request we never sent is a refusal that names nobody."""
    refuse(bench, 400, message=f"requests.{index}.params: is wrong")
    names = enqueue(bench, 4)
    app = bench.start()
    ends_right(bench, app, names)
    assert dead(app) == []
    assert sizes(bench) == [2, 2]


def test_all_prompts_of_a_batch_named_one_by_one_leave_none(bench: Bench) -> None:
    """A batch whose last prompt was taken out is delivered without a create."""
    refuse(bench, 400, message="requests.0.params: is wrong", times=3)
    names = enqueue(bench, 3)
    app = bench.start()
    ends_right(bench, app, names)
    assert len(dead(app)) == 3
    assert sizes(bench) == []


def test_halving_isolates_exactly_the_guilty_prompt(bench: Bench) -> None:
    """A refusal that names nobody ends in one burial and in no more POSTs than halving takes."""
    names = enqueue(bench, 16)
    app = bench.start()
    refused = refuse_bodies_with(app, b'"content": "p11"')
    ends_right(bench, app, names)
    assert dead(app) == [("p11", "refused", 1)]
    assert succeeded(bench) == 15
    assert refused == [16, 8, 4, 2, 1]
    assert sorted(sizes(bench)) == [1, 2, 4, 8]


def test_halving_isolates_several_guilty_prompts(bench: Bench) -> None:
    """Each of them is found; everybody else is answered."""
    names = enqueue(bench, 12)
    app = bench.start()
    refuse_bodies_with(app, b'"content": "p1')
    ends_right(bench, app, names)
    assert sorted(name for name, _, _ in dead(app)) == ["p1", "p10", "p11"]
    assert succeeded(bench) == 9


def test_a_lone_refused_prompt_is_buried_when_the_account_is_known_to_work(bench: Bench) -> None:
    """A create accepted a moment ago vouches for the account: it must be the prompt."""
    good = enqueue(bench, 1, stem="good")
    app = bench.start()
    bench.drive(app)
    refused = refuse_bodies_with(app, b'"content": "p0"')
    names = enqueue(bench, 1)
    ends_right(bench, app, good + names)
    assert refused == [1]
    assert dead(app) == [("p0", "refused", 1)]


def test_a_lone_refused_prompt_is_kept_while_nothing_vouches_for_the_account(bench: Bench) -> None:
    """It may be the account that is refused; after many tries it is the prompt all the same."""
    names = enqueue(bench, 1)
    app = bench.start()
    refused = refuse_bodies_with(app, b'"content": "p0"')
    bench.drive(app, lambda: len(refused) == refusals.PATIENCE)
    assert dead(app) == []
    ends_right(bench, app, names)
    assert refused == [1] * (refusals.PATIENCE + 1)
    assert dead(app) == [("p0", "refused", 1)]


def test_a_prompt_buried_for_an_account_that_was_refused_can_be_redriven(bench: Bench) -> None:
    """A wrong burial is no loss: the prompt is still there, and its id gets its answer."""
    enqueue(bench, 1)
    app = bench.start()
    refuse(bench, 400, message="messages: something is wrong", times=refusals.PATIENCE + 1)
    bench.drive(app)
    letters = [letter.letter_id for letter in app.ledger.dead_letters.list("default")]
    app.ledger.dead_letters.redrive("default", letters)
    ends_right(bench, app, ["p0", "p0"])
    assert succeeded(bench) == 1


def test_a_batch_that_is_too_large_is_cut_in_two(bench: Bench) -> None:
    """413 says what to do, and nobody is to blame."""
    refuse(bench, 413)
    names = enqueue(bench, 5)
    app = bench.start()
    ends_right(bench, app, names)
    assert sorted(sizes(bench)) == [2, 3]
    assert succeeded(bench) == 5


def test_a_batch_is_cut_until_the_api_takes_it(server: str, bench: Bench) -> None:
    """A limit lower than ours costs some refusals, and a prompt that alone exceeds it is buried."""
    assert server == bench.url
    with Simulator(ends_after=0.0, poll_hint=0, max_body_bytes=700) as narrow:
        bench.simulator = narrow
        names = enqueue(bench, 8)
        bench.enqueue("x" * 900, id="giant")
        app = bench.start()
        ends_right(bench, app, [*names, "giant"])
        assert dead(app) == [("giant", "refused", 1)]
        assert succeeded(bench) == 8


def test_a_rate_limit_leaves_no_doubt(bench: Bench) -> None:
    """Four 429 in a row are four definite refusals: waited for as asked, then one create."""
    refuse(bench, 429, retry_after=0.02, times=4)
    names = enqueue(bench, 3)
    app = bench.start(submit__horizon="1h")
    ends_right(bench, app, names)
    assert posts(bench) == {"refused 429": 4, "created": 1}
    assert doubts(app, "resubmitted") == doubts(app, "adopted") == 0
    assert marks(app) == (None, None)
    assert {row["attempt"] for row in bench.rows()} == {1}


def test_the_wait_that_a_rate_limit_asks_for_is_kept(bench: Bench) -> None:
    """retry-after wins over any pause of our own."""
    refuse(bench, 429, retry_after=30)
    enqueue(bench, 3)
    app = bench.start()
    turns(app, 5)
    assert posts(bench) == {"refused 429": 1}
    [batch] = batches(app)
    assert app.ledger.batches.claim("default", limit=1, lease=1.0) == []
    due = app.ledger.store.read("zscore", app.ledger.store.keys.due("default"), batch.uid)
    assert due / 1000 - app.ledger.store.now() > 25


def test_a_body_that_did_not_arrive_in_time_is_sent_again(bench: Bench) -> None:
    """The API says that nothing was done, so there is no doubt and nobody to blame."""
    refuse(bench, 400, error_code="request_body_timeout", message="did not finish arriving in time", times=2)
    names = enqueue(bench, 3)
    app = bench.start(submit__horizon="1h")
    ends_right(bench, app, names)
    assert sizes(bench) == [3]


def test_the_queue_limit_of_the_account_is_waited_for(bench: Bench) -> None:
    """A full queue refuses with 429 until it has room."""
    with Simulator(ends_after=2.0, poll_hint=0, queue_limit=3) as narrow:
        bench.simulator = narrow
        names = enqueue(bench, 6)
        app = bench.start(lanes__default__max_count="3")
        ends_right(bench, app, names)
        assert sizes(bench) == [3, 3]
        assert posts(bench)["refused 429"] > 0


def test_a_refused_batch_gives_its_share_of_the_queue_back(bench: Bench) -> None:
    """What waits for a retry does not count as in flight."""
    refuse(bench, 429, retry_after=30)
    enqueue(bench, 3)
    app = bench.start()
    turns(app, 3)
    assert states(app) == [State.SEALED]
    assert app.ledger.deployment.in_flight() == 0


@pytest.mark.parametrize("message", ["requests.0.params: bad", "anything else"])
def test_prompts_that_are_split_and_ejected_survive_a_crash(bench: Bench, message: str) -> None:
    """What a refusal decided is in the ledger: the next process goes on from there."""
    refuse(bench, 400, message=message)
    names = enqueue(bench, 4)
    turns(bench.start(), 1)
    successor = bench.start()
    ends_right(bench, successor, names)
    assert sum(sizes(bench)) == 4 - len(dead(successor))

from dataclasses import replace
from typing import Any

import pytest
from bench import Bench
from endings import (
    batches,
    before_create,
    doubts,
    ends_right,
    enqueue,
    has_ended_right,
    held,
    posts,
    remote_ids,
    sizes,
    states,
    succeeded,
)

from worker.core.model import State
from worker.simulator import Simulator
from worker.wiring import App

SHARED_OR_EXCLUSIVE = pytest.mark.parametrize("exclusive", ["false", "true"], ids=["shared", "exclusive"])


def lose_the_answer(bench: Bench, *more: dict[str, Any], times: int = 1) -> None:
    """Let creates be done and not answered."""
    bench.simulator.control.inject([*more, {"kind": "drop_reply", "on": "create", "times": times}])


def outlive_the_horizon(bench: Bench, app: App) -> None:
    """Work until the doubt of the lane's one batch is older than twice the horizon."""
    bench.drive(app, lambda: states(app) == [State.SUBMITTING])
    end = app.ledger.store.now() + 2 * app.config.submit.horizon
    bench.drive(app, lambda: app.ledger.store.now() > end)


@SHARED_OR_EXCLUSIVE
def test_a_strangers_batch_of_the_same_count_is_never_taken_for_ours(bench: Bench, exclusive: str) -> None:
    """A stranger who creates a batch of our size in the very moment of our POST gets his results, and we ours."""
    lose_the_answer(bench)
    names = enqueue(bench, 3)
    app = bench.start(anthropic__exclusive_workspace=exclusive)
    before_create(app, lambda: bench.simulator.control.foreign(3))
    ends_right(bench, app, names)
    assert sizes(bench) == [3]
    assert {row["batch_id"] for row in bench.rows()} == set(remote_ids(bench))


@SHARED_OR_EXCLUSIVE
def test_a_stranger_does_not_stand_in_for_a_batch_that_was_never_made(bench: Bench, exclusive: str) -> None:
    """Our POST made nothing and a stranger's did: ours is sent again, whoever was adopted by mistake in between."""
    bench.simulator.control.inject({"kind": "status", "on": "create", "status": 500})
    names = enqueue(bench, 3)
    app = bench.start(anthropic__exclusive_workspace=exclusive, lease="10s")
    made = iter([3])
    before_create(app, lambda: [bench.simulator.control.foreign(count) for count in made])
    ends_right(bench, app, names)
    assert sizes(bench) == [3]
    assert {row["batch_id"] for row in bench.rows()} == set(remote_ids(bench))


@SHARED_OR_EXCLUSIVE
def test_a_batch_of_ours_that_shows_after_a_strangers_is_found(bench: Bench, exclusive: str) -> None:
    """A stranger adopted by count is disowned by his first line, and the doubt goes on until ours is listed."""
    lose_the_answer(bench, {"kind": "hide_from_list", "seconds": 0.2})
    names = enqueue(bench, 3)
    app = bench.start(anthropic__exclusive_workspace=exclusive, submit__horizon="1s")
    before_create(app, lambda: bench.simulator.control.foreign(3))
    ends_right(bench, app, names)
    assert sizes(bench) == [3]
    assert {row["batch_id"] for row in bench.rows()} == set(remote_ids(bench))


def test_a_strangers_open_batch_holds_up_the_doubt_until_it_ends(bench: Bench) -> None:
    """In a shared workspace only an ended batch can show whose it is; nothing is posted again meanwhile."""
    names = enqueue(bench, 3)
    with Simulator(ends_after=60, poll_hint=0) as slow:
        bench.simulator = slow
        slow.control.inject({"kind": "status", "on": "create", "status": 500})
        app = bench.start(lease="10s")
        made = iter([3])
        before_create(app, lambda: [slow.control.foreign(count) for count in made])
        bench.drive(app, lambda: any(batch.seen for batch in batches(app)))
        outlive_the_horizon(bench, app)
        assert states(app) == [State.SUBMITTING]
        slow.control.end()
        bench.drive(app, lambda: len(sizes(bench)) == 1 and states(app) == [State.IN_PROGRESS])
        slow.control.end()
        ends_right(bench, app, names)


def test_an_exclusive_workspace_ends_the_doubt_before_the_batch_has_ended(bench: Bench) -> None:
    """The lone candidate of our count is ours at once: seconds of doubt, not hours."""
    lose_the_answer(bench, {"kind": "stuck", "on": "create"})
    names = enqueue(bench, 3)
    app = bench.start(anthropic__exclusive_workspace="true", submit__horizon="1h")
    bench.drive(app, lambda: states(app) == [State.IN_PROGRESS])
    bench.simulator.control.end()
    ends_right(bench, app, names)


def test_a_shared_workspace_waits_for_the_token(bench: Bench) -> None:
    """A candidate that has not ended proves nothing, however long it takes, and is not paid for again."""
    lose_the_answer(bench, {"kind": "stuck", "on": "create"})
    names = enqueue(bench, 3)
    app = bench.start()
    outlive_the_horizon(bench, app)
    assert states(app) == [State.SUBMITTING]
    bench.simulator.control.end()
    ends_right(bench, app, names)
    assert sizes(bench) == [3]


@SHARED_OR_EXCLUSIVE
def test_a_lone_prompt_in_doubt_does_not_hold_up_its_lane(bench: Bench, exclusive: str) -> None:
    """Other lone prompts are sealed, posted and answered while one waits for its proof."""
    lose_the_answer(bench, {"kind": "hide_from_list", "seconds": 100})
    doubtful = enqueue(bench, 1, stem="doubtful")
    app = bench.start(submit__horizon="1h", anthropic__exclusive_workspace=exclusive)
    bench.drive(app, lambda: states(app) == [State.SUBMITTING])
    names = enqueue(bench, 1, stem="x")
    bench.drive(app, lambda: len(bench.rows()) == 1)
    names += enqueue(bench, 1, stem="y")
    bench.drive(app, lambda: len(bench.rows()) == 2)
    assert states(app) == [State.SUBMITTING]
    bench.simulator.control.advance(101)
    ends_right(bench, app, doubtful + names)
    assert sizes(bench) == [1, 1, 1]


@SHARED_OR_EXCLUSIVE
def test_two_lone_prompts_in_doubt_are_told_apart(bench: Bench, exclusive: str) -> None:
    """Two lost answers of the same count end as the right two batches."""
    lose_the_answer(bench, times=2)
    names = enqueue(bench, 2)
    app = bench.start(lanes__default__max_count="1", anthropic__exclusive_workspace=exclusive, submit__horizon="1h")
    ends_right(bench, app, names)
    assert sizes(bench) == [1, 1]
    assert doubts(app, "adopted") == 2


def test_two_batches_in_doubt_of_one_size_are_told_apart_by_token(bench: Bench) -> None:
    """Each lost answer leads to its own batch."""
    lose_the_answer(bench, times=2)
    names = enqueue(bench, 6)
    app = bench.start(lanes__default__max_count="3", submit__horizon="1h")
    ends_right(bench, app, names)
    assert sizes(bench) == [3, 3]


def test_an_exclusive_workspace_seals_batches_of_different_sizes(bench: Bench) -> None:
    """Counts tell batches apart there, so a seal leaves a prompt behind rather than share one."""
    lose_the_answer(bench, times=9)
    names = enqueue(bench, 6)
    app = bench.start(lanes__default__max_count="3", anthropic__exclusive_workspace="true", submit__horizon="1h")
    ends_right(bench, app, names)
    assert sizes(bench)[:2] == [3, 2]
    assert sum(sizes(bench)) == 6


def test_one_of_two_of_the_same_size_was_made_and_the_other_was_not(bench: Bench) -> None:
    """The batch that exists is adopted by the one it belongs to; only the other is sent again."""
    bench.simulator.control.inject(
        [{"kind": "status", "on": "create", "status": 500}, {"kind": "drop_reply", "on": "create"}]
    )
    names = enqueue(bench, 4)
    app = bench.start(lanes__default__max_count="2")
    ends_right(bench, app, names)
    assert sizes(bench) == [2, 2]
    assert (doubts(app, "adopted"), doubts(app, "resubmitted")) == (1, 1)


def test_a_lone_candidate_that_another_of_ours_may_have_made_is_not_adopted_by_count(bench: Bench) -> None:
    """Exclusive means that nobody else creates batches; two of our own in doubt still need the token."""
    bench.simulator.control.inject(
        [{"kind": "status", "on": "create", "status": 500}, {"kind": "drop_reply", "on": "create"}]
    )
    names = enqueue(bench, 2)
    app = bench.start(lanes__default__max_count="1", anthropic__exclusive_workspace="true")
    ends_right(bench, app, names)
    assert (doubts(app, "adopted"), doubts(app, "resubmitted")) == (1, 1)


def test_a_head_that_was_deleted_is_replaced_by_its_date(bench: Bench) -> None:
    """The walk then goes by time instead of by cursor, and finds the batch all the same."""
    stranger: Any = bench.simulator.control.foreign(5)
    lose_the_answer(bench)
    names = enqueue(bench, 3)
    app = bench.start(submit__horizon="1h")
    bench.drive(app, lambda: bool(posts(bench)))
    bench.simulator.control.delete(stranger["id"])
    ends_right(bench, app, names)
    assert sizes(bench) == [3]


def test_a_date_that_is_wrong_does_not_make_a_batch_look_absent(bench: Bench) -> None:
    """With the head gone the walk goes by time: by that of the head itself, whatever a proxy takes for today."""
    stranger: Any = bench.simulator.control.foreign(5)
    lose_the_answer(bench)
    names = enqueue(bench, 3)
    app = bench.start()
    assert app.api is not None
    newest = app.api.newest
    app.api.newest = lambda: replace(newest(), server_date=4_000_000_000.0)  # type: ignore[method-assign]
    bench.drive(app, lambda: bool(posts(bench)))
    bench.simulator.control.delete(stranger["id"])
    ends_right(bench, app, names)
    assert sizes(bench) == [3]


def test_a_deleted_head_does_not_make_a_batch_look_absent(bench: Bench) -> None:
    """With the head gone and nothing made, the batch is sent once more and only once."""
    stranger: Any = bench.simulator.control.foreign(5)
    bench.simulator.control.inject({"kind": "status", "on": "create", "status": 500})
    names = enqueue(bench, 3)
    app = bench.start()
    bench.drive(app, lambda: bool(posts(bench)))
    bench.simulator.control.delete(stranger["id"])
    ends_right(bench, app, names)
    assert sizes(bench) == [3]
    assert doubts(app, "resubmitted") == 1


def test_our_batch_is_found_behind_more_than_a_page_of_others(bench: Bench) -> None:
    """A list page holds a thousand; the walk goes on to the end."""
    bench.simulator.control.foreign(5)
    lose_the_answer(bench)
    names = enqueue(bench, 3)
    app = bench.start(submit__horizon="1h")
    bench.drive(app, lambda: bool(posts(bench)))
    for _ in range(1001):
        bench.simulator.control.foreign(1)
    ends_right(bench, app, names)
    assert sizes(bench) == [3]


def test_a_batch_that_the_list_shows_late_is_not_sent_again(bench: Bench) -> None:
    """Listings lag; within the horizon an empty one proves nothing."""
    lose_the_answer(bench, {"kind": "hide_from_list", "seconds": 0.15})
    names = enqueue(bench, 3)
    app = bench.start(submit__horizon="1s")
    ends_right(bench, app, names)
    assert sizes(bench) == [3]


def test_a_listing_that_fails_concludes_nothing(bench: Bench) -> None:
    """However long the list cannot be had, the horizon alone sends nothing again."""
    lose_the_answer(bench)
    names = enqueue(bench, 3)
    app = bench.start()
    bench.drive(app, lambda: bool(posts(bench)))
    bench.simulator.control.inject({"kind": "status", "on": "list", "status": 500, "times": None})
    outlive_the_horizon(bench, app)
    assert list_failures(bench) > 1
    assert states(app) == [State.SUBMITTING]
    bench.simulator.control.clear_faults()
    ends_right(bench, app, names)
    assert sizes(bench) == [3]


def list_failures(bench: Bench) -> int:
    """Return how many list calls were answered with 500."""
    requests: Any = bench.simulator.control.state()["requests"]
    return int(requests.get("list 500", 0))


def test_results_that_cannot_be_read_leave_a_candidate_a_candidate(bench: Bench) -> None:
    """A token that was not seen rules nothing out."""
    lose_the_answer(bench)
    bench.simulator.control.inject({"kind": "status", "on": "results", "status": 500, "times": 3})
    names = enqueue(bench, 3)
    app = bench.start()
    ends_right(bench, app, names)
    assert sizes(bench) == [3]


def test_a_first_line_that_is_cut_leaves_a_candidate_a_candidate(bench: Bench) -> None:
    """Half a token is no token: the batch is neither adopted nor ruled out by it."""
    lose_the_answer(bench)
    cut = {"kind": "cut_results", "fraction": 0.0, "mode": "clean", "times": 2}
    bench.simulator.control.inject([cut | {"mid_line": True}, cut])
    names = enqueue(bench, 3)
    app = bench.start()
    ends_right(bench, app, names)
    assert sizes(bench) == [3]


def test_a_candidate_that_somebody_deleted_is_for_a_human(bench: Bench) -> None:
    """It may have been ours and paid for; no rule can tell, so it is held with the reason."""
    lose_the_answer(bench, {"kind": "stuck", "on": "create"})
    enqueue(bench, 3)
    app = bench.start()
    bench.drive(app, lambda: any(batch.seen for batch in batches(app)))
    bench.simulator.control.inject({"kind": "status", "on": "results", "status": 500, "times": None})
    bench.simulator.control.end()
    bench.simulator.control.delete(remote_ids(bench)[0])
    bench.drive(app, lambda: held(app))
    batch = held(app)
    assert batch is not None
    assert "deleted" in str(batch.reason)
    assert sizes(bench) == [3]


def test_a_doubt_survives_its_process(bench: Bench) -> None:
    """The horizon is counted by the ledger, not by the process that began to doubt."""
    bench.simulator.control.inject({"kind": "status", "on": "create", "status": 500})
    names = enqueue(bench, 2)
    app = bench.start()
    bench.drive(app, lambda: states(app) == [State.SUBMITTING])
    successor = bench.start()
    bench.drive(successor)
    has_ended_right(bench, successor, names)
    assert sizes(bench) == [2]
    assert succeeded(bench) == 2

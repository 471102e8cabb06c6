from typing import Any

import pytest
from core_builders import NOON, build_batch, build_remote

from worker.core.model import Batch, RemoteBatch, RequestCounts, State
from worker.core.reconcile import Absent, Adopt, Conclusion, Hold, LookAgain, Peek, conclude, made_before

HORIZON = 1800.0
ENDED: dict[str, Any] = {"status": "ended", "counts": RequestCounts(succeeded=2, errored=1)}


def in_doubt(**given: Any) -> Batch:
    """Build a batch of three prompts that came into doubt at noon."""
    return build_batch(**({"state": State.SUBMITTING, "attempt": 1, "doubt_at": NOON, "doubt": "lost"} | given))


def concluded(batch: Batch, *listed: RemoteBatch, exclusive: bool = False, **given: Any) -> Conclusion:
    """Conclude from a complete listing that began right after the horizon."""
    facts: dict[str, Any] = {"owned": frozenset(), "began_at": NOON + HORIZON, "horizon": HORIZON} | given
    return conclude(batch, listed, exclusive=exclusive, **facts)


@pytest.mark.parametrize(
    ("began_at", "conclusion"),
    [
        (NOON, LookAgain(frozenset())),
        (NOON + HORIZON - 0.001, LookAgain(frozenset())),
        (NOON + HORIZON, Absent()),
        (NOON + HORIZON + 0.001, Absent()),
    ],
)
@pytest.mark.parametrize("exclusive", [False, True])
def test_absence_is_proved_by_an_empty_listing_begun_after_the_horizon(
    began_at: float, conclusion: Conclusion, *, exclusive: bool
) -> None:
    """An instant too early, the API might still be making it."""
    assert concluded(in_doubt(), began_at=began_at, exclusive=exclusive) == conclusion


def test_a_doubt_without_a_date_is_never_old_enough() -> None:
    """Somebody must have noticed it first."""
    assert concluded(in_doubt(doubt_at=None), began_at=NOON + 1e9) == LookAgain(frozenset())


def test_batches_of_another_count_are_nobody_we_look_for() -> None:
    """The count is fixed from the start, however far the processing has come."""
    assert concluded(in_doubt(), build_remote(count=2), build_remote("msgbatch_2", count=4)) == Absent()
    ended = build_remote(status="ended", counts=RequestCounts(succeeded=2, expired=1))
    assert concluded(in_doubt(), ended) == Peek((ended,), frozenset({ended.id}), closed=True)


def test_the_lone_candidate_of_an_exclusive_workspace_is_ours() -> None:
    """Nobody else creates batches there, so the count is proof, at once and long before it ends."""
    remote = build_remote()
    assert concluded(in_doubt(), remote, build_remote("msgbatch_2", count=9), began_at=NOON, exclusive=True) == Adopt(
        remote
    )


def test_a_foreign_batch_of_the_same_count_is_not_adopted_in_a_shared_workspace() -> None:
    """It is looked at again, and read once it has ended: only a token proves whose it is."""
    running, ended = build_remote(), build_remote(**ENDED)
    assert concluded(in_doubt(), running) == LookAgain(frozenset({running.id}), closed=True)
    assert concluded(in_doubt(), ended) == Peek((ended,), frozenset({ended.id}), closed=True)


def test_a_candidate_keeps_the_batch_in_doubt_for_as_long_as_it_runs() -> None:
    """The horizon is over, and it may be ours all the same."""
    remote = build_remote()
    assert concluded(in_doubt(), remote, began_at=NOON + 80_000) == LookAgain(frozenset({remote.id}), closed=True)


def test_two_candidates_are_told_apart_by_token_even_in_an_exclusive_workspace() -> None:
    """Two batches of ours can have the same count; the one that has ended can be read."""
    running, ended = build_remote(), build_remote("msgbatch_2", **ENDED)
    assert concluded(in_doubt(), running, exclusive=True) == Adopt(running)
    assert concluded(in_doubt(), running, ended, exclusive=True) == Peek(
        (ended,), frozenset({running.id, ended.id}), closed=True
    )
    both = LookAgain(frozenset({running.id, "msgbatch_3"}), closed=True)
    assert concluded(in_doubt(), running, build_remote("msgbatch_3"), exclusive=True) == both


def test_every_ended_candidate_is_read() -> None:
    """Any of them may hold our token; those still running wait, and are seen: ours may be deleted before it is read."""
    ended = [build_remote(f"msgbatch_{number}", **ENDED) for number in range(3)]
    seen = frozenset({"msgbatch_9", *(remote.id for remote in ended)})
    assert concluded(in_doubt(), *ended, build_remote("msgbatch_9"), began_at=NOON) == Peek(tuple(ended), seen)


def test_what_another_batch_of_ours_owns_is_no_candidate() -> None:
    """An owner is known by its token or by the API's own answer."""
    owned = build_remote()
    assert concluded(in_doubt(), owned, owned=frozenset({owned.id})) == Absent()
    other = build_remote("msgbatch_2")
    assert concluded(in_doubt(), owned, other, owned=frozenset({owned.id}), exclusive=True) == Adopt(other)


def test_what_was_ruled_out_is_no_candidate() -> None:
    """Its token was read and is somebody else's."""
    foreign = build_remote(**ENDED)
    assert concluded(in_doubt(ruled_out=frozenset({foreign.id})), foreign) == Absent()


def test_a_candidate_that_vanished_is_for_a_human() -> None:
    """Somebody deleted what may have been ours: sending again might pay twice, waiting would not end."""
    conclusion = concluded(in_doubt(seen=frozenset({"msgbatch_1"})), build_remote("msgbatch_2", count=9))
    assert conclusion == Hold("a remote batch that may have been ours was deleted")


def test_a_candidate_that_vanished_is_no_matter_while_another_may_prove_to_be_ours() -> None:
    """What has ended is read first, what is not listed yet is waited for, and nothing is taken by its count."""
    batch = in_doubt(seen=frozenset({"msgbatch_1"}))
    running, ended = build_remote("msgbatch_2"), build_remote("msgbatch_3", **ENDED)
    assert concluded(batch, ended) == Peek((ended,), batch.seen | {ended.id}, closed=True)
    assert concluded(batch, running, exclusive=True) == LookAgain(batch.seen | {running.id}, closed=True)
    assert concluded(batch, began_at=NOON + HORIZON - 0.001) == LookAgain(batch.seen)


def test_what_was_there_before_is_known_by_count_and_date() -> None:
    """Only what could be taken for the answer to a POST is remembered."""
    listed = [build_remote("msgbatch_1"), build_remote("msgbatch_2", count=9), build_remote("msgbatch_3")]
    assert made_before(listed, listed[0].counts.total, since=0.0) == {"msgbatch_1", "msgbatch_3"}
    assert made_before(listed, listed[0].counts.total, since=listed[0].created_at) == {"msgbatch_1", "msgbatch_3"}
    assert made_before(listed, listed[0].counts.total, since=listed[0].created_at + 1) == set()


@pytest.mark.parametrize(
    ("batch", "given"),
    [
        (in_doubt(seen=frozenset({"msgbatch_1"}), ruled_out=frozenset({"msgbatch_1"})), {}),
        (in_doubt(seen=frozenset({"msgbatch_1"})), {"owned": frozenset({"msgbatch_1"})}),
    ],
)
def test_a_vanished_batch_that_was_not_ours_is_not_missed(batch: Batch, given: dict[str, Any]) -> None:
    """It was ruled out or found an owner before it was deleted."""
    assert concluded(batch, **given) == Absent()


def test_a_candidate_whose_results_are_archived_is_for_a_human() -> None:
    """Nothing can be read any more that would prove whose it was, and no other may prove to be ours."""
    archived, other = build_remote(**ENDED, archived_at=NOON + 30 * 86_400), build_remote("msgbatch_2")
    ended, both = build_remote("msgbatch_2", **ENDED), frozenset({archived.id, other.id})
    assert isinstance(concluded(in_doubt(), archived), Hold)
    assert concluded(in_doubt(), archived, ended) == Peek((ended,), both, closed=True)
    assert concluded(in_doubt(), archived, other) == LookAgain(both, closed=True)


def test_what_appears_only_behind_the_horizon_is_not_ours() -> None:
    """Whoever creates batches of our size all the time would else keep us waiting for ever."""
    ours, late = build_remote(), build_remote("msgbatch_2")
    closed = in_doubt(seen=frozenset({ours.id}), closed=True)
    assert concluded(closed, ours, late) == LookAgain(closed.seen, closed=True)
    assert concluded(closed, late) == Hold("a remote batch that may have been ours was deleted")
    assert concluded(in_doubt(seen=closed.seen, ruled_out=closed.seen, closed=True), ours, late) == Absent()
    assert concluded(in_doubt(), late, began_at=NOON + HORIZON - 0.001) == LookAgain(frozenset({late.id}))


def test_what_has_been_seen_is_not_forgotten() -> None:
    """A candidate that is deleted between two looks has to be missed by the second."""
    one, other = build_remote(), build_remote("msgbatch_2")
    batch = in_doubt(seen=frozenset({one.id}))
    both = LookAgain(frozenset({one.id, other.id}), closed=True)
    assert concluded(batch, one, other) == concluded(batch, one, other, owned=frozenset({one.id})) == both
    assert concluded(in_doubt(seen=frozenset({one.id})), one, owned=frozenset({one.id}), began_at=NOON) == LookAgain(
        frozenset({one.id})
    )

from dataclasses import replace

import pytest
from ledger_rig import LANE, Rig, dump

from worker.core.lifecycle import TABLE, Event, IllegalTransitionError
from worker.core.model import RequestCounts, State
from worker.ledger.batches import NEVER

MOVES = [(state, event, after) for state, row in TABLE.items() for event, after in row.items()]
SEEN = [state for state in State if state is not State.SETTLED]


@pytest.mark.parametrize(("state", "event", "after"), MOVES)
def test_every_legal_move_is_made_with_the_claim(rig: Rig, state: State, event: Event, after: State) -> None:
    """The new state, the fields that go with it, the next look, and the end of the claim."""
    rig.sealed()
    batch = rig.put("uid1", state)
    claim = rig.claim()
    assert rig.ledger.batches.advance(batch, event, fence=claim.fence, delay=40.0, reason="because") == "OK"
    assert (rig.batch().state, rig.batch().reason) == (after, "because")
    assert rig.due_in() == pytest.approx(40, abs=5)
    assert not rig.ledger.batches.renew(claim, 60.0)


@pytest.mark.parametrize(("state", "event", "after"), MOVES)
def test_every_legal_move_may_be_a_fact(rig: Rig, state: State, event: Event, after: State) -> None:
    """What the API has said needs no claim, and takes it from whoever holds one."""
    rig.sealed()
    batch = rig.put("uid1", state)
    claim = rig.claim()
    assert rig.ledger.batches.advance(batch, event) == "OK"
    assert rig.batch().state is after
    assert not rig.ledger.batches.renew(claim, 60.0)


@pytest.mark.parametrize("state", SEEN)
def test_a_move_from_a_state_that_is_past_changes_nothing(rig: Rig, state: State) -> None:
    """Neither as a decision nor as a fact: the batch has moved since it was seen."""
    rig.sealed()
    seen = rig.put("uid1", state)
    for elsewhere in set(State) - {state}:
        rig.put("uid1", elsewhere)
        claim = rig.claim()
        before = dump(rig.store)
        for event in TABLE[state]:
            assert rig.ledger.batches.advance(seen, event, fence=claim.fence) == "STALE"
            assert rig.ledger.batches.advance(seen, event, unposted=0) == "STALE"
        assert dump(rig.store) == before


@pytest.mark.parametrize(("state", "event"), [move[:2] for move in MOVES])
def test_a_move_of_another_attempt_or_without_the_claim_changes_nothing(rig: Rig, state: State, event: Event) -> None:
    """A late word about an earlier attempt is not about this one; a lost claim decides nothing."""
    rig.sealed()
    batch = rig.put("uid1", state, attempt="2")
    lost = rig.claim()
    held = rig.claim()
    before = dump(rig.store)
    assert rig.ledger.batches.advance(batch, event, fence=lost.fence, unposted=0) == "STALE"
    for attempt in (1, 3):
        other = replace(batch, attempt=attempt)
        assert rig.ledger.batches.advance(other, event, fence=held.fence) == "STALE"
        assert rig.ledger.batches.advance(other, event) == "STALE"
    assert dump(rig.store) == before


@pytest.mark.parametrize("state", State)
def test_an_illegal_move_never_reaches_redis(rig: Rig, state: State) -> None:
    """The table is asked first."""
    rig.sealed()
    batch = rig.put("uid1", state)
    before = dump(rig.store)
    for event in set(Event) - set(TABLE[state]):
        with pytest.raises(IllegalTransitionError):
            rig.ledger.batches.advance(batch, event)
    assert dump(rig.store) == before


def test_a_batch_that_is_gone_is_not_brought_back(rig: Rig) -> None:
    """Its record expired or was deleted: a late move leaves no half of it."""
    batch = rig.sealed()
    for key in (rig.keys.batch(LANE, "uid1"), rig.keys.due(LANE), rig.keys.unposted(LANE)):
        rig.store.write("delete", key)
    assert rig.ledger.batches.advance(batch, Event.HOLD) == "STALE"
    assert rig.ledger.batches.get(LANE, "uid1") is None


def test_a_note_leaves_the_state_and_keeps_the_claim(rig: Rig) -> None:
    """Without an event and without a delay only the fields change."""
    batch = rig.sealed()
    claim = rig.claim()
    due = rig.due_in()
    assert rig.ledger.batches.advance(batch, None, fence=claim.fence, delay=None, doubt="lost", doubt_at="7.5") == "OK"
    after = rig.batch()
    assert (after.state, after.doubt, after.doubt_at) == (State.SEALED, "lost", 7.5)
    assert rig.due_in() == pytest.approx(due, abs=5)
    assert rig.ledger.batches.renew(claim, 60.0)


def test_an_empty_field_is_none(rig: Rig) -> None:
    """A hash has no null; what is emptied reads as never set."""
    batch = rig.sealed()
    rig.ledger.batches.advance(batch, None, reason="because", failures="3", probe="1")
    assert (rig.batch().reason, rig.batch().failures, rig.batch().probe) == ("because", 3, True)
    rig.ledger.batches.advance(batch, None, reason="", failures="", probe="")
    assert (rig.batch().reason, rig.batch().failures, rig.batch().probe) == (None, 0, False)


def test_a_held_batch_is_never_due(rig: Rig) -> None:
    """Only a human brings it back, and it stays in every listing."""
    batch = rig.sealed()
    assert rig.ledger.batches.advance(batch, Event.HOLD, delay=NEVER) == "OK"
    assert rig.ledger.batches.claim(LANE, limit=10, lease=60.0) == []
    assert rig.ledger.batches.live(LANE) == ["uid1"]
    assert rig.ledger.batches.advance(rig.batch(), Event.RESUBMIT, unposted=3) == "OK"
    assert rig.ledger.batches.claim(LANE, limit=10, lease=60.0)[0].state is State.SEALED


@pytest.mark.parametrize(("unposted", "taken"), [(None, {3}), (0, set()), (5, {5})])
def test_a_move_keeps_ends_or_makes_the_reservation_of_the_count(
    rig: Rig, unposted: int | None, taken: set[int]
) -> None:
    """In the same instant as the state, or a candidate would look lone that is not."""
    batch = rig.sealed(3)
    assert rig.ledger.batches.advance(batch, None, unposted=unposted) == "OK"
    assert rig.ledger.lanes.taken_counts([LANE]) == taken


def test_a_decision_may_ask_that_the_lane_has_recovered(rig: Rig) -> None:
    """Sending again is such a decision; a fact is not."""
    batch = rig.submitting()
    rig.store.write("hset", rig.keys.lane(LANE), "incarnation", "another life")
    before = dump(rig.store)
    assert rig.ledger.batches.advance(batch, Event.ABSENT, recovered=True) == "RECOVER"
    assert dump(rig.store) == before
    assert rig.ledger.batches.advance(batch, Event.REFUSE) == "OK"


def test_an_end_fixes_by_what_results_will_be_judged(rig: Rig) -> None:
    """A second delivery, days later and under other settings, rules the same."""
    rig.in_progress()
    batch = rig.put("uid1", State.CANCELING, failures="4")
    counts = RequestCounts(succeeded=1, errored=2, canceled=3, expired=4)
    fence = rig.claim().fence
    ended = rig.ledger.batches.end(
        batch, Event.END, fence=fence, ended_at=1_795_350_000.5, max_attempts=7, counts=counts, reason="seen"
    )
    assert ended == "OK"
    after = rig.batch()
    assert (after.state, after.ended_at, after.max_attempts) == (State.ENDED, 1_795_350_000.5, 7)
    assert (after.counts, after.failures, after.reason) == (counts, 0, "seen")
    assert after.judged_at == pytest.approx(rig.store.now(), abs=5)


def test_a_batch_without_a_usable_prompt_ends_now(rig: Rig) -> None:
    """Nothing was posted: its end is when that was noticed, and its count is free."""
    rig.add(params=b"{")
    batch = rig.seal()
    ended = rig.ledger.batches.end(batch, Event.SKIP, fence=rig.claim().fence, ended_at=None, max_attempts=3)
    assert ended == "OK"
    after = rig.batch()
    assert (after.state, after.ended_at, after.counts) == (State.ENDED, after.judged_at, None)
    assert rig.ledger.lanes.marks(LANE).unposted == 0


def test_a_commit_of_a_sink_is_noted_by_name(rig: Rig) -> None:
    """A dead sink delays only itself; the others are not asked again."""
    rig.sealed()
    batch = rig.put("uid1", State.ENDED)
    claim = rig.claim()
    assert rig.ledger.batches.commit(batch, "results", fence=claim.fence) == "OK"
    assert rig.ledger.batches.commit(batch, "my:archive", fence=claim.fence) == "OK"
    assert set(rig.batch().commits) == {"results", "my:archive"}
    assert rig.ledger.batches.renew(claim, 60.0)
    rig.claim()
    assert rig.ledger.batches.commit(batch, "third", fence=claim.fence) == "STALE"
    assert set(rig.batch().commits) == {"results", "my:archive"}

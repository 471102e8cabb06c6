from dataclasses import replace

import pytest
from ledger_rig import LANE, Rig, dump, remote

from worker.core.lifecycle import IllegalTransitionError
from worker.core.model import State

MONTH = 30 * 86_400


def test_the_intent_is_written_before_the_last_byte(rig: Rig) -> None:
    """One attempt more, what the API showed as its newest batch, and when; the claim stays in force."""
    batch = rig.sealed()
    claim = rig.claim()
    assert rig.submit(batch, claim.fence, head="msgbatch_9") == "OK"
    after = rig.batch()
    assert (after.state, after.attempt) == (State.SUBMITTING, 1)
    assert (after.head, after.head_at) == ("msgbatch_9", 1_795_348_000.0)
    assert after.posted_at == pytest.approx(rig.store.now(), abs=5)
    assert rig.ledger.batches.renew(claim, 60.0)
    assert rig.ledger.lanes.marks(LANE).unposted == 1


def test_an_intent_is_recognised_by_whoever_recorded_it(rig: Rig) -> None:
    """A record whose answer was lost is told from somebody else's by a random name."""
    batch = rig.sealed()
    claim = rig.claim()
    submitted = rig.ledger.batches.submit(
        batch, fence=claim.fence, head="", head_at=0.0, durably=lambda write: write(None), intent="k7m2"
    )
    assert (submitted, rig.batch().intent) == ("OK", "k7m2")
    rig.put("uid1", State.SEALED)
    assert rig.submit(rig.batch(), claim.fence) == "OK"
    assert rig.batch().intent is None


def test_a_second_attempt_knows_nothing_of_the_doubts_of_the_first(rig: Rig) -> None:
    """What was seen and ruled out was newer than another head."""
    rig.sealed()
    old = {"attempt": "1", "doubt": "lost", "doubt_at": "5", "seen": "a b", "ruled_out": "c", "head": "old"}
    batch = rig.put("uid1", State.SEALED, **old)
    assert rig.submit(batch, rig.claim().fence, head="") == "OK"
    after = rig.batch()
    assert (after.attempt, after.doubt, after.doubt_at, after.head) == (2, None, None, None)
    assert (after.seen, after.ruled_out) == (frozenset(), frozenset())


def test_an_intent_is_recorded_once(rig: Rig) -> None:
    """Of two knocks with the same claim one posts."""
    batch = rig.sealed()
    claim = rig.claim()
    rig.submit(batch, claim.fence)
    before = dump(rig.store)
    assert rig.submit(batch, claim.fence) == "STALE"
    assert dump(rig.store) == before


def test_an_intent_without_the_claim_is_refused(rig: Rig) -> None:
    """Somebody else has claimed the batch since, and may be posting it."""
    batch = rig.sealed()
    lost = rig.claim()
    rig.claim()
    before = dump(rig.store)
    assert rig.submit(batch, lost.fence) == "STALE"
    assert dump(rig.store) == before


def test_an_intent_for_another_attempt_is_refused(rig: Rig) -> None:
    """The batch was posted and refused since it was seen."""
    rig.sealed()
    before_post = rig.batch()
    rig.put("uid1", State.SEALED, attempt="1")
    claim = rig.claim()
    before = dump(rig.store)
    assert rig.submit(before_post, claim.fence) == "STALE"
    assert dump(rig.store) == before


def test_a_paused_lane_posts_nothing(rig: Rig) -> None:
    """Even when it was paused between the look and the last byte; an emptied mark is no pause."""
    batch = rig.sealed()
    claim = rig.claim()
    rig.ledger.lanes.pause(LANE, "upgrade")
    before = dump(rig.store)
    assert rig.submit(batch, claim.fence) == "PAUSED"
    assert dump(rig.store) == before
    rig.ledger.lanes.resume(LANE)
    assert rig.submit(batch, claim.fence) == "OK"


def test_a_restarted_server_posts_nothing_before_it_has_recovered(rig: Rig) -> None:
    """The record may have been posted in the life before."""
    batch = rig.sealed()
    claim = rig.claim()
    rig.store.write("hset", rig.keys.lane(LANE), "incarnation", "another life")
    before = dump(rig.store)
    assert rig.submit(batch, claim.fence) == "RECOVER"
    assert dump(rig.store) == before


def test_only_a_sealed_batch_is_posted(rig: Rig) -> None:
    """The law is asked before the server is."""
    batch = rig.in_progress()
    with pytest.raises(IllegalTransitionError):
        rig.submit(batch, rig.claim().fence)


def test_the_answer_of_the_api_is_a_fact_that_needs_no_claim(rig: Rig) -> None:
    """The lease may have ended while the API thought; the id is recorded all the same."""
    batch = rig.submitting(count=4)
    lost = rig.claim()
    rig.claim()
    assert rig.accept(batch, remote("msgbatch_7", count=4)) == "OK"
    after = rig.batch()
    assert (after.state, after.remote_id, after.workspace_id) == (State.IN_PROGRESS, "msgbatch_7", "wrkspc_1")
    assert (after.created_at, after.expires_at) == (1_795_348_800.0, 1_795_435_200.0)
    assert rig.due_in() == pytest.approx(30, abs=5)
    assert rig.ledger.lanes.marks(LANE).unposted == 0
    assert rig.ledger.batches.owners(["msgbatch_7", "msgbatch_8"], [LANE]) == {"msgbatch_7"}
    assert MONTH - 60 < rig.store.read("ttl", rig.keys.remote(LANE, "msgbatch_7")) <= MONTH
    assert not rig.ledger.batches.renew(lost, 60.0)


def test_an_answer_ends_the_claim_under_which_it_was_asked_for(rig: Rig) -> None:
    """The next look is the poller's, not the submitter's."""
    batch = rig.sealed()
    claim = rig.claim()
    rig.submit(batch, claim.fence)
    rig.accept(rig.batch())
    assert not rig.ledger.batches.renew(claim, 60.0)


def test_an_answer_that_is_recorded_twice_is_recorded_once(rig: Rig) -> None:
    """A lost reply is asked for again."""
    batch = rig.submitting()
    rig.accept(batch)
    before = dump(rig.store)
    assert rig.accept(batch) == "MINE"
    assert dump(rig.store) == before


def test_an_answer_to_an_attempt_that_was_given_up_is_stale(rig: Rig) -> None:
    """By then the batch may have been posted again: two remote batches, and the record has room for one."""
    batch = rig.submitting()
    rig.put("uid1", State.SUBMITTING, attempt="2")
    before = dump(rig.store)
    assert rig.accept(batch) == "STALE"
    rig.put("uid1", State.SEALED, attempt="1")
    before |= {rig.keys.batch(LANE, "uid1"): dump(rig.store)[rig.keys.batch(LANE, "uid1")]}
    assert rig.accept(batch) == "STALE"
    assert dump(rig.store) == before


def test_recovery_records_what_was_posted_before_the_crash(rig: Rig) -> None:
    """Under the attempt that the token names, from sealed or from submitting, whatever Redis remembers."""
    sealed = rig.sealed(3, "uid1")
    submitting = rig.submitting(3, "uid2")
    assert rig.ledger.batches.found(sealed, remote("msgbatch_1"), 4) == "OK"
    assert rig.ledger.batches.found(submitting, remote("msgbatch_2"), 1) == "OK"
    one, two = rig.batch("uid1"), rig.batch("uid2")
    assert (one.state, one.remote_id, one.attempt) == (State.IN_PROGRESS, "msgbatch_1", 4)
    assert one.posted_at == pytest.approx(rig.store.now(), abs=5)
    assert (two.state, two.remote_id, two.posted_at) == (State.IN_PROGRESS, "msgbatch_2", submitting.posted_at)
    assert rig.ledger.lanes.marks(LANE).unposted == 0
    assert rig.ledger.batches.owners(["msgbatch_1", "msgbatch_2"], [LANE]) == {"msgbatch_1", "msgbatch_2"}


def test_an_attempt_that_was_recorded_is_never_used_again(rig: Rig) -> None:
    """What recovery finds may be an older submission than the one that Redis remembers."""
    rig.submitting()
    batch = rig.put("uid1", State.SUBMITTING, attempt="3")
    assert rig.ledger.batches.found(batch, remote(), 1) == "OK"
    assert rig.batch().attempt == 3


def adopt(rig: Rig, remote_id: str = "msgbatch_1", *, alone: bool, fence: str | None = None) -> str:
    """Adopt a remote batch for uid1, over two lanes."""
    batch = rig.batch()
    held = rig.claim().fence if fence is None else fence
    made = remote(remote_id, count=batch.count)
    return rig.ledger.batches.adopt(batch, made, fence=held, lanes=["another", LANE], alone=alone)


@pytest.mark.parametrize("alone", [True, False])
def test_an_adopted_batch_goes_on_as_if_it_had_been_answered(rig: Rig, *, alone: bool) -> None:
    """Its id, its owner's mark, no reservation any more, due at once."""
    rig.submitting()
    Rig(rig.ledger, lane="another").recover()
    claim = rig.claim()
    assert adopt(rig, alone=alone, fence=claim.fence) == "OK"
    assert not rig.ledger.batches.renew(claim, 60.0)
    after = rig.batch()
    assert (after.state, after.remote_id, after.created_at) == (State.IN_PROGRESS, "msgbatch_1", 1_795_348_800.0)
    assert rig.ledger.lanes.marks(LANE).unposted == 0
    assert rig.ledger.batches.owners(["msgbatch_1"], [LANE]) == {"msgbatch_1"}
    assert MONTH - 60 < rig.store.read("ttl", rig.keys.remote(LANE, "msgbatch_1")) <= MONTH
    assert rig.due_in() == pytest.approx(0, abs=5)


@pytest.mark.parametrize("other_lane", [LANE, "another"])
def test_a_count_that_two_unposted_batches_share_proves_nothing(rig: Rig, other_lane: str) -> None:
    """Either could have made it, in whatever lane; a token still proves it."""
    rig.submitting(count=3)
    Rig(rig.ledger, lane="another").recover()
    other = Rig(rig.ledger, lane=other_lane)
    other.recover()
    other.sealed(3, "uid2")
    before = rig.claim().fence
    snapshot = dump(rig.store)
    assert adopt(rig, alone=True, fence=before) == "SHARED"
    assert dump(rig.store) == snapshot
    assert adopt(rig, alone=False, fence=before) == "OK"


def test_another_count_elsewhere_is_no_rival(rig: Rig) -> None:
    """Only a batch of the same size could have made this one."""
    rig.submitting(count=3)
    other = Rig(rig.ledger, lane="another")
    other.recover()
    other.sealed(4, "uid2")
    assert adopt(rig, alone=True) == "OK"


@pytest.mark.parametrize("owner_lane", [LANE, "another"])
@pytest.mark.parametrize("alone", [True, False])
def test_a_remote_batch_has_one_owner(rig: Rig, owner_lane: str, *, alone: bool) -> None:
    """What another batch of ours owns, in whatever lane, is not adopted by this one."""
    rig.submitting()
    rig.store.write("set", rig.keys.remote(owner_lane, "msgbatch_1"), "uid9", ex=60)
    fence = rig.claim().fence
    before = dump(rig.store)
    assert adopt(rig, alone=alone, fence=fence) == "OWNED"
    assert dump(rig.store) == before


def test_an_adoption_needs_the_claim_the_state_and_the_attempt(rig: Rig) -> None:
    """It is a decision: what was seen must still be so."""
    seen = rig.submitting()
    lost = rig.claim()
    held = rig.claim()
    before = dump(rig.store)
    adopted = rig.ledger.batches.adopt
    made = remote()
    assert adopted(seen, made, fence=lost.fence, lanes=[LANE], alone=False) == "STALE"
    assert adopted(replace(seen, attempt=2), made, fence=held.fence, lanes=[LANE], alone=False) == "STALE"
    assert dump(rig.store) == before
    rig.put("uid1", State.SEALED)
    assert adopted(seen, made, fence=held.fence, lanes=[LANE], alone=False) == "STALE"


def test_an_adoption_waits_for_recovery(rig: Rig) -> None:
    """After a restart the reservations of others may be missing."""
    rig.submitting()
    fence = rig.claim().fence
    rig.store.write("hset", rig.keys.lane(LANE), "incarnation", "another life")
    before = dump(rig.store)
    assert adopt(rig, alone=True, fence=fence) == "RECOVER"
    assert dump(rig.store) == before


def test_a_count_proves_nothing_while_another_lane_is_not_recovered(rig: Rig) -> None:
    """What that lane has forgotten may have made the remote batch, and is in no set; a token still proves it."""
    rig.submitting()
    Rig(rig.ledger, lane="another").recover()
    rig.store.write("hset", rig.keys.lane("another"), "incarnation", "another life")
    fence = rig.claim().fence
    before = dump(rig.store)
    assert adopt(rig, alone=True, fence=fence) == "RECOVER"
    assert dump(rig.store) == before
    assert adopt(rig, alone=False, fence=fence) == "OK"


def test_a_remote_batch_that_was_not_ours_is_given_back(rig: Rig) -> None:
    """The doubt goes on, without that candidate, and the count is reserved again."""
    rig.in_progress()
    batch = rig.put("uid1", State.ENDED, ruled_out="msgbatch_0")
    assert rig.ledger.batches.disown(batch, fence=rig.claim().fence) == "OK"
    after = rig.batch()
    assert (after.state, after.remote_id, after.attempt) == (State.SUBMITTING, None, 1)
    assert after.ruled_out == {"msgbatch_0", "msgbatch_uid1"}
    assert after.doubt == "lost"
    assert after.doubt_at == pytest.approx(rig.store.now(), abs=5)
    assert rig.ledger.lanes.taken_counts([LANE]) == {3}
    assert rig.ledger.batches.owners(["msgbatch_uid1"], [LANE]) == set()


def test_giving_back_needs_the_claim(rig: Rig) -> None:
    """The owner's mark stays while the batch keeps its remote one."""
    rig.in_progress()
    batch = rig.put("uid1", State.ENDED)
    lost = rig.claim()
    rig.claim()
    before = dump(rig.store)
    assert rig.ledger.batches.disown(batch, fence=lost.fence) == "STALE"
    assert dump(rig.store) == before


def test_a_batch_is_found_by_either_name(rig: Rig) -> None:
    """Operators read one id in our logs and another in the Console."""
    batch = rig.in_progress()
    assert rig.ledger.batches.find("uid1", ["another", LANE]) == batch
    assert rig.ledger.batches.find("msgbatch_uid1", ["another", LANE]) == batch
    assert rig.ledger.batches.find("msgbatch_other", ["another", LANE]) is None
    assert rig.ledger.batches.get_many([(LANE, "uid1"), (LANE, "gone")]) == [batch]


def test_a_batch_that_was_found_owns_its_remote_batch_or_nothing_is_written(rig: Rig) -> None:
    """In two writes a crash between them left a remote batch that nobody would look for, and its prompts unsent."""
    sealed = rig.sealed(2)
    claim = rig.claim()
    assert rig.submit(sealed, claim.fence) == "OK"
    before = dump(rig.store)
    assert rig.ledger.batches.found(sealed, remote("msgbatch_1", count=2), 1) == "STALE"
    assert dump(rig.store) == before
    assert rig.ledger.batches.found(rig.batch(), remote("msgbatch_1", count=2), 1) == "OK"
    assert rig.ledger.batches.owners(["msgbatch_1"], [LANE]) == {"msgbatch_1"}

"""Edges of the scripts on which no other test stands: each was found by a mutant that lived (docs/mutation.md)."""

from collections.abc import Callable

import pytest
from ledger_rig import LANE, Rig, dump, remote

from worker.core.grouping import Remainder
from worker.core.intake import Flaw
from worker.core.lifecycle import Event
from worker.core.model import State

PRECISION = 0.002
"""Seconds: a due time is in milliseconds, and so is the time it is compared with."""


def test_only_what_is_still_the_same_is_dropped(rig: Rig) -> None:
    """A turn that ran out belongs to somebody else by now."""
    key = rig.keys.barrier
    rig.store.write("set", key, "theirs", px=60_000)
    before = dump(rig.store)
    assert rig.store.say("drop", key=key, value="ours") == "STALE"
    assert dump(rig.store) == before
    assert rig.store.say("drop", key=key, value="theirs") == "OK"
    assert dump(rig.store) == {name: value for name, value in before.items() if name != key}


def test_no_adoption_before_its_own_lane_is_recovered(rig: Rig) -> None:
    """Not even by token: the lane's record may be of another life."""
    batch = rig.submitting()
    fence = rig.claim().fence
    rig.store.write("hset", rig.keys.lane(LANE), "incarnation", "another life")
    before = dump(rig.store)
    assert rig.ledger.batches.adopt(batch, remote(), fence=fence, lanes=[LANE], alone=False) == "RECOVER"
    assert dump(rig.store) == before


@pytest.mark.parametrize(
    "changes", [{"state": "submitting"}, {"attempt": "1"}], ids=lambda changes: next(iter(changes))
)
def test_a_batch_is_mended_only_as_it_was_seen(rig: Rig, changes: dict[str, str]) -> None:
    """Posted since, or posted and refused: the claim alone does not say that nothing has happened."""
    seen, claim = rig.sealed(), rig.claim()
    rig.store.write("hset", rig.keys.batch(LANE, seen.uid), mapping=changes)
    before = dump(rig.store)
    assert rig.ledger.batches.mend(seen, Remainder(2, 2, 300), fence=claim.fence) == "STALE"
    assert dump(rig.store) == before


def _accepted(rig: Rig) -> float:
    batch = rig.submitting()
    began = rig.store.now()
    assert rig.ledger.batches.accept(batch, 1, remote(), delay=30.0, workspace_id="") == "OK"
    return began + 30


def _adopted(rig: Rig) -> float:
    batch, claim = rig.submitting(), rig.claim()
    began = rig.store.now()
    assert rig.ledger.batches.adopt(batch, remote(), fence=claim.fence, lanes=[LANE], alone=False) == "OK"
    return began


def _advanced(rig: Rig) -> float:
    batch = rig.submitting()
    began = rig.store.now()
    assert rig.ledger.batches.advance(batch, Event.REFUSE, delay=20.0, unposted=batch.count) == "OK"
    return began + 20


def _ejected(rig: Rig) -> float:
    batch, claim = rig.sealed(), rig.claim()
    began = rig.store.now()
    assert rig.ledger.batches.eject(batch, batch.first, Flaw.REFUSED, 200, fence=claim.fence) == "OK"
    return began


def _mended(rig: Rig) -> float:
    batch, claim = rig.sealed(), rig.claim()
    began = rig.store.now()
    assert rig.ledger.batches.mend(batch, Remainder(2, 2, 300), fence=claim.fence) == "OK"
    return began


def _claimed(rig: Rig) -> float:
    rig.sealed()
    began = rig.store.now()
    rig.claim()
    return began + 60


def _renewed(rig: Rig) -> float:
    rig.sealed()
    claim = rig.claim()
    began = rig.store.now()
    assert rig.ledger.batches.renew(claim, 90.0)
    return began + 90


def _sealed(rig: Rig) -> float:
    rig.fill(2)
    began = rig.store.now()
    assert rig.seal().state is State.SEALED
    return began


@pytest.mark.parametrize(
    "move",
    [_accepted, _adopted, _advanced, _ejected, _mended, _claimed, _renewed, _sealed],
    ids=lambda move: move.__name__.strip("_"),
)
def test_a_batch_comes_due_to_the_millisecond(rig: Rig, move: Callable[[Rig], float]) -> None:
    """By Redis' own clock, and not before the time that was asked for."""
    earliest = move(rig)
    due_at = float(rig.store.read("zscore", rig.keys.due(LANE), "uid1")) / 1000
    assert due_at >= earliest - PRECISION


def test_a_lone_letter_that_is_redriven_is_counted(rig: Rig) -> None:
    """What was put back is no new prompt: the figures take it off again."""
    letter = rig.store.write("xadd", rig.keys.dead(LANE), {"params": b"{}", "batchmill.reason": "expired"}).decode()
    assert rig.ledger.dead_letters.redrive(LANE, [letter]) == 1
    assert rig.store.read("hget", rig.keys.lane(LANE), "requeued") == b"1"


def test_one_prompt_in_flight_is_enough_to_wait_for(rig: Rig) -> None:
    """Only into an empty queue does a batch go that is too large for what is left of it."""
    reserve = rig.ledger.deployment.reserve
    assert reserve(LANE, "uid1", 1, 10)
    assert not reserve(LANE, "uid2", 10, 10)
    rig.ledger.deployment.release([(LANE, "uid1")])
    assert reserve(LANE, "uid2", 11, 10)
    rig.ledger.deployment.release([(LANE, "uid2")])


def test_a_lane_that_was_emptied_meanwhile_is_not_rewound(rig: Rig) -> None:
    """With nothing in the stream nothing says that its ids have gone back."""
    cursor = rig.sealed(1).last
    rig.store.write("delete", rig.keys.prompts(LANE), rig.keys.due(LANE), rig.keys.unposted(LANE))
    rig.store.write("delete", rig.keys.batch(LANE, "uid1"))
    before = dump(rig.store)
    keys = {"lane": rig.keys.lane(LANE), "prompts": rig.keys.prompts(LANE), "due": rig.keys.due(LANE)}
    assert rig.store.say("rewind", **keys, seen=cursor) == "STALE"
    assert dump(rig.store) == before


def test_a_rewound_lane_has_sealed_nothing(rig: Rig) -> None:
    """Its stream is a new one: all of it waits."""
    rig.store.write("xadd", rig.keys.prompts(LANE), {"params": b"{}"}, id="5-1")
    rig.store.write("hset", rig.keys.lane(LANE), mapping={"cursor": "9-0", "sealed_entries": "3"})
    assert rig.ledger.lanes.rewind(LANE)
    assert rig.store.read("hmget", rig.keys.lane(LANE), "cursor", "sealed_entries") == [b"0-0", b"0"]


def test_nothing_is_disowned_before_its_own_lane_is_recovered(rig: Rig) -> None:
    """What the record says of the adoption may be of another life."""
    rig.in_progress()
    batch = rig.put("uid1", State.ENDED, guessed="1")
    fence = rig.claim().fence
    rig.store.write("hset", rig.keys.lane(LANE), "incarnation", "another life")
    before = dump(rig.store)
    assert rig.ledger.batches.disown(batch, fence=fence) == "RECOVER"
    assert dump(rig.store) == before

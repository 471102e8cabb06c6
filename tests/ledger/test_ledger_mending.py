"""A sealed batch of which somebody deleted prompts, and what a deployment writes into a Redis that has forgotten it."""

import pytest
from ledger_rig import LANE, Rig

from worker.core.grouping import Remainder
from worker.core.model import State
from worker.ledger.store import LedgerRefusedError

LEFT = Remainder(entries=2, count=2, bytes=300)


def test_a_mended_batch_is_what_is_left_of_it(rig: Rig) -> None:
    """Its count, its size, its place among the unposted; it comes due at once, under a new fence."""
    batch = rig.sealed(4)
    claim = rig.claim()
    assert rig.ledger.batches.mend(batch, LEFT, fence=claim.fence) == "OK"
    mended = rig.batch()
    assert (mended.entries, mended.count, mended.bytes, mended.failures) == (2, 2, 300, 0)
    assert (mended.state, mended.first, mended.last) == (State.SEALED, batch.first, batch.last)
    assert rig.ledger.lanes.taken_counts([LANE]) == {2}
    assert rig.store.read("hget", rig.keys.lane(LANE), "sealed_entries") == b"2"
    assert rig.due_in() <= 0
    assert rig.ledger.batches.mend(mended, LEFT, fence=claim.fence) == "STALE"


def test_only_whoever_holds_a_sealed_batch_mends_it(rig: Rig) -> None:
    """A stale fence, another attempt or a batch that may be at the API already: nothing is changed."""
    batch = rig.sealed(4)
    claim = rig.claim()
    rig.claim()
    assert rig.ledger.batches.mend(batch, LEFT, fence=claim.fence) == "STALE"
    fence = rig.claim().fence
    assert rig.submit(batch, fence) == "OK"
    assert rig.ledger.batches.mend(batch, LEFT, fence=fence) == "STALE"
    assert rig.batch().count == 4


def test_an_emptied_redis_is_claimed_once(rig: Rig) -> None:
    """The first replica writes the id and when it was noticed; the others find theirs there already."""
    deployment = rig.ledger.deployment
    assert deployment.reclaim("abc234")
    assert not deployment.reclaim("abc234")
    assert not deployment.reclaim("xyz567")
    origin = deployment.origin()
    assert (origin.id, origin.orphans) == ("abc234", None)
    assert origin.emptied_at == pytest.approx(rig.store.now(), abs=5)
    assert deployment.enter("xyz567") == "abc234"
    assert deployment.count_orphans(0)
    assert not deployment.count_orphans(3)
    assert deployment.origin().orphans == 0


def test_a_lane_remembers_its_cursor_only_where_it_has_none(rig: Rig) -> None:
    """What a living lane knows is never put back."""
    assert rig.ledger.lanes.remember(LANE, "5-0", 7)
    assert not rig.ledger.lanes.remember(LANE, "9-0", 9)
    assert rig.ledger.lanes.marks(LANE).cursor == "5-0"


def test_a_lane_is_rewound_only_from_where_it_was_seen_and_empty_of_batches(rig: Rig) -> None:
    """Everything it holds lies behind the cursor, and none of it is a batch's."""
    rig.store.write("xadd", rig.keys.prompts(LANE), {"params": "{}"}, id="5-0")
    rig.store.write("hset", rig.keys.lane(LANE), "cursor", "9-0")

    def rewind(seen: str) -> str:
        keys = rig.keys
        return rig.store.say("rewind", lane=keys.lane(LANE), prompts=keys.prompts(LANE), due=keys.due(LANE), seen=seen)

    assert rewind("8-0") == "STALE"
    rig.store.write("zadd", rig.keys.due(LANE), {"uid1": 0})
    assert rewind("9-0") == "STALE"
    rig.store.write("delete", rig.keys.due(LANE))
    rig.store.write("xadd", rig.keys.prompts(LANE), {"params": "{}"}, id="10-0")
    assert rewind("9-0") == "STALE"
    assert not rig.ledger.lanes.rewind(LANE)
    rig.store.write("xdel", rig.keys.prompts(LANE), "10-0")
    assert rig.ledger.lanes.rewind(LANE)
    assert rig.ledger.lanes.marks(LANE).cursor == "0-0"


def test_who_works_here_is_not_asked_of_a_server_that_refuses(real_rig: Rig) -> None:
    """Somebody made the deployment's hash a string: that is an operator's to mend, and said."""
    real_rig.store.write("set", real_rig.keys.deployment, "x", ex=60)
    with pytest.raises(LedgerRefusedError):
        real_rig.ledger.deployment.origin()
    real_rig.store.write("delete", real_rig.keys.deployment)

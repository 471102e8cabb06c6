import threading

import pytest
from ledger_rig import LANE, Rig, dump, wait_until

from worker.core.model import Claim, State
from worker.ledger.lease import Leases, LostLeaseError, StoppingError


def test_what_is_due_is_claimed_once(rig: Rig) -> None:
    """A claim moves the batch's score to the end of its lease, so nobody else finds it due."""
    rig.sealed(2)
    (claim,) = rig.ledger.batches.claim(LANE, limit=10, lease=60.0)
    assert (claim.lane, claim.uid, claim.state) == (LANE, "uid1", State.SEALED)
    assert rig.due_in() == pytest.approx(60, abs=5)
    assert rig.ledger.batches.claim(LANE, limit=10, lease=60.0) == []


def test_a_fence_only_grows(rig: Rig) -> None:
    """Whoever claims later holds the higher number, and only the highest counts."""
    rig.sealed(1)
    fences = [int(rig.claim().fence) for _ in range(3)]
    assert fences == sorted(set(fences))
    assert not rig.ledger.batches.renew(Claim(LANE, "uid1", str(fences[0]), State.SEALED), 60.0)
    assert rig.ledger.batches.renew(Claim(LANE, "uid1", str(fences[-1]), State.SEALED), 60.0)


def test_a_fence_is_not_given_out_again_by_a_server_that_forgot_it(rig: Rig) -> None:
    """It is no smaller than the time: a decision of before the restart cannot be taken for one of now."""
    rig.sealed(1)
    rig.store.write("hset", rig.keys.fences(LANE), "uid1", "1")
    now = rig.store.now()
    assert int(rig.claim().fence) >= int(now * 1000)


def test_what_is_not_due_is_not_claimed(rig: Rig) -> None:
    """An instant in the future, or a human's decision, is waited for."""
    rig.sealed(1, "uid1")
    rig.sealed(1, "uid2")
    rig.store.write("zadd", rig.keys.due(LANE), {"uid1": (rig.store.now() + 3) * 1000, "uid2": "+inf"})
    assert rig.ledger.batches.claim(LANE, limit=10, lease=60.0) == []


def test_no_more_is_claimed_than_was_asked_for(rig: Rig) -> None:
    """The oldest first; the others stay due for somebody else."""
    for number in range(4):
        rig.sealed(1, f"uid{number}")
    rig.store.write("zadd", rig.keys.due(LANE), {f"uid{number}": number for number in range(4)})
    assert [claim.uid for claim in rig.ledger.batches.claim(LANE, limit=3, lease=60.0)] == ["uid0", "uid1", "uid2"]
    assert [claim.uid for claim in rig.ledger.batches.claim(LANE, limit=3, lease=60.0)] == ["uid3"]


def test_a_state_that_is_passed_over_is_put_off_without_a_claim(rig: Rig) -> None:
    """Nobody here works on it: it comes due again after as long, and whoever holds it keeps it."""
    rig.sealed(1, "uid1")
    rig.submitting(1, "uid2")
    held = rig.claim("uid2")
    rig.store.write("zadd", rig.keys.due(LANE), {"uid1": 0, "uid2": 1})
    passed_over = (State.ENDED, State.SUBMITTING)
    claims = rig.ledger.batches.claim(LANE, limit=10, lease=60.0, passing_over=passed_over)
    assert [claim.uid for claim in claims] == ["uid1"]
    assert rig.due_in("uid2") == pytest.approx(60, abs=5)
    assert rig.ledger.batches.renew(held, 60.0)


def test_a_record_that_is_gone_is_not_due_for_ever(rig: Rig) -> None:
    """Somebody deleted it by hand: its place in the queue goes too."""
    rig.sealed(1)
    rig.claim()
    rig.store.write("delete", rig.keys.batch(LANE, "uid1"))
    rig.store.write("zadd", rig.keys.due(LANE), {"uid1": 0})
    assert rig.ledger.batches.claim(LANE, limit=10, lease=60.0) == []
    assert rig.ledger.batches.live(LANE) == []
    assert rig.store.read("hgetall", rig.keys.fences(LANE)) == {}
    rig.store.write("zrem", rig.keys.unposted(LANE), "uid1")


def test_a_renewed_lease_ends_later(rig: Rig) -> None:
    """By the server's clock, counted from now."""
    rig.sealed(1)
    claim = rig.claim()
    assert rig.ledger.batches.renew(claim, 600.0)
    assert rig.due_in() == pytest.approx(600, abs=5)


def test_a_lost_lease_is_not_renewed(rig: Rig) -> None:
    """Somebody else has claimed the batch since; their time is left alone."""
    rig.sealed(1)
    lost = rig.claim()
    rig.claim()
    before = dump(rig.store)
    assert not rig.ledger.batches.renew(lost, 600.0)
    assert dump(rig.store) == before


def test_the_lease_of_a_batch_that_is_settled_does_not_bring_it_back(rig: Rig) -> None:
    """A late renewal finds neither fence nor place in the queue."""
    rig.fill(1)
    rig.seal()
    batch, claim = rig.deliver()
    assert rig.finish(batch, claim.fence, retention=60, dead_before=0) == "OK"
    assert not rig.ledger.batches.renew(claim, 600.0)
    assert rig.ledger.batches.live(LANE) == []


def test_a_keeper_renews_until_its_block_ends(rig: Rig) -> None:
    """A long step keeps its batch for as long as it works on it."""
    rig.sealed(1)
    claim = rig.claim()
    leases = Leases(rig.ledger.batches, 0.05, threading.Event())
    with leases.keep(claim) as lease:
        rig.store.write("zadd", rig.keys.due(LANE), {"uid1": 0})
        wait_until(lambda: rig.store.read("zscore", rig.keys.due(LANE), "uid1") > 0, "the lease is renewed")
        lease.check()
    assert not [thread for thread in threading.enumerate() if thread.name == "lease-uid1"]


def test_a_keeper_says_when_its_lease_is_lost(rig: Rig) -> None:
    """The step stops working on what is somebody else's now."""
    rig.sealed(1)
    claim = rig.claim()
    rig.claim()

    def lost() -> bool:
        try:
            lease.check()
        except LostLeaseError:
            return True
        return False

    with Leases(rig.ledger.batches, 0.03, threading.Event()).keep(claim) as lease:
        wait_until(lost, "the keeper notices")


def test_a_keeper_interrupts_its_step_when_the_process_stops(rig: Rig) -> None:
    """The batch is handed over instead of being finished."""
    rig.sealed(1)
    stopping = threading.Event()
    with Leases(rig.ledger.batches, 60.0, stopping).keep(rig.claim()) as lease:
        lease.check()
        stopping.set()
        with pytest.raises(StoppingError):
            lease.check()

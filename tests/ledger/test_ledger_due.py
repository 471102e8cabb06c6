"""When a batch is looked at again: hastened, kept, given up, and who was told so last."""

import threading
from typing import Any

import pytest
from ledger_rig import LANE, Rig, wait_until

from worker.core.model import Claim
from worker.ledger.barrier import NotDurableError
from worker.ledger.batches import Batches
from worker.ledger.lease import Leases
from worker.ledger.store import LedgerFullError, LedgerRefusedError, LedgerUnavailableError


def test_what_waits_sealed_is_hastened_and_nothing_else(rig: Rig) -> None:
    """The lane was resumed: what it kept back may go, and what is at the API is polled when it was to be."""
    for uid, make in (("uid1", rig.sealed), ("uid2", rig.in_progress)):
        make(1, uid)
        rig.store.write("zadd", rig.keys.due(LANE), {uid: (rig.store.now() + 300) * 1000})
    rig.ledger.batches.hasten(LANE)
    assert rig.due_in("uid1") <= 0
    assert rig.due_in("uid2") == pytest.approx(300, abs=5)
    rig.ledger.batches.hasten("a lane without batches")


def test_the_fence_of_a_batch_is_that_of_its_last_claim(rig: Rig) -> None:
    """None was given out for one that nobody has claimed."""
    batch = rig.sealed(1)
    assert rig.ledger.batches.fence(batch) == ""
    assert rig.claim().fence == rig.ledger.batches.fence(batch)
    assert rig.claim().fence == rig.ledger.batches.fence(batch)


def test_only_claims_that_stand_are_fresh(rig: Rig) -> None:
    """A knock waited for longer than a lease, and another replica has taken the batch since."""
    for uid in ("uid1", "uid2"):
        rig.sealed(1, uid)
    lost, kept = rig.claim("uid1"), rig.claim("uid2")
    rig.claim("uid1")
    leases = Leases(rig.ledger.batches, 600.0, threading.Event())
    assert list(leases.fresh([lost, kept])) == [kept]
    assert rig.due_in("uid2") == pytest.approx(600, abs=5)


@pytest.mark.parametrize(
    "trouble", [LedgerUnavailableError("away"), LedgerFullError("full"), LedgerRefusedError("refused")]
)
def test_a_keeper_outlives_trouble_of_redis(rig: Rig, monkeypatch: pytest.MonkeyPatch, trouble: Exception) -> None:
    """The lease is not lost by it, and is renewed as soon as that is possible again."""
    rig.sealed(1)
    claim = rig.claim()
    tries: list[Claim] = []
    renew = Batches.renew

    def troubled(batches: Batches, claim: Claim, lease: float) -> bool:
        tries.append(claim)
        if len(tries) < 3:
            raise trouble
        return renew(batches, claim, lease)

    monkeypatch.setattr(Batches, "renew", troubled)
    rig.store.write("zadd", rig.keys.due(LANE), {"uid1": 0})
    with Leases(rig.ledger.batches, 0.03, threading.Event()).keep(claim) as lease:
        wait_until(lambda: rig.store.read("zscore", rig.keys.due(LANE), "uid1") > 0, "the lease is renewed")
        lease.check()
    assert len(tries) >= 3


def test_what_was_written_before_is_brought_to_disk(rig: Rig) -> None:
    """By one write more, which is as durable as the barrier can make it, or is said not to be."""
    written: list[str] = []

    def durably(write: Any) -> str:
        written.append(write(None))
        return written[-1]

    rig.ledger.deployment.sync(durably, at=5.0)
    assert written == ["OK"]
    assert rig.ledger.deployment.recall("synced_at") == "5.0"

    def in_vain(_write: Any) -> str:
        raise NotDurableError

    with pytest.raises(NotDurableError):
        rig.ledger.deployment.sync(in_vain, at=6.0)
    assert rig.ledger.deployment.recall("synced_at") == "5.0"

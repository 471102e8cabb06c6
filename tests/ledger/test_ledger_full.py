"""A Redis at maxmemory: it refuses new prompts, and still finishes what it has."""

from collections.abc import Callable

import pytest
from ledger_rig import GOOD, LANE, Rig, dump, settlement

from worker.core.grouping import cut_in_two
from worker.core.intake import Flaw
from worker.core.lifecycle import Event
from worker.core.model import Claim, State
from worker.ledger.store import LedgerFullError, Value


def fill_up(rig: Rig) -> None:
    """Take all free memory away; even the scripts have to be loaded anew."""
    rig.store.write("script_flush")
    rig.store.write("config_set", "maxmemory", "1mb")


def claim_now(rig: Rig, uid: str = "uid1") -> Claim:
    """Claim a batch by scripts alone: a plain command that makes it due would be refused."""
    rig.ledger.batches.advance(rig.batch(uid), None, delay=0.0)
    (claim,) = (one for one in rig.ledger.batches.claim(LANE, limit=10, lease=60.0) if one.uid == uid)
    return claim


def test_a_producer_is_refused(real_rig: Rig) -> None:
    """Both ways in: the prompt stays with its producer, who tries later."""
    fill_up(real_rig)
    before = dump(real_rig.store)
    with pytest.raises(LedgerFullError):
        real_rig.add()
    named: dict[str, Value] = {
        "prompts": real_rig.keys.prompts(LANE),
        "dedupe": real_rig.keys.dedupe(LANE, "order-42"),
        "waiting": real_rig.keys.waiting,
        "lane": LANE,
        "name": "order-42",
        "dedupe_seconds": 60,
        "limit_bytes": "",
    }
    (answer,) = real_rig.store.run_many("enqueue", [(named, ["params", GOOD, "id", "order-42"])])
    assert isinstance(answer, LedgerFullError)
    assert dump(real_rig.store) == before


def test_a_batch_goes_all_the_way_through_a_full_redis(real_rig: Rig) -> None:
    """Sealed, claimed, posted, accepted, ended, delivered, settled, finished: which is what frees the memory."""
    rig = real_rig
    entries = rig.fill(4)
    broken = rig.add(params=b"{")
    fill_up(rig)
    rig.seal()
    claim = claim_now(rig)
    assert rig.ledger.batches.renew(claim, 60.0)
    assert rig.ledger.deployment.reserve(LANE, "uid1", 4, 100)
    assert rig.submit(rig.batch(), claim.fence) == "OK"
    assert rig.accept(rig.batch()) == "OK"
    claim = claim_now(rig)
    ended = rig.ledger.batches.end(rig.batch(), Event.END, fence=claim.fence, ended_at=None, max_attempts=3)
    assert ended == "OK"
    claim = claim_now(rig)
    assert rig.ledger.batches.commit(rig.batch(), "results", fence=claim.fence) == "OK"
    assert rig.ledger.batches.advance(rig.batch(), Event.DELIVER, fence=claim.fence, delay=None) == "OK"
    fates = [
        *(settlement(entry) for entry in entries[:2]),
        settlement(entries[2], "retry", 2, "expired"),
        settlement(entries[3], "bury", 1, "canceled"),
        settlement(broken, "bury", 1, "not_json"),
    ]
    assert rig.ledger.prompts.describe(LANE, entries) == [{}] * 4
    assert rig.ledger.prompts.settle(rig.batch(), fates, fence=claim.fence, now=1.0)
    assert rig.finish(rig.batch(), claim.fence, retention=60, dead_before=0) == "OK"
    assert rig.batch().state is State.SETTLED
    assert rig.ledger.lanes.length(LANE) == 1
    assert rig.store.read("xlen", rig.keys.dead(LANE)) == 2


def test_a_doubt_can_be_ended_in_a_full_redis(real_rig: Rig) -> None:
    """Adopted, split, ejected, given back: none of it waits for memory."""
    rig = real_rig
    entries = rig.fill(4)
    rig.seal()
    fill_up(rig)
    parts = cut_in_two([(entry, 100) for entry in entries], 1)
    assert rig.ledger.batches.split(rig.batch(), parts, "tail", fence=claim_now(rig).fence, probe=True, delay=0) == "OK"
    ejected = rig.ledger.batches.eject(
        rig.batch("tail"), entries[1], Flaw.REFUSED, 200, fence=claim_now(rig, "tail").fence
    )
    assert ejected == "OK"
    claim = claim_now(rig)
    assert rig.submit(rig.batch(), claim.fence) == "OK"
    doubtful = rig.batch()
    assert rig.ledger.batches.advance(doubtful, None, delay=None, doubt="lost", doubt_at="5.0") == "OK"
    assert rig.ledger.batches.advance(doubtful, Event.ABSENT, fence=claim.fence, unposted=1) == "OK"


MARKS: dict[str, Callable[[Rig], object]] = {
    "pause": lambda rig: rig.ledger.lanes.pause(LANE, "why"),
    "resume": lambda rig: rig.ledger.lanes.resume(LANE),
    "park": lambda rig: rig.ledger.lanes.park(LANE, "billing", 0.0),
    "probe": lambda rig: rig.ledger.lanes.may_probe(LANE, 60.0),
    "flush": lambda rig: rig.ledger.lanes.flush(LANE),
    "recovery": lambda rig: rig.ledger.lanes.begin_recovery(LANE, "life"),
    "recovered": lambda rig: rig.recover(),
    "enter": lambda rig: rig.ledger.deployment.enter("abc234"),
    "note": lambda rig: rig.ledger.deployment.note(workspace_id="x"),
    "waiting": lambda rig: rig.ledger.deployment.record_waiting({LANE: 5}),
    "sweep": lambda rig: rig.ledger.deployment.sweep_in_flight(),
    "drop": lambda rig: rig.ledger.dead_letters.drop(LANE, ["1-1"]),
}


@pytest.mark.parametrize("mark", MARKS)
def test_marks_can_be_set_in_a_full_redis(real_rig: Rig, mark: str) -> None:
    """An operator can pause it, and every replica can go on telling the others what it sees."""
    real_rig.fill(1)
    fill_up(real_rig)
    MARKS[mark](real_rig)


def test_memory_that_was_freed_is_free(real_rig: Rig) -> None:
    """The refusal is of the moment."""
    fill_up(real_rig)
    with pytest.raises(LedgerFullError):
        real_rig.add()
    real_rig.store.write("config_set", "maxmemory", "0")
    assert real_rig.add()

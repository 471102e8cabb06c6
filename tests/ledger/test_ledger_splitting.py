import pytest
from ledger_rig import LANE, Rig, dump

from worker.core.grouping import ENVELOPE_BYTES, cut_in_two, request_bytes
from worker.core.intake import Flaw
from worker.core.model import Batch, State


def split(rig: Rig, batch: Batch, head_count: int, fence: str, *, probe: bool = False) -> str:
    """Cut a batch as the submitter does, from its entries and its note."""
    flaws = rig.ledger.prompts.unusable(batch)
    requests = [
        (entry_id.decode(), None if entry_id.decode() in flaws else request_bytes(entry_id.decode(), fields[b"params"]))
        for entry_id, fields in rig.ledger.prompts.entries(batch)
    ]
    parts = cut_in_two(requests, head_count)
    return rig.ledger.batches.split(batch, parts, "tail", fence=fence, probe=probe, delay=20.0)


def test_a_batch_cut_in_two_is_two_batches(rig: Rig) -> None:
    """The head keeps the uid, the tail gets one of its own; together they are the range, prompt for prompt."""
    entries = rig.fill(5)
    batch = rig.seal()
    claim = rig.claim()
    assert split(rig, batch, 2, claim.fence) == "OK"
    head, tail = rig.batch(), rig.batch("tail")
    assert (head.first, head.last, head.entries, head.count) == (entries[0], entries[1], 2, 2)
    assert (tail.first, tail.last, tail.entries, tail.count) == (entries[2], entries[4], 3, 3)
    assert head.bytes + tail.bytes == batch.bytes + ENVELOPE_BYTES - 1
    assert (head.probe, tail.probe) == (False, False)
    assert rig.ledger.lanes.taken_counts([LANE]) == {2, 3}
    assert sorted(rig.ledger.batches.live(LANE)) == ["tail", "uid1"]
    assert rig.due_in() == pytest.approx(0, abs=5)
    assert rig.due_in("tail") == pytest.approx(20, abs=5)
    assert not rig.ledger.batches.renew(claim, 60.0)


def test_the_tail_inherits_what_the_batch_was(rig: Rig) -> None:
    """When it was sealed and why, how often it was tried, its deadline."""
    rig.add(deadline=b"1795352400")
    rig.fill(2)
    rig.seal()
    batch = rig.put("uid1", State.SEALED, attempt="2", failures="1")
    assert split(rig, batch, 1, rig.claim().fence) == "OK"
    head, tail = rig.batch(), rig.batch("tail")
    for part in (head, tail):
        assert (part.state, part.trigger, part.sealed_at) == (State.SEALED, batch.trigger, batch.sealed_at)
        assert (part.attempt, part.failures, part.deadline) == (2, 1, batch.deadline)


def test_each_part_knows_its_unusable_entries(rig: Rig) -> None:
    """The note is copied whole, and each reads what lies in its range."""
    rig.add()
    early = rig.add(params=b"{")
    rig.add()
    late = rig.add(params=b"[]")
    batch = rig.seal()
    assert split(rig, batch, 1, rig.claim().fence) == "OK"
    assert rig.ledger.prompts.unusable(rig.batch()) == {}
    assert rig.ledger.prompts.unusable(rig.batch("tail")) == {early: Flaw.NOT_JSON, late: Flaw.NOT_AN_OBJECT}
    assert (rig.batch("tail").entries, rig.batch("tail").count) == (3, 1)


def test_the_head_may_be_a_parked_lanes_probe(rig: Rig) -> None:
    """One prompt goes ahead; the tail is none."""
    batch = rig.sealed(3)
    assert split(rig, batch, 1, rig.claim().fence, probe=True) == "OK"
    assert (rig.batch().probe, rig.batch("tail").probe) == (True, False)


@pytest.mark.parametrize("state", [State.SUBMITTING, State.IN_PROGRESS, State.HELD])
def test_only_a_sealed_batch_is_cut(rig: Rig, state: State) -> None:
    """What may be with the API stays as it was sent."""
    batch = rig.sealed(3)
    rig.put("uid1", state)
    fence = rig.claim().fence
    before = dump(rig.store)
    assert split(rig, batch, 1, fence) == "STALE"
    assert dump(rig.store) == before


def test_a_cut_needs_the_claim_and_the_attempt(rig: Rig) -> None:
    """Otherwise two could cut it at two places."""
    batch = rig.sealed(3)
    lost = rig.claim()
    held = rig.claim()
    before = dump(rig.store)
    assert split(rig, batch, 1, lost.fence) == "STALE"
    assert dump(rig.store) == before
    rig.put("uid1", State.SEALED, attempt="1")
    before = dump(rig.store)
    assert split(rig, batch, 1, held.fence) == "STALE"
    assert dump(rig.store) == before


def eject(rig: Rig, batch: Batch, entry_id: str, fence: str) -> str:
    """Take one prompt out."""
    return rig.ledger.batches.eject(batch, entry_id, Flaw.REFUSED, batch.bytes - 100, fence=fence)


def test_an_ejected_prompt_stays_in_the_range_and_leaves_the_body(rig: Rig) -> None:
    """The API named it; its neighbours are posted without it, at once, and it is buried with them."""
    entries = rig.fill(3)
    batch = rig.seal()
    claim = rig.claim()
    assert eject(rig, batch, entries[1], claim.fence) == "OK"
    after = rig.batch()
    assert (after.entries, after.count, after.bytes) == (3, 2, batch.bytes - 100)
    assert (after.first, after.last, after.state) == (batch.first, batch.last, State.SEALED)
    assert rig.ledger.prompts.unusable(after) == {entries[1]: Flaw.REFUSED}
    assert rig.ledger.lanes.taken_counts([LANE]) == {2}
    assert rig.due_in() == pytest.approx(0, abs=5)
    assert not rig.ledger.batches.renew(claim, 60.0)


def test_ejecting_needs_the_claim_the_state_and_the_attempt(rig: Rig) -> None:
    """Whoever posts it meanwhile posts it whole."""
    entries = rig.fill(3)
    batch = rig.seal()
    lost = rig.claim()
    held = rig.claim()
    before = dump(rig.store)
    assert eject(rig, batch, entries[1], lost.fence) == "STALE"
    assert dump(rig.store) == before
    for changed in ({"state": State.SUBMITTING}, {"state": State.SEALED, "attempt": "1"}):
        rig.store.write("hset", rig.keys.batch(LANE, "uid1"), mapping=changed)
        before = dump(rig.store)
        assert eject(rig, batch, entries[1], held.fence) == "STALE"
        assert dump(rig.store) == before

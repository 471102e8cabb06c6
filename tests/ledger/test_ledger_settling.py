import pytest
from ledger_rig import GOOD, LANE, Rig, dump, settlement

from worker.core.intake import Flaw, read_prompt
from worker.core.model import Prompt, State
from worker.core.rulings import Ruling
from worker.ledger.prompts import SETTLE_CHUNK

NOW = 1_795_349_000.125
DEAD_KEYS = ["batchmill.reason", "batchmill.buried_at", "batchmill.batch", "batchmill.entry_id"]


def lane_entries(rig: Rig) -> list[tuple[str, dict[bytes, bytes]]]:
    """Return what is in the lane's stream."""
    return [(entry.decode(), fields) for entry, fields in rig.store.read("xrange", rig.keys.prompts(LANE))]


def dead_entries(rig: Rig) -> list[dict[bytes, bytes]]:
    """Return the lane's dead letters."""
    return [fields for _, fields in rig.store.read("xrange", rig.keys.dead(LANE))]


def lane_field(rig: Rig, name: str) -> int:
    """Return a number from the lane's record."""
    return int(rig.store.read("hget", rig.keys.lane(LANE), name) or 0)


def settle_one(rig: Rig, settled: tuple[str, Ruling]) -> None:
    """Settle one prompt of a delivered batch."""
    batch, claim = rig.deliver()
    assert rig.ledger.prompts.settle(batch, [settled], fence=claim.fence, now=NOW)


def test_a_settled_prompt_leaves_the_lane(rig: Rig) -> None:
    """Its entry is deleted, and the lane no longer counts it as sealed."""
    entries = rig.fill(3)
    rig.seal()
    waiting = rig.add()
    assert lane_field(rig, "sealed_entries") == 3
    batch, claim = rig.deliver()
    settled = [settlement(entry) for entry in entries]
    assert rig.ledger.prompts.settle(batch, settled, fence=claim.fence, now=NOW)
    assert [entry for entry, _ in lane_entries(rig)] == [waiting]
    assert lane_field(rig, "sealed_entries") == 0
    assert dead_entries(rig) == []


def test_a_retried_prompt_keeps_its_name_and_its_time(rig: Rig) -> None:
    """It comes again as a new entry, one attempt on, with every field of the producer's."""
    old = rig.add(metadata=b"[1]", priority=b"\xff")
    rig.seal()
    settle_one(rig, settlement(old, "retry", 2, "expired"))
    ((entry, fields),) = lane_entries(rig)
    assert entry != old
    assert fields[b"priority"] == b"\xff"
    prompt = read_prompt(entry, fields, 1000)
    milliseconds = int(old.partition("-")[0])
    assert prompt == Prompt(
        entry_id=entry, id=old, params=GOOD, attempt=2, enqueued_at=milliseconds / 1000, metadata=b"[1]"
    )
    assert (lane_field(rig, "requeued"), lane_field(rig, "sealed_entries")) == (1, 0)
    assert rig.window().cut is not None


def test_a_prompt_retried_again_is_still_the_first_one(rig: Rig) -> None:
    """Name and time are those of the very first entry, the attempt is the newest and stands there once."""
    first = rig.add(id="order-42")
    rig.seal("uid1")
    settle_one(rig, settlement(first, "retry", 2, "expired"))
    ((second, _),) = lane_entries(rig)
    rig.seal("uid2")
    batch, claim = rig.deliver("uid2")
    assert rig.ledger.prompts.settle(batch, [settlement(second, "retry", 3, "expired")], fence=claim.fence, now=NOW)
    ((third, fields),) = lane_entries(rig)
    prompt = read_prompt(third, fields, 1000)
    assert isinstance(prompt, Prompt)
    assert (prompt.id, prompt.attempt) == ("order-42", 3)
    assert prompt.enqueued_at == int(first.partition("-")[0]) / 1000
    words = "return #redis.call('XRANGE', KEYS[1], '-', '+')[1][2]"
    assert rig.store.write("eval", words, 1, rig.keys.prompts(LANE)) == 2 * len(fields) == 8


def test_a_buried_prompt_becomes_a_dead_letter(rig: Rig) -> None:
    """Why, when, from which batch and entry, and everything that a redrive needs."""
    entry = rig.add(id="order-42", metadata=b"{}")
    rig.seal()
    settle_one(rig, settlement(entry, "bury", 3, "not_found_error"))
    assert lane_entries(rig) == []
    (letter,) = dead_entries(rig)
    assert {name: letter[name.encode()].decode() for name in DEAD_KEYS} == {
        "batchmill.reason": "not_found_error",
        "batchmill.buried_at": "1795349000.125",
        "batchmill.batch": "uid1",
        "batchmill.entry_id": entry,
    }
    assert (letter[b"id"], letter[b"params"], letter[b"metadata"]) == (b"order-42", GOOD, b"{}")
    assert letter[b"batchmill.attempt"] == b"3"
    assert lane_field(rig, "requeued") == 0


@pytest.mark.parametrize("fate", ["", "retry", "bury"])
def test_a_repeated_chunk_is_harmless(rig: Rig, fate: str) -> None:
    """After a crash between two chunks the first comes again: what is gone was settled before."""
    entries = rig.fill(3)
    rig.seal()
    batch, claim = rig.deliver()
    chunk = [settlement(entry, fate, 2, "why") for entry in entries]
    assert rig.ledger.prompts.settle(batch, chunk, fence=claim.fence, now=NOW)
    before = dump(rig.store)
    assert rig.ledger.prompts.settle(batch, chunk, fence=claim.fence, now=NOW)
    assert dump(rig.store) == before


def test_a_chunk_that_is_half_settled_is_finished(rig: Rig) -> None:
    """Each prompt by itself: the one that is gone is skipped, the other still gets its outcome, once."""
    entries = rig.fill(2)
    rig.seal()
    batch, claim = rig.deliver()
    chunk = [settlement(entry, "retry", 2, "expired") for entry in entries]
    rig.ledger.prompts.settle(batch, chunk[:1], fence=claim.fence, now=NOW)
    rig.ledger.prompts.settle(batch, chunk, fence=claim.fence, now=NOW)
    assert len(lane_entries(rig)) == 2
    assert (lane_field(rig, "requeued"), lane_field(rig, "sealed_entries")) == (2, 0)


@pytest.mark.parametrize("state", [state for state in State if state is not State.DELIVERED])
def test_only_a_delivered_batch_is_settled(rig: Rig, state: State) -> None:
    """Before every sink has the rows, no entry may go."""
    entries = rig.fill(2)
    rig.seal()
    batch = rig.put("uid1", state)
    claim = rig.claim()
    before = dump(rig.store)
    assert not rig.ledger.prompts.settle(batch, [settlement(entries[0])], fence=claim.fence, now=NOW)
    assert dump(rig.store) == before


def test_settling_needs_the_claim(rig: Rig) -> None:
    """Somebody else is settling these prompts by now."""
    entries = rig.fill(2)
    rig.seal()
    batch, lost = rig.deliver()
    rig.claim()
    before = dump(rig.store)
    assert not rig.ledger.prompts.settle(batch, [settlement(entries[0], "retry", 2)], fence=lost.fence, now=NOW)
    assert dump(rig.store) == before


def test_more_prompts_than_a_chunk_are_settled_in_several(rig: Rig) -> None:
    """No script handles more than a few hundred, so nobody else waits long."""
    count = SETTLE_CHUNK + 5
    entries = rig.fill(count)
    rig.seal()
    batch, claim = rig.deliver()
    settlements = [settlement(entry, "retry" if number % 2 else "", 2) for number, entry in enumerate(entries)]
    assert rig.ledger.prompts.settle(batch, settlements, fence=claim.fence, now=NOW)
    assert len(lane_entries(rig)) == count // 2
    assert lane_field(rig, "sealed_entries") == 0


@pytest.mark.parametrize("fate", ["retry", "bury"])
def test_an_entry_with_thousands_of_fields_is_settled_like_any_other(rig: Rig, fate: str) -> None:
    """Lua cannot unpack them all; a script that failed on them would retry its neighbours for ever."""
    neighbour = rig.add()
    fields = {"params": GOOD} | {f"note-{number}": "x" for number in range(6000)}
    entry = rig.store.write("xadd", rig.keys.prompts(LANE), fields).decode()
    rig.seal()
    batch, claim = rig.deliver()
    chunk = [settlement(neighbour, "retry", 2), settlement(entry, fate, 2, "why")]
    for _ in range(2):
        assert rig.ledger.prompts.settle(batch, chunk, fence=claim.fence, now=NOW)
    kept = [*lane_entries(rig), *((None, letter) for letter in dead_entries(rig))]
    assert [letter[b"params"] for _, letter in kept] == [GOOD, GOOD]
    assert kept[1][1][b"id"] == entry.encode()


def test_fields_that_only_we_may_write_are_not_taken_from_a_producer(rig: Rig) -> None:
    """A made-up date of burial would make the list of dead letters unreadable."""
    forged = {"batchmill.buried_at": "soon", "batchmill.reason": "fun", "batchmill.attempt": "x" * 50}
    entry = rig.add(**forged)
    rig.seal()
    settle_one(rig, settlement(entry, "bury", 1, "canceled"))
    (letter,) = rig.ledger.dead_letters.list(LANE)
    assert (letter.reason, letter.buried_at, letter.attempt) == ("canceled", 1_795_349_000.125, 1)


def test_a_finished_batch_stays_readable_for_a_while(rig: Rig) -> None:
    """Its record and its note expire, nothing else of it is left but its place among the settled."""
    rig.add(params=b"{")
    entry = rig.add()
    rig.seal()
    rig.store.write("zadd", rig.keys.unposted(LANE), {"uid1": 1})
    rig.put("uid1", State.DELIVERED)
    batch, claim = rig.batch(), rig.claim()
    rig.ledger.prompts.settle(batch, [settlement(batch.first), settlement(entry)], fence=claim.fence, now=NOW)
    assert rig.finish(batch, claim.fence, retention=500, dead_before=0) == "OK"
    after = rig.batch()
    assert after.state is State.SETTLED
    assert after.settled_at == pytest.approx(rig.store.now(), abs=5)
    for key in (rig.keys.batch(LANE, "uid1"), rig.keys.unusable(LANE, "uid1")):
        assert 490 < rig.store.read("ttl", key) <= 500
    assert rig.ledger.batches.live(LANE) == []
    assert rig.ledger.lanes.marks(LANE).unposted == 0
    assert rig.store.read("hgetall", rig.keys.fences(LANE)) == {}
    assert rig.ledger.reads.settled(LANE, 10) == [after]


def test_what_has_prompts_left_is_not_finished(rig: Rig) -> None:
    """Redis may have forgotten that they were settled: behind the cursor they would lie for ever, or be sent again."""
    batch, claim = rig.delivered()
    before = dump(rig.store)
    assert rig.ledger.batches.finish(batch, fence=claim.fence, retention=500, dead_before=0) == "LEFT"
    assert dump(rig.store) == before
    entries = [entry_id.decode() for entry_id, _ in rig.ledger.prompts.entries(batch)]
    for entry_id in entries:
        assert rig.ledger.batches.finish(batch, fence=claim.fence, retention=500, dead_before=0) == "LEFT"
        rig.ledger.prompts.settle(batch, [settlement(entry_id, "retry", 2, "why")], fence=claim.fence, now=0.0)
    assert rig.ledger.batches.finish(batch, fence=claim.fence, retention=500, dead_before=0) == "OK"
    assert rig.ledger.lanes.length(LANE) == len(entries)


def test_finishing_twice_finishes_once(rig: Rig) -> None:
    """A lost reply is asked for again, and says that it is done."""
    batch, claim = rig.delivered()
    rig.finish(batch, claim.fence, retention=500, dead_before=0)
    before = dump(rig.store)
    assert rig.finish(batch, claim.fence, retention=9, dead_before=0) == "MINE"
    assert dump(rig.store) == before


def test_finishing_needs_the_claim_and_the_delivery(rig: Rig) -> None:
    """Neither somebody else's batch is closed nor one whose rows are not out."""
    batch, lost = rig.delivered()
    held = rig.claim()
    before = dump(rig.store)
    assert rig.finish(batch, lost.fence, retention=9, dead_before=0) == "STALE"
    assert dump(rig.store) == before
    rig.put("uid1", State.ENDED)
    assert rig.finish(batch, held.fence, retention=9, dead_before=0) == "STALE"


def test_the_list_of_the_settled_is_no_longer_than_retention(rig: Rig) -> None:
    """Each settling drops those whose records have expired."""
    rig.store.write("zadd", rig.keys.settled(LANE), {"old": 1000, "young": (rig.store.now() - 30) * 1000})
    batch, claim = rig.delivered()
    rig.finish(batch, claim.fence, retention=60, dead_before=0)
    assert rig.store.read("zrange", rig.keys.settled(LANE), 0, -1) == [b"young", b"uid1"]


def test_only_entries_of_the_range_are_its_prompts(rig: Rig) -> None:
    """What was sealed before and what came after are others'; more than a page is read in pages."""
    rig.sealed(2, "uid1")
    entries = rig.fill(505)
    batch = rig.seal("uid2")
    rig.fill(2)
    assert [entry.decode() for entry, _ in rig.ledger.prompts.entries(batch)] == entries


def test_a_description_leaves_the_bulk_out(rig: Rig) -> None:
    """Params are the bulk; a field longer than any that is allowed is left out too, and what is gone is None."""
    entries = [rig.add(id="a", metadata=b"[1]"), rig.add(junk=b"x" * 70_000), *rig.fill(500)]
    described = rig.ledger.prompts.describe(LANE, [*entries, "1-1"])
    assert described[:2] == [{b"id": b"a", b"metadata": b"[1]"}, {}]
    assert described[2:] == [{}] * 500 + [None]


def test_a_note_of_another_part_of_the_range_is_not_this_batchs(rig: Rig) -> None:
    """After a split both parts carry the whole note, and each reads its own."""
    first = rig.add(params=b"{")
    rig.add()
    last = rig.add(params=b"{")
    batch = rig.seal()
    assert set(rig.ledger.prompts.unusable(batch)) == {first, last}
    rig.store.write("hset", rig.keys.unusable(LANE, "uid1"), "1-0", Flaw.EMPTY.value)
    assert set(rig.ledger.prompts.unusable(batch)) == {first, last}


@pytest.mark.parametrize("fate", ["retry", "bury"])
def test_what_makes_a_prompt_comes_along_wherever_it_stands(rig: Rig, fate: str) -> None:
    """Behind thousands of a producer's own fields, or twice: a retry sends what the first attempt had sent."""
    notes = [word for number in range(3000) for word in (f"note-{number}", "x")]
    words = ["params", "{", *notes, "params", GOOD, "id", "order-42", "metadata", "[1]", "params", GOOD]
    entry = rig.store.write("execute_command", "XADD", rig.keys.prompts(LANE), "*", *words).decode()
    assert rig.seal().count == 1
    settle_one(rig, settlement(entry, fate, 2, "expired"))
    kept = [*(fields for _, fields in lane_entries(rig)), *dead_entries(rig)]
    assert [(fields[b"params"], fields[b"id"], fields[b"metadata"]) for fields in kept] == [(GOOD, b"order-42", b"[1]")]


def test_a_description_holds_nothing_but_what_a_row_needs(rig: Rig) -> None:
    """Five hundred entries with thousands of fields each would come over all at once."""
    notes = [word for number in range(3000) for word in (f"note-{number}", "x" * 100)]
    words = ["id", "a", *notes, "params", GOOD, "batchmill.attempt", "2", "batchmill.x", "y", "id", "b"]
    entry = rig.store.write("execute_command", "XADD", rig.keys.prompts(LANE), "*", *words).decode()
    assert rig.ledger.prompts.describe(LANE, [entry]) == [{b"id": b"b", b"batchmill.attempt": b"2"}]


def test_what_doubt_has_noted_goes_with_it(rig: Rig) -> None:
    """A record is kept for days; the candidates that somebody else's batches were would be most of it."""
    batch = rig.submitting()
    noted = {"seen": "msgbatch_8 msgbatch_9", "ruled_out": "msgbatch_7", "closed": "1"}
    rig.store.write("hset", rig.keys.batch(LANE, batch.uid), mapping=noted)
    assert rig.accept(batch) == "OK"
    accepted = rig.batch()
    assert (accepted.seen, accepted.ruled_out, accepted.closed) == (frozenset(), frozenset(), False)
    rig.store.write("hset", rig.keys.batch(LANE, batch.uid), mapping=noted)
    delivered, claim = rig.deliver()
    assert rig.finish(delivered, claim.fence) == "OK"
    assert (rig.batch().seen, rig.batch().ruled_out) == (frozenset(), frozenset())

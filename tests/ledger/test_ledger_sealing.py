import pytest
from ledger_rig import GOOD, LANE, LIMITS, Rig, dump, leaks

from worker.core.grouping import Limits, Window
from worker.core.intake import Flaw
from worker.core.model import State, Trigger


def test_a_seal_turns_the_head_of_the_lane_into_a_batch(rig: Rig) -> None:
    """A record, a place in the queue of what is due, a reservation of its count; and the cursor stands behind it."""
    entries = rig.fill(3)
    window = rig.window()
    assert rig.try_seal("uid1", window) == "SEALED"
    batch = rig.batch()
    assert (batch.state, batch.first, batch.last) == (State.SEALED, entries[0], entries[-1])
    assert (batch.entries, batch.count, batch.attempt) == (3, 3, 0)
    assert window.cut is not None
    assert (batch.bytes, batch.trigger) == (window.cut.bytes, Trigger.FLUSH)
    assert batch.sealed_at == pytest.approx(rig.store.now(), abs=5)
    marks = rig.ledger.lanes.marks(LANE)
    assert (marks.cursor, marks.unposted) == (entries[-1], 1)
    assert rig.ledger.lanes.taken_counts([LANE]) == {3}
    assert rig.due_in() == pytest.approx(0, abs=5)
    assert rig.window().cut is None


def test_a_stale_decision_seals_nothing(rig: Rig) -> None:
    """Of two who saw the same window one seals it; the other changes nothing and looks again."""
    rig.fill(2)
    window = rig.window()
    assert rig.try_seal("uid1", window) == "SEALED"
    before = dump(rig.store)
    assert rig.try_seal("uid2", window) == "STALE"
    assert dump(rig.store) == before


def test_a_seal_whose_answer_was_lost_is_recognised(rig: Rig) -> None:
    """Asked again under the same uid it says MINE and seals nothing more."""
    rig.fill(2)
    window = rig.window()
    rig.try_seal("uid1", window)
    before = dump(rig.store)
    assert rig.try_seal("uid1", window) == "MINE"
    assert dump(rig.store) == before


def test_too_many_batches_in_doubt_let_the_window_grow(rig: Rig) -> None:
    """At max_unposted nothing more is sealed, whoever decided so with an older look."""
    rig.sealed(1, "uid1")
    rig.sealed(2, "uid2")
    rig.fill(3)
    before = dump(rig.store)
    assert rig.try_seal("uid3", rig.window(), max_unposted=2) == "FULL"
    assert dump(rig.store) == before
    assert rig.try_seal("uid3", rig.window(), max_unposted=3) == "SEALED"


def test_a_restarted_server_seals_nothing_before_it_has_recovered(rig: Rig) -> None:
    """Its data may be older than what was posted."""
    rig.fill(1)
    window = rig.window()
    rig.store.write("hset", rig.keys.lane(LANE), "incarnation", "another life")
    before = dump(rig.store)
    assert rig.try_seal("uid1", window) == "RECOVER"
    assert dump(rig.store) == before
    rig.recover()
    assert rig.try_seal("uid1", window) == "SEALED"


def test_recovery_itself_seals_in_a_lane_that_has_not_recovered(rig: Rig) -> None:
    """It puts back what the server has forgotten, before anybody else may decide."""
    rig.fill(1)
    window = rig.window()
    rig.store.write("hdel", rig.keys.lane(LANE), "incarnation")
    decision = rig.decide(window)
    assert rig.ledger.lanes.seal(LANE, "uid1", window, decision, max_unposted=8, recovered=False) == "SEALED"
    assert rig.ledger.lanes.seal(LANE, "uid2", window, decision, max_unposted=8, recovered=False) == "STALE"


def test_unusable_entries_are_noted_with_their_batch(rig: Rig) -> None:
    """They are in its range and not in its body, and the note lives as long as the batch."""
    rig.add()
    broken = rig.add(params=b"{")
    rig.add()
    batch = rig.seal()
    assert (batch.entries, batch.count) == (3, 2)
    assert rig.ledger.prompts.unusable(batch) == {broken: Flaw.NOT_JSON}
    assert rig.store.read("ttl", rig.keys.unusable(LANE, "uid1")) == -1


def test_a_note_without_its_seal_expires(rig: Rig) -> None:
    """A batcher that dies between the two leaves nothing behind for ever."""
    rig.ledger.lanes._note_unusable(LANE, "uid2", {"1-1": Flaw.NOT_JSON})
    assert 0 < rig.store.read("ttl", rig.keys.unusable(LANE, "uid2")) <= 3600


def test_a_seal_that_is_refused_takes_its_note_with_it(rig: Rig) -> None:
    """A lane that may not be sealed for a day is tried every second."""
    rig.add(params=b"{")
    window = rig.window()
    rig.try_seal("uid1", window)
    assert rig.try_seal("uid2", window) == "STALE"
    assert rig.store.read("exists", rig.keys.unusable(LANE, "uid1")) == 1
    assert rig.store.read("exists", rig.keys.unusable(LANE, "uid2")) == 0


def test_a_note_that_is_not_the_whole_note_seals_nothing(rig: Rig) -> None:
    """A half-written or expired note would put broken prompts into the body."""
    rig.add(params=b"{")
    rig.add()
    window = rig.window()
    rig.store.write("hset", rig.keys.unusable(LANE, "uid1"), "1-1", "empty")
    rig.store.write("expire", rig.keys.unusable(LANE, "uid1"), 100)
    assert rig.try_seal("uid1", window) == "STALE"
    assert rig.ledger.batches.get(LANE, "uid1") is None
    assert rig.try_seal("uid2", window) == "SEALED"


def test_a_note_longer_than_a_script_may_take_is_written_in_pieces(rig: Rig) -> None:
    """Thousands of broken prompts in a row are one batch like any other."""
    for _ in range(2100):
        rig.store.write("xadd", rig.keys.prompts(LANE), {"params": ""})
    batch = rig.seal(limits=Limits(10_000, 1_000_000, 300.0))
    assert (batch.entries, batch.count, len(rig.ledger.prompts.unusable(batch))) == (2100, 0, 2100)


def test_a_shorter_cut_leaves_the_rest_to_the_next_batch(rig: Rig) -> None:
    """Trimmed for a unique count, the cursor stands where the cut is, and so does the note."""
    entries = rig.fill(2)
    broken = rig.add(params=b"{")
    entries.append(rig.add())
    window = rig.window()
    decision = rig.decide(window, 2, 3)
    assert rig.ledger.lanes.seal(LANE, "uid1", window, decision, max_unposted=8) == "SEALED"
    first = rig.batch("uid1")
    assert (first.last, first.count, rig.ledger.prompts.unusable(first)) == (entries[0], 1, {})
    second = rig.seal("uid2")
    assert (second.first, second.last, second.entries) == (entries[1], entries[2], 3)
    assert rig.ledger.prompts.unusable(second) == {broken: Flaw.NOT_JSON}


def test_the_earliest_deadline_goes_into_the_record(rig: Rig) -> None:
    """Whoever puts the batch off can see what it costs."""
    rig.add(deadline=b"1795352400.5")
    rig.add(deadline=b"1795352300")
    assert rig.seal().deadline == 1_795_352_300.0
    rig.add()
    assert rig.seal("uid2").deadline is None


def test_a_window_reads_on_where_it_ended(rig: Rig) -> None:
    """Prompts that wait are read once, page by page, and none is skipped between two looks."""
    rig.fill(3)
    window = Window(after="0-0", limits=LIMITS)
    assert rig.ledger.lanes.extend(LANE, window) == 3
    rig.fill(450)
    assert rig.ledger.lanes.extend(LANE, window) == 450
    assert rig.ledger.lanes.extend(LANE, window) == 0
    assert window.cut is not None
    assert window.cut.count == 453


def test_a_window_stops_reading_when_it_is_full(rig: Rig) -> None:
    """A long lane is not read to its end for a small batch."""
    rig.fill(7)
    window = rig.window(Limits(5, 1_000_000, 300.0))
    assert window.cut is not None
    assert (window.cut.count, window.full) == (5, Trigger.COUNT)


def test_entries_between_two_ids_are_read_page_by_page(rig: Rig) -> None:
    """Recovery reads a range that no window covers; both ends are as asked."""
    entries = rig.fill(405)
    read = [entry for entry, _ in rig.ledger.lanes.between(LANE, "0-0", entries[-1])]
    assert read == entries
    read = [entry for entry, _ in rig.ledger.lanes.between(LANE, entries[0], f"({entries[3]}")]
    assert read == entries[1:3]


def test_lanes_are_sealed_apart(rig: Rig) -> None:
    """A cursor, a queue of what is due and a reservation for each."""
    other = Rig(rig.ledger, lane="reports")
    other.recover()
    rig.sealed(2)
    other.sealed(5)
    assert rig.ledger.lanes.taken_counts([LANE, "reports"]) == {2, 5}
    assert rig.ledger.batches.live(LANE) == rig.ledger.batches.live("reports") == ["uid1"]
    assert (rig.batch().count, other.batch().count) == (2, 5)


def test_the_leak_detector_finds_a_leak(rig: Rig) -> None:
    """A key that nobody declared, a record without a batch, a fence without one: each is reported."""
    rig.sealed(1)
    assert leaks(rig.store) == []
    rig.store.write("set", "batchmill:{default}:scratch", "x")
    rig.store.write("hset", rig.keys.batch(LANE, "gone"), "state", "sealed")
    rig.store.write("hset", rig.keys.fences(LANE), "gone", 1)
    assert len(leaks(rig.store)) == 3
    rig.store.write("delete", "batchmill:{default}:scratch", rig.keys.batch(LANE, "gone"))
    rig.store.write("hdel", rig.keys.fences(LANE), "gone")


def test_a_prompt_that_is_sealed_is_sent_as_it_came(rig: Rig) -> None:
    """The body is read from the lane itself: no second copy that could differ."""
    entries = rig.fill(2)
    batch = rig.seal()
    read = list(rig.ledger.prompts.entries(batch))
    assert [(entry_id.decode(), fields[b"params"]) for entry_id, fields in read] == [(one, GOOD) for one in entries]

"""What a lane knows of prompts that somebody deleted, and of how old the oldest is."""

import pytest
from ledger_rig import LANE, Rig, settlement

from worker.core.intake import entry_instant


def test_the_head_is_the_oldest_prompt_that_waits(rig: Rig) -> None:
    """What is sealed waits no more; an empty lane has none."""
    assert rig.ledger.lanes.head(LANE) is None
    first, _ = rig.fill(2)
    assert rig.ledger.lanes.head(LANE) == first
    rig.seal()
    assert rig.ledger.lanes.head(LANE) is None
    (later,) = rig.fill(1)
    assert rig.ledger.lanes.head(LANE) == later


def test_a_lane_from_which_nobody_deletes_says_so(real_rig: Rig) -> None:
    """Waiting, sealed, or not even begun."""
    lanes = real_rig.ledger.lanes
    assert lanes.deleted(LANE, None) is None
    (head,) = real_rig.fill(1)
    assert lanes.deleted(LANE, None) is None
    assert lanes.deleted(LANE, head) is None
    real_rig.seal()
    assert lanes.deleted(LANE, head) is None


def test_what_settling_deletes_is_ours_to_delete(real_rig: Rig) -> None:
    """It lies behind the cursor, with what waited there a while ago."""
    entries = real_rig.fill(2)
    real_rig.seal()
    batch, claim = real_rig.deliver()
    fates = [settlement(entry) for entry in entries]
    assert real_rig.ledger.prompts.settle(batch, fates, fence=claim.fence, now=1.0)
    assert real_rig.ledger.lanes.length(LANE) == 0
    assert real_rig.ledger.lanes.deleted(LANE, entries[0]) is None


def test_a_waiting_prompt_that_is_deleted_is_named(real_rig: Rig) -> None:
    """XDEL leaves a mark on the stream, whichever entry it took."""
    entries = real_rig.fill(3)
    real_rig.store.write("xdel", real_rig.keys.prompts(LANE), entries[1])
    assert real_rig.ledger.lanes.deleted(LANE, entries[0]) == entries[1]


def test_a_head_that_is_trimmed_is_missed(real_rig: Rig) -> None:
    """XTRIM leaves no mark: only that it waited a while ago tells."""
    entries = real_rig.fill(3)
    real_rig.store.write("xtrim", real_rig.keys.prompts(LANE), minid=entries[2], approximate=False)
    assert real_rig.ledger.lanes.deleted(LANE, None) is None
    assert real_rig.ledger.lanes.deleted(LANE, entries[0]) == entries[0]


def test_a_lane_that_is_gone_misses_its_head(real_rig: Rig) -> None:
    """Somebody deleted the stream itself."""
    (head,) = real_rig.fill(1)
    real_rig.store.write("delete", real_rig.keys.prompts(LANE))
    assert real_rig.ledger.lanes.deleted(LANE, head) == head


@pytest.mark.parametrize(("later", "older"), [(0.0, True), (60.0, True), (-0.001, False)])
def test_the_oldest_prompt_is_as_old_as_its_entry(rig: Rig, later: float, older: bool) -> None:
    """To the millisecond; the instant itself counts."""
    assert not rig.ledger.lanes.has_older(LANE, rig.store.now() + 60)
    first, _ = rig.fill(2)
    assert rig.ledger.lanes.has_older(LANE, entry_instant(first) + later) is older

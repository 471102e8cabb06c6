from collections.abc import Callable
from typing import Any

import pytest
from ledger_rig import GOOD, LANE, Rig

from worker.core.model import State
from worker.ledger.claims import claim_due
from worker.ledger.lanes import Glance
from worker.ledger.store import LedgerRefusedError, Store

LANES = ["broken", LANE, "reports"]


def break_lane(rig: Rig, noun: str) -> None:
    """Put a string where the lane called broken has something else."""
    rig.store.write("set", getattr(rig.keys, noun)("broken"), "somebody else's")


def count_trips(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return a list that gets an item for every round trip from now on."""
    trips: list[object] = []
    reach = Store._reach

    def count(ask: Callable[[], Any]) -> Any:
        trips.append(ask)
        return reach(ask)

    monkeypatch.setattr(Store, "_reach", staticmethod(count))
    return trips


def news(rig: Rig, ends: dict[str, str]) -> dict[str, bool | None]:
    """Return whether each lane goes on behind an entry, None for one that cannot be looked at."""
    glances = rig.ledger.lanes.glance(dict(ends))
    return {lane: glance.more if isinstance(glance, Glance) else None for lane, glance in glances.items()}


def test_many_lanes_are_glanced_at_in_one_round_trip(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is behind the entry that was read last is news; what an entry holds stays in Redis."""
    first, last = rig.fill(2)
    rig.ledger.lanes.marks(LANE)  # the server knows the script by now
    trips = count_trips(monkeypatch)
    assert news(rig, {LANE: first, "reports": "0-0"}) == {LANE: True, "reports": False}
    assert len(trips) == 1
    assert news(rig, {LANE: last}) == {LANE: False}


def test_a_lane_that_cannot_be_looked_at_hides_no_other(rig: Rig) -> None:
    """It has an error for an answer, which says who is to blame."""
    rig.fill(1)
    break_lane(rig, "prompts")
    assert news(rig, dict.fromkeys(LANES, "0-0")) == {"broken": None, LANE: True, "reports": False}
    assert isinstance(rig.ledger.lanes.glance({"broken": "0-0"})["broken"], LedgerRefusedError)


def test_what_is_due_is_claimed_from_many_lanes_in_one_round_trip(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot be claimed from keeps no other waiting."""
    rig.sealed(1, "uid1")
    break_lane(rig, "due")
    claim_due(rig.store, ["reports"], limit=10, lease=60.0)
    trips = count_trips(monkeypatch)
    claims = claim_due(rig.store, LANES, limit=10, lease=60.0)
    assert len(trips) == 1 + 1  # and one to blame somebody for the error
    assert isinstance(claims["broken"], LedgerRefusedError)
    assert claims["reports"] == []
    mine = claims[LANE]
    assert isinstance(mine, list)
    assert [(claim.uid, claim.state) for claim in mine] == [("uid1", State.SEALED)]
    with pytest.raises(LedgerRefusedError):
        rig.ledger.batches.claim("broken", limit=10, lease=60.0)
    rig.store.write("delete", rig.keys.due("broken"))


def test_a_prompt_that_outweighs_everything_stays_where_it_is(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A glance at two hundred lanes may not bring two hundred prompts of a hundred megabytes with it."""
    rig.store.write("xadd", rig.keys.prompts(LANE), {"params": GOOD + b" " * 1_000_000})
    answers: list[object] = []
    run_many = Store.run_many

    def spy(self: Store, name: str, calls: object) -> list[object]:
        answers.extend(run_many(self, name, calls))  # type: ignore[arg-type]
        return answers

    monkeypatch.setattr(Store, "run_many", spy)
    rig.ledger.lanes.glance({LANE: "0-0"})
    assert len(repr(answers)) < 200


def test_a_broken_lane_has_no_counts(rig: Rig) -> None:
    """It keeps no other from choosing a count of its own."""
    rig.sealed(3, "uid1")
    break_lane(rig, "unposted")
    assert rig.ledger.lanes.taken_counts(LANES) == {3}
    rig.store.write("delete", rig.keys.unposted("broken"))

import time
from collections.abc import Callable

import pytest
from ledger_rig import LANE, Rig, incarnation_of

DAY = 86_400.0


def tidy(rig: Rig, *, may_go: bool = True, retention: float = DAY, dead_before: float = 0.0) -> bool:
    """Tidy the lane."""
    return rig.ledger.lanes.tidy(LANE, retention=retention, dead_before=dead_before, may_go=may_go)


def keys(rig: Rig) -> set[str]:
    """Return the lane's keys."""
    return {key.decode() for key in rig.store.read("keys", f"*{{{LANE}}}*")}


def settle(rig: Rig, uid: str = "uid1") -> None:
    """Bring a batch from its prompts to its end."""
    batch, claim = rig.delivered(2, uid)
    rig.store.write("delete", rig.keys.prompts(LANE))
    assert rig.finish(batch, claim.fence, retention=DAY, dead_before=0.0) == "OK"


def test_a_record_is_forgotten_where_nothing_settles_any_more(rig: Rig) -> None:
    """A lane that fell quiet would show its last batches as settled for ever."""
    settle(rig)
    assert not tidy(rig)
    assert rig.store.read("zcard", rig.keys.settled(LANE)) == 1
    rig.store.write("zadd", rig.keys.settled(LANE), {"uid1": (rig.store.now() - DAY - 1) * 1000})
    tidy(rig)
    assert rig.store.read("zcard", rig.keys.settled(LANE)) == 0


def test_a_dead_letter_is_forgotten_where_nothing_settles_any_more(rig: Rig) -> None:
    """It holds a prompt, which somebody was told would be gone by now; to the letter, not by whole nodes."""
    now = rig.store.now()
    for age in (100, 50, 10):
        rig.store.write("xadd", rig.keys.dead(LANE), {"params": "{}"}, id=f"{int((now - age) * 1000)}-0")
    assert not tidy(rig, dead_before=now - 40)
    assert rig.store.read("xlen", rig.keys.dead(LANE)) == 1


def test_a_lane_of_which_nothing_is_left_goes(rig: Rig) -> None:
    """With its record, its empty streams and its bookkeeping."""
    settle(rig)
    rig.store.write("delete", rig.keys.settled(LANE), rig.keys.batch(LANE, "uid1"))
    assert not tidy(rig, may_go=False)
    assert keys(rig) != set()
    assert tidy(rig)
    assert keys(rig) == set()


LEFT: dict[str, Callable[[Rig], object]] = {
    "a prompt": lambda rig: rig.fill(1),
    "a batch": lambda rig: (rig.sealed(1), rig.store.write("delete", rig.keys.prompts(LANE))),
    "a settled batch": settle,
    "a dead letter": lambda rig: rig.store.write("xadd", rig.keys.dead(LANE), {"params": "{}"}),
    "a pause": lambda rig: rig.ledger.lanes.pause(LANE, "upgrade"),
    "parking": lambda rig: rig.ledger.lanes.park(LANE, "billing", 0.0),
    "a flush": lambda rig: rig.store.write("hset", rig.keys.lane(LANE), "flush_to", "5-0"),
    "a recovery": lambda rig: rig.ledger.lanes.begin_recovery(LANE, "life"),
    "another life": lambda rig: rig.store.write("hset", rig.keys.lane(LANE), "incarnation", "earlier"),
}


@pytest.mark.parametrize("left", LEFT)
def test_a_lane_stays_as_long_as_anything_is_left_of_it(rig: Rig, left: str) -> None:
    """Prompts, batches, letters, and what a person or a recovery has said about it."""
    LEFT[left](rig)
    before = keys(rig)
    assert not tidy(rig)
    assert keys(rig) == before != set()


def test_a_lane_that_went_begins_anew(rig: Rig) -> None:
    """Its first prompt makes it, and is sealed as in any new lane."""
    rig.sealed(1)
    rig.store.write("delete", *keys(rig))
    rig.recover()
    assert tidy(rig)
    rig.fill(2)
    assert rig.try_seal("uid2", rig.window()) == "RECOVER"
    assert rig.ledger.lanes.recovered(LANE, incarnation_of(rig.ledger), "none")
    assert rig.try_seal("uid2", rig.window()) == "SEALED"
    assert rig.batch("uid2").count == 2


def test_what_was_seen_before_a_lane_went_cannot_be_sealed_after_it_came_back(rig: Rig) -> None:
    """Its cursor stands at the start again, where the stale decision had seen it."""
    rig.fill(3)
    stale = rig.window()
    rig.store.write("delete", rig.keys.prompts(LANE))
    assert tidy(rig)
    rig.recover()
    time.sleep(0.005)  # within the same millisecond a new stream gives out the same ids
    rig.fill(3)
    assert rig.try_seal("uid1", stale) == "STALE"
    assert rig.try_seal("uid2", rig.window()) == "SEALED"


def test_a_lane_that_is_gone_is_struck_off(rig: Rig) -> None:
    """From the registry and from what waits; others stay."""
    rig.ledger.deployment.register_lanes(["a", "b", "c"])
    rig.ledger.deployment.record_waiting({"a": 1, "b": 2})
    rig.ledger.deployment.strike_lanes(["a", "c"])
    rig.ledger.deployment.strike_lanes([])
    assert rig.ledger.deployment.lanes() == ["b"]
    rig.ledger.deployment.record_waiting({"b": 3})
    assert rig.store.read("hgetall", rig.keys.waiting) == {b"b": b"3", b"total": b"3"}
    rig.ledger.deployment.record_waiting({})
    assert rig.store.read("hgetall", rig.keys.waiting) == {b"total": b"0"}


def test_a_record_that_nobody_owns_is_found(rig: Rig) -> None:
    """A replica that wrote it just as the lane went leaves it to whoever looks."""
    assert rig.store.read("exists", rig.keys.prompts(LANE)) == 0
    rig.store.write("set", rig.keys.lane("no-hash"), "x")
    assert rig.ledger.deployment.discover_lanes() == {LANE}
    assert tidy(rig)
    assert rig.ledger.deployment.discover_lanes() == set()
    rig.store.write("delete", rig.keys.lane("no-hash"))

import pytest
from ledger_rig import LANE, Rig, remote, settlement

from worker.core.intake import entry_instant
from worker.core.model import State


def figures(rig: Rig, **sinks: tuple[str, ...]) -> dict[str, object]:
    """Read the figures of the one lane, with those of the deployment beside them."""
    read = rig.ledger.reads.figures([LANE], sinks)
    (lane,) = read.lanes
    found: dict[str, object] = {name: getattr(lane, name) for name in lane.__slots__}
    return found | {"in_flight": read.in_flight, "evicting": read.evicting, "sink_pending": read.sink_pending}


def test_a_lane_in_which_nothing_happened_has_figures(real_rig: Rig) -> None:
    """Zeros, from the first look on."""
    assert figures(real_rig) == {
        "lane": LANE,
        "depth": 0,
        "bytes": 0,
        "enqueued": 0,
        "batches": dict.fromkeys(State, 0),
        "in_doubt": 0,
        "held": 0,
        "dead_letters": 0,
        "oldest_prompt_at": None,
        "oldest_batch_at": None,
        "paused": None,
        "parked": None,
        "in_flight": 0,
        "evicting": False,
        "sink_pending": {},
    }


def test_depth_counts_prompts_that_wait_and_enqueued_those_that_ever_came(real_rig: Rig) -> None:
    """What is sealed waits no more; a retried prompt waits again and did not come twice."""
    entries = real_rig.fill(5)
    real_rig.seal()
    waiting = real_rig.fill(2)
    seen = figures(real_rig)
    assert (seen["depth"], seen["enqueued"]) == (2, 7)
    assert seen["oldest_prompt_at"] == entry_instant(waiting[0])
    assert isinstance(seen["bytes"], int)
    assert seen["bytes"] > 500
    batch, claim = real_rig.deliver()
    chunk = [settlement(entries[0], "retry", 2, "expired"), *(settlement(entry) for entry in entries[1:])]
    real_rig.ledger.prompts.settle(batch, chunk, fence=claim.fence, now=1.0)
    seen = figures(real_rig)
    assert (seen["depth"], seen["enqueued"], seen["dead_letters"]) == (3, 7, 0)


def test_batches_are_counted_by_state(real_rig: Rig) -> None:
    """With those that need a look: in doubt, held."""
    for number, state in enumerate(state for state in State if state is not State.SETTLED):
        real_rig.sealed(1, f"uid{number}")
        real_rig.put(f"uid{number}", state)
    real_rig.submitting(1, "doubtful")
    seen = figures(real_rig)
    assert seen["batches"] == dict.fromkeys(State, 1) | {State.SUBMITTING: 2, State.SETTLED: 0}
    assert (seen["in_doubt"], seen["held"]) == (0, 1)
    real_rig.ledger.batches.advance(real_rig.batch("doubtful"), None, doubt="lost", doubt_at="5.0")
    assert figures(real_rig)["in_doubt"] == 1


def test_the_age_of_the_oldest_batch_is_that_of_an_open_one(real_rig: Rig) -> None:
    """Since the API created it: that is what expires."""
    for number in range(3):
        batch = real_rig.submitting(1, f"uid{number}")
        real_rig.accept(batch, remote(f"msgbatch_{number}"))
        real_rig.put(f"uid{number}", State.IN_PROGRESS, created_at=f"{1000 + number}.5")
    real_rig.put("uid0", State.ENDED)
    real_rig.put("uid1", State.CANCELING)
    assert figures(real_rig)["oldest_batch_at"] == 1001.5


def test_a_sink_is_pending_for_each_batch_that_it_has_not_committed(real_rig: Rig) -> None:
    """Ended batches only, of lanes that have this sink."""
    for uid in ("uid1", "uid2", "uid3"):
        real_rig.sealed(1, uid)
        real_rig.put(uid, State.ENDED)
    real_rig.put("uid3", State.DELIVERED)
    batch, claim = real_rig.batch("uid1"), real_rig.claim("uid1")
    real_rig.ledger.batches.commit(batch, "results", fence=claim.fence)
    seen = figures(real_rig, **{LANE: ("results", "archive"), "reports": ("lake",)})
    assert seen["sink_pending"] == {"results": 1, "archive": 2, "lake": 0}


def test_marks_and_shares_are_shown(real_rig: Rig) -> None:
    """Why nothing moves, and how full the account's queue is."""
    real_rig.ledger.lanes.pause(LANE, "upgrade")
    real_rig.ledger.lanes.park(LANE, "billing", 0.0)
    real_rig.ledger.deployment.reserve(LANE, "uid1", 7, 100)
    real_rig.store.write("config_set", "maxmemory-policy", "allkeys-lru")
    seen = figures(real_rig)
    assert (seen["paused"], seen["parked"], seen["in_flight"], seen["evicting"]) == ("upgrade", "billing", 7, True)


@pytest.mark.parametrize("limit", [1, 2, 10])
def test_settled_batches_are_listed_newest_first(rig: Rig, limit: int) -> None:
    """As far as their records are kept."""
    for number in range(3):
        batch, claim = rig.delivered(1, f"uid{number}")
        rig.finish(batch, claim.fence, retention=60, dead_before=0)
        rig.store.write("zadd", rig.keys.settled(LANE), {f"uid{number}": (rig.store.now() + number) * 1000})
    rig.store.write("delete", rig.keys.batch(LANE, "uid0"))
    assert [batch.uid for batch in rig.ledger.reads.settled(LANE, limit)] == ["uid2", "uid1"][:limit]


def test_settled_batches_are_counted_while_their_records_are_kept(real_rig: Rig) -> None:
    """A gauge that always said 0 would be taken for a standstill."""
    batch, claim = real_rig.delivered(1)
    real_rig.finish(batch, claim.fence, retention=60, dead_before=0)
    assert figures(real_rig)["batches"] == dict.fromkeys(State, 0) | {State.SETTLED: 1}

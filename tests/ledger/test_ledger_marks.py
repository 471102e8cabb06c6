import pytest
from ledger_rig import LANE, Rig, dump, incarnation_of

from worker.core.model import State
from worker.ledger.ledger import Ledger
from worker.ledger.store import LedgerRefusedError, Store


def test_a_lane_without_a_record_is_open_and_at_its_start(rig: Rig) -> None:
    """Any lane may be looked at before anything was written to it."""
    marks = rig.ledger.lanes.marks("new")
    assert (marks.cursor, marks.paused, marks.parked, marks.flush_to, marks.unposted) == ("0-0", None, None, None, 0)
    assert marks.now == pytest.approx(rig.store.now(), abs=5)


def test_a_pause_lasts_until_somebody_resumes(rig: Rig) -> None:
    """With the reason given."""
    rig.ledger.lanes.pause(LANE, "upgrade")
    assert rig.ledger.lanes.marks(LANE).paused == "upgrade"
    rig.ledger.lanes.resume(LANE)
    assert rig.ledger.lanes.marks(LANE).paused is None


def test_a_lane_is_parked_once(rig: Rig) -> None:
    """A thousand rows say that the account is empty; the first is news, and its reason and probe time stand."""
    assert rig.ledger.lanes.park(LANE, "billing", rig.store.now() + 100)
    before = dump(rig.store)
    assert not rig.ledger.lanes.park(LANE, "spend_limit", rig.store.now())
    assert dump(rig.store) == before
    assert rig.ledger.lanes.marks(LANE).parked == "billing"


@pytest.mark.parametrize("end", ["unpark", "resume"])
def test_parking_ends_and_may_begin_again(rig: Rig, end: str) -> None:
    """By a probe that went through, or by a human; either way nothing of it is left."""
    rig.ledger.lanes.park(LANE, "billing", rig.store.now() + 100)
    getattr(rig.ledger.lanes, end)(LANE)
    assert rig.ledger.lanes.marks(LANE).parked is None
    assert rig.ledger.lanes.may_probe(LANE, 300.0) == "OPEN"
    assert rig.ledger.lanes.park(LANE, "key", rig.store.now())


def test_unparking_does_not_resume(rig: Rig) -> None:
    """The account is well again, and the operator's own pause is still the operator's."""
    rig.ledger.lanes.pause(LANE, "upgrade")
    rig.ledger.lanes.park(LANE, "billing", 0.0)
    rig.ledger.lanes.unpark(LANE)
    assert (rig.ledger.lanes.marks(LANE).paused, rig.ledger.lanes.marks(LANE).parked) == ("upgrade", None)


def test_a_parked_lane_is_granted_one_probe_a_period(rig: Rig) -> None:
    """None before the first is due, then one, then the others wait."""
    assert rig.ledger.lanes.may_probe(LANE, 300.0) == "OPEN"
    rig.ledger.lanes.park(LANE, "billing", rig.store.now() + 50)
    assert rig.ledger.lanes.may_probe(LANE, 300.0) == "WAIT"
    rig.store.write("hset", rig.keys.lane(LANE), "probe_at", int((rig.store.now() - 1) * 1000))
    assert [rig.ledger.lanes.may_probe(LANE, 300.0) for _ in range(3)] == ["OK", "WAIT", "WAIT"]
    probe_at = float(rig.store.read("hget", rig.keys.lane(LANE), "probe_at")) / 1000
    assert probe_at == pytest.approx(rig.store.now() + 300, abs=5)


def test_a_flush_covers_what_waits_now(rig: Rig) -> None:
    """Up to the newest entry; of an empty lane nothing."""
    assert rig.ledger.lanes.flush(LANE) is None
    newest = rig.fill(3)[-1]
    assert rig.ledger.lanes.flush(LANE) == newest
    assert rig.ledger.lanes.marks(LANE).flush_to == newest
    rig.ledger.lanes.end_flush(LANE, newest)
    assert rig.ledger.lanes.marks(LANE).flush_to is None


def test_the_end_of_one_flush_is_not_that_of_the_next(rig: Rig) -> None:
    """Whoever ends it may have looked a while ago, before the operator asked again."""
    rig.fill(1)
    seen = rig.ledger.lanes.flush(LANE)
    rig.fill(1)
    again = rig.ledger.lanes.flush(LANE)
    rig.ledger.lanes.end_flush(LANE, str(seen))
    assert rig.ledger.lanes.marks(LANE).flush_to == again


def test_a_recovery_is_dated(rig: Rig) -> None:
    """The time to wait is counted from then, in the life of the server that it was."""
    rig.ledger.lanes.begin_recovery(LANE, "this life")
    past = rig.ledger.lanes.past(LANE)
    assert past.recovering_in == "this life"
    assert past.recovering_since == pytest.approx(rig.store.now(), abs=5)


def test_a_recovered_lane_knows_in_which_life_and_by_which_barrier(rig: Rig) -> None:
    """And is recovering no more."""
    life = incarnation_of(rig.ledger)
    rig.ledger.lanes.begin_recovery(LANE, life)
    assert rig.ledger.lanes.recovered(LANE, life, "appendfsync")
    past = rig.ledger.lanes.past(LANE)
    assert (past.incarnation, past.barrier, past.recovering_since) == (life, "appendfsync", None)


def test_a_recovery_from_an_older_life_does_not_count(rig: Rig) -> None:
    """The server was restarted again while somebody recovered."""
    before = dump(rig.store)
    assert not rig.ledger.lanes.recovered(LANE, "another life", "none")
    assert dump(rig.store) == before


def test_a_fake_without_info_counts_as_one_unknown_life(fake_store: Store) -> None:
    """Scripts that cannot ask for the run_id agree on a word for it."""
    rig = Rig(Ledger.over(fake_store))
    assert incarnation_of(rig.ledger) == "unknown"
    rig.fill(1)
    window = rig.window()
    assert rig.try_seal("uid1", window) == "RECOVER"
    assert rig.ledger.lanes.recovered(LANE, "unknown", "none")
    assert rig.try_seal("uid1", window) == "RECOVER", "it was read before"
    assert rig.try_seal("uid1", rig.window()) == "SEALED"


def test_the_life_that_scripts_compare_is_the_one_that_the_server_tells(real_rig: Rig) -> None:
    """Otherwise no lane could ever recover."""
    life = real_rig.ledger.deployment.incarnation()
    assert len(life) == 40
    assert real_rig.store.facts().run_id == life
    assert real_rig.ledger.lanes.past(LANE).incarnation == life


def test_a_share_of_the_accounts_queue_is_taken_once(rig: Rig) -> None:
    """Asked again it changes nothing, whatever the limit says by now."""
    deployment = rig.ledger.deployment
    assert deployment.reserve(LANE, "uid1", 60, 100)
    before = dump(rig.store)
    assert deployment.reserve(LANE, "uid1", 60, 100)
    assert deployment.reserve(LANE, "uid1", 60, 10)
    assert dump(rig.store) == before
    assert deployment.in_flight() == 60


@pytest.mark.parametrize(("count", "fits"), [(39, True), (40, True), (41, False)])
def test_the_accounts_queue_is_filled_to_the_limit(rig: Rig, count: int, *, fits: bool) -> None:
    """Over all lanes, to the prompt; what does not fit changes nothing."""
    rig.ledger.deployment.reserve(LANE, "uid1", 60, 100)
    assert rig.ledger.deployment.reserve("reports", "uid1", count, 100) is fits
    assert rig.ledger.deployment.in_flight() == 60 + count * fits


def test_a_batch_larger_than_the_whole_queue_goes_alone(rig: Rig) -> None:
    """Otherwise it would never go."""
    assert rig.ledger.deployment.reserve(LANE, "uid1", 150, 100)
    assert not rig.ledger.deployment.reserve(LANE, "uid2", 1, 100)


def test_what_has_ended_gives_its_share_back(rig: Rig) -> None:
    """Twice is once; nothing is nothing."""
    deployment = rig.ledger.deployment
    deployment.reserve(LANE, "uid1", 60, 100)
    for batches in ([], [(LANE, "uid1")], [(LANE, "uid1")]):
        deployment.release(batches)
    assert deployment.in_flight() == 0


@pytest.mark.parametrize("state", State)
def test_a_sweep_gives_back_what_crashed_workers_left(rig: Rig, state: State) -> None:
    """A share belongs to a batch that is, or may yet be, with the API."""
    rig.sealed(3)
    rig.put("uid1", state)
    rig.ledger.deployment.reserve(LANE, "uid1", 3, 100)
    rig.ledger.deployment.reserve(LANE, "gone", 7, 100)
    kept = state in {State.SEALED, State.SUBMITTING, State.IN_PROGRESS, State.CANCELING}
    assert rig.ledger.deployment.sweep_in_flight() == 2 - kept
    assert rig.ledger.deployment.in_flight() == 3 * kept
    assert rig.ledger.deployment.sweep_in_flight() == 0


def test_the_first_to_enter_names_the_deployment(rig: Rig) -> None:
    """Everybody else is told that name."""
    assert rig.ledger.deployment.enter("abc234") == "abc234"
    assert rig.ledger.deployment.enter("zzz777") == "abc234"


def test_a_life_of_the_server_is_dated_once(rig: Rig) -> None:
    """The one in which the deployment was made began before all of its prompts."""
    deployment = rig.ledger.deployment
    deployment.enter("abc234", life="first")
    assert deployment.life_began("first") == 0.0
    began = deployment.life_began("second")
    assert began == pytest.approx(rig.store.now(), abs=5)
    assert deployment.life_began("second") == began


def test_data_of_a_newer_batchmill_is_not_touched(rig: Rig) -> None:
    """An older one would misread it."""
    rig.ledger.deployment.enter("abc234")
    rig.store.write("hset", rig.keys.deployment, "schema", "2")
    with pytest.raises(LedgerRefusedError, match="newer batchmill"):
        rig.ledger.deployment.enter("abc234")


def test_a_fact_of_the_deployment_is_noted_and_forgotten(rig: Rig) -> None:
    """An empty value deletes it."""
    deployment = rig.ledger.deployment
    assert deployment.recall("workspace_id") is None
    deployment.note(workspace_id="wrkspc_1", accepted_at="5")
    assert (deployment.recall("workspace_id"), deployment.recall("accepted_at")) == ("wrkspc_1", "5")
    deployment.note(workspace_id="")
    assert deployment.recall("workspace_id") is None


def test_lanes_are_registered_and_discovered(rig: Rig) -> None:
    """A plain XADD makes a lane that nobody has configured; what only looks like one is left alone."""
    rig.ledger.deployment.register_lanes(["reports", LANE])
    rig.ledger.deployment.register_lanes([])
    rig.fill(1)
    for lane in ("surprise", "Not-A-Lane", "x" * 64):
        rig.store.write("xadd", rig.keys.prompts(lane), {"params": "{}"})
    rig.store.write("hset", rig.keys.prompts("a-hash"), "params", "{}")
    assert rig.ledger.deployment.lanes() == [LANE, "reports"]
    assert rig.ledger.deployment.discover_lanes() == {LANE, "surprise"}


def test_what_waits_is_published_for_producers(rig: Rig) -> None:
    """Bytes of each lane and of all."""
    rig.ledger.deployment.record_waiting({LANE: 10, "reports": 5})
    assert rig.store.read("hgetall", rig.keys.waiting) == {b"default": b"10", b"reports": b"5", b"total": b"15"}


def test_a_stream_has_a_size_and_a_missing_one_none(real_rig: Rig) -> None:
    """As the server estimates it."""
    real_rig.fill(3)
    sizes = real_rig.ledger.lanes.stream_bytes([LANE, "new"])
    assert sizes["new"] == 0
    assert sizes[LANE] > 300

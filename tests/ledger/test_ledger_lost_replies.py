from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from cutting_proxy import CuttingProxy, cutting_proxy
from ledger_rig import LANE, PREFIX, Rig, dump, no_server, settlement

from worker.core.lifecycle import Event
from worker.core.model import State
from worker.ledger.barrier import choose_barrier
from worker.ledger.ledger import Ledger
from worker.ledger.store import REPEATABLE, LedgerUnavailableError, Store


@pytest.fixture
def proxy(server_url: str, real_store: Store) -> Iterator[CuttingProxy]:
    """A proxy before the real server, which knows every script already."""
    if not server_url.startswith("unix:"):
        no_server("the proxy speaks to a unix socket")
    for script, _ in real_store._scripts.values():
        real_store.write("script_load", script.text)
    with cutting_proxy(server_url.removeprefix("unix://").partition("?")[0]) as proxy:
        yield proxy


@pytest.fixture
def cut(proxy: CuttingProxy, real_store: Store) -> Callable[[str], None]:
    """Arm the proxy: the next call of this script is executed, and its answer is lost."""

    def arm(name: str) -> None:
        _, call = real_store._scripts[name]
        proxy.armed = call.sha.encode()

    return arm


@pytest.fixture
def far(proxy: CuttingProxy) -> Iterator[Rig]:
    """A ledger behind the proxy."""
    store = Store.connect(proxy.url, PREFIX)
    rig = Rig(Ledger.over(store))
    rig.recover()
    yield rig
    store.close()


def test_a_seal_whose_answer_is_lost_is_not_repeated_by_itself(
    far: Rig, proxy: CuttingProxy, cut: Callable[[str], None]
) -> None:
    """The batcher looks again and finds its window sealed; asked under the same uid, the ledger says MINE."""
    far.fill(3)
    window = far.window()
    cut("seal")
    with pytest.raises(LedgerUnavailableError):
        far.try_seal("uid1", window)
    assert proxy.cuts == 1
    assert far.batch().count == 3
    assert far.try_seal("uid1", window) == "MINE"
    assert far.try_seal("uid2", window) == "STALE"
    assert far.ledger.batches.live(LANE) == ["uid1"]


def test_an_intent_whose_answer_is_lost_can_be_taken_back(
    far: Rig, proxy: CuttingProxy, cut: Callable[[str], None]
) -> None:
    """The last byte never left, so it is a fact that nothing was made; the attempt stays counted."""
    batch = far.sealed()
    claim = far.claim()
    cut("submit")
    with pytest.raises(LedgerUnavailableError):
        far.submit(batch, claim.fence)
    assert proxy.cuts == 1
    posted = far.batch()
    assert (posted.state, posted.attempt) == (State.SUBMITTING, 1)
    assert far.submit(batch, claim.fence) == "STALE"
    assert far.ledger.batches.advance(posted, Event.REFUSE, unposted=posted.count) == "OK"
    assert (far.batch().state, far.batch().attempt) == (State.SEALED, 1)


def test_an_accepted_answer_is_asked_for_again(far: Rig, proxy: CuttingProxy, cut: Callable[[str], None]) -> None:
    """The second asking finds it recorded: the API's id is never lost to a broken connection."""
    batch = far.submitting()
    cut("accept")
    assert far.accept(batch) == "MINE"
    assert proxy.cuts == 1
    assert (far.batch().state, far.batch().remote_id) == (State.IN_PROGRESS, "msgbatch_1")


@pytest.mark.parametrize("fate", ["", "retry", "bury"])
def test_a_settled_chunk_is_settled_once(far: Rig, proxy: CuttingProxy, cut: Callable[[str], None], fate: str) -> None:
    """The script runs twice, and the second time finds nothing to do."""
    entries = far.fill(3)
    far.seal()
    batch, claim = far.deliver()
    cut("settle")
    chunk = [settlement(entry, fate, 2, "why") for entry in entries]
    assert far.ledger.prompts.settle(batch, chunk, fence=claim.fence, now=1.0)
    assert proxy.cuts == 1
    assert far.ledger.lanes.length(LANE) == 3 * (fate == "retry")
    assert far.store.read("xlen", far.keys.dead(LANE)) == 3 * (fate == "bury")
    assert int(far.store.read("hget", far.keys.lane(LANE), "sealed_entries")) == 0


def test_a_finished_batch_is_finished_once(far: Rig, proxy: CuttingProxy, cut: Callable[[str], None]) -> None:
    """Asked again it says that it was closed already."""
    batch, claim = far.delivered()
    cut("finish")
    assert far.finish(batch, claim.fence) == "MINE"
    assert proxy.cuts == 1
    assert far.batch().state is State.SETTLED


def test_a_move_whose_answer_is_lost_is_not_repeated(far: Rig, proxy: CuttingProxy, cut: Callable[[str], None]) -> None:
    """Repeated, it would answer STALE for our own success; so the caller is told that nobody knows."""
    batch = far.in_progress()
    claim = far.claim()
    cut("advance")
    with pytest.raises(LedgerUnavailableError):
        far.ledger.batches.advance(batch, Event.HOLD, fence=claim.fence)
    assert proxy.cuts == 1
    assert far.batch().state is State.HELD
    before = dump(far.store)
    assert far.ledger.batches.advance(batch, Event.HOLD, fence=claim.fence) == "STALE"
    assert dump(far.store) == before


def test_a_claim_whose_answer_is_lost_comes_due_again(
    far: Rig, proxy: CuttingProxy, cut: Callable[[str], None]
) -> None:
    """Its lease runs out like that of a worker that died."""
    far.sealed()
    cut("claim")
    with pytest.raises(LedgerUnavailableError):
        far.ledger.batches.claim(LANE, limit=10, lease=60.0)
    assert proxy.cuts == 1
    assert far.ledger.batches.claim(LANE, limit=10, lease=60.0) == []
    assert far.due_in() == pytest.approx(60, abs=5)


def test_a_share_is_reserved_once(far: Rig, proxy: CuttingProxy, cut: Callable[[str], None]) -> None:
    """And granted, though the second asking finds the queue as full as the first left it."""
    cut("reserve")
    assert far.ledger.deployment.reserve(LANE, "uid1", 100, 100)
    assert (proxy.cuts, far.ledger.deployment.in_flight()) == (1, 100)


def test_a_read_is_tried_again(far: Rig, proxy: CuttingProxy) -> None:
    """A broken connection is no reason to fail a step that changes nothing."""
    batch = far.sealed()
    proxy.armed = b"HGETALL"
    assert far.ledger.batches.get(LANE, "uid1") == batch
    assert proxy.cuts == 1


def test_a_lost_answer_does_not_cost_the_barrier(far: Rig, proxy: CuttingProxy) -> None:
    """Only a refusal says that this server has none; a process without it would pay with long recoveries."""
    facts = replace(far.store.facts(), name="redis", version=(7, 0, 15))
    proxy.armed = b"CONFIG\r\n$3\r\nSET"
    with pytest.raises(LedgerUnavailableError):
        choose_barrier("auto", store=far.store, facts=facts, owner="me", wait=lambda _seconds: None)
    assert proxy.cuts == 1


def test_compare_and_set_is_never_repeated() -> None:
    """A repeated one would answer STALE for our own success."""
    assert not REPEATABLE & {"seal", "submit", "advance", "adopt", "split", "eject", "claim", "enqueue", "redrive"}

"""The barrier in force: it stands for one life of one server, and lets no intent through to another."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ledger_rig import PREFIX, embedded_server

from worker.ledger import barrier
from worker.ledger.barrier import AppendFsyncBarrier, NotDurableError, WaitAofBarrier
from worker.ledger.barrier_in_force import BarrierInForce
from worker.ledger.store import Store

REDIS_7_0: dict[str, Any] = {"name": "redis", "version": (7, 0, 15)}


def never_wait(_seconds: float) -> None:
    """Fail: nobody is there to wait for."""
    pytest.fail("somebody else's turn was waited for")


def in_force(store: Store, setting: str = "auto", **changes: Any) -> BarrierInForce:
    """Choose a barrier for this server, or for one that differs from it."""
    facts = replace(store.facts(), **REDIS_7_0, **changes)
    return BarrierInForce(setting, store=store, facts=facts, owner="me", wait=never_wait)


@pytest.fixture
def write(real_store: Store) -> Iterator[Callable[[Any], str]]:
    """A write of an intent, in small."""

    def put(connection: Any) -> str:
        real_store.write("set", "batchmill:intent", "x", ex=60, on=connection)
        return "OK"

    yield put
    real_store.write("delete", "batchmill:intent")


@pytest.mark.parametrize(
    ("setting", "fsync", "kind"),
    [
        ("auto", "everysec", "appendfsync"),
        ("auto", "always", "always"),
        ("always", "everysec", "always"),
        ("none", "everysec", "none"),
    ],
)
def test_a_write_is_let_through_on_the_server_it_was_chosen_for(
    real_store: Store, write: Callable[[Any], str], setting: str, fsync: str, kind: str
) -> None:
    """Whatever the kind; `always` of the configuration is the operator's word, which is not looked up."""
    real_store.write("config_set", "appendfsync", fsync)
    barrier = in_force(real_store, setting)
    assert barrier.kind == kind
    assert barrier.reason
    assert barrier.durably(write) == "OK"
    assert not barrier.doubtful


@pytest.mark.parametrize("setting", ["auto", "none"])
def test_no_write_is_trusted_to_another_life_of_the_server(
    real_store: Store, write: Callable[[Any], str], setting: str
) -> None:
    """What it could do is not known before somebody has asked; then the next write goes through."""
    barrier = in_force(real_store, setting, run_id="an earlier life")
    with pytest.raises(NotDurableError, match="another server"):
        barrier.durably(write)
    doubts = [barrier.doubtful]
    assert not barrier.choose(replace(real_store.facts(), **REDIS_7_0))
    doubts.append(barrier.doubtful)
    assert barrier.durably(write) == "OK"
    assert doubts == [True, False]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("everysec", ("appendonly", "no"), ("was switched off", "none")),
        ("always", ("appendonly", "no"), ("was switched off", "none")),
        ("always", ("appendfsync", "everysec"), ("always no more", "appendfsync")),
    ],
)
def test_no_write_is_trusted_to_a_setting_that_has_changed(
    real_store: Store, write: Callable[[Any], str], before: str, after: tuple[str, str], expected: tuple[str, str]
) -> None:
    """An operator did it while the daemon ran; the barrier is chosen anew, and that is another one."""
    told, kind = expected
    real_store.write("config_set", "appendfsync", before)
    barrier = in_force(real_store)
    real_store.write("config_set", *after)
    with pytest.raises(NotDurableError, match=told):
        barrier.durably(write)
    assert barrier.doubtful
    assert barrier.choose(replace(real_store.facts(), **REDIS_7_0))
    assert barrier.kind == kind


def test_a_write_that_was_not_made_needs_no_proof(real_store: Store) -> None:
    """STALE is STALE on any server."""
    barrier = in_force(real_store, run_id="an earlier life")
    assert barrier.durably(lambda _connection: "STALE") == "STALE"
    assert not barrier.doubtful


@pytest.mark.parametrize(
    ("setting", "changes", "kind", "reason"),
    [
        ("always", {}, "always", "redis.barrier says so"),
        ("always", {"appendonly": False}, "none", "the server keeps no append-only file"),
        ("auto", {"lazy_on_rewrite": True}, "none", "no-appendfsync-on-rewrite is yes"),
        ("auto", {"lazy_on_rewrite": True, "appendfsync": "always"}, "none", "no-appendfsync-on-rewrite is yes"),
    ],
)
def test_the_reason_says_why_it_was_chosen(
    real_store: Store, setting: str, changes: dict[str, Any], kind: str, reason: str
) -> None:
    """`always` is believed where nobody may ask, and no file or a lazy one makes it a word only."""
    barrier = in_force(real_store, setting, **changes)
    assert (barrier.kind, barrier.reason) == (kind, reason)


def test_a_full_redis_ends_its_turn_at_the_next_that_is_not(real_store: Store, write: Callable[[Any], str]) -> None:
    """It takes no transaction: the setting stays `always`, slow and safe, and the turn itself is given up at once."""
    turns = AppendFsyncBarrier(store=real_store, reason="a test", owner="me", wait=never_wait)

    def fill_up(_connection: Any) -> str:
        real_store.write("config_set", "maxmemory", "1")
        return "OK"

    assert turns.durably(fill_up) == "OK"
    assert real_store.read("config_get", "appendfsync")["appendfsync"] == "always"
    assert real_store.read("exists", real_store.keys.barrier) == 0
    real_store.write("config_set", "maxmemory", "0")
    assert turns.durably(write) == "OK"
    assert real_store.read("config_get", "appendfsync")["appendfsync"] == "everysec"


def test_a_sync_that_does_not_come_in_time_is_no_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """WAITAOF answers that no file has it: the last byte stays here."""
    monkeypatch.setattr(barrier, "WAIT_MS", 50)
    with embedded_server(tmp_path) as url:
        store = Store.connect(url, PREFIX)
        if store.facts().version < (7, 2):
            pytest.skip("the embedded server is too old for WAITAOF")
        store.write("config_set", "appendfsync", "no")

        def put(connection: Any) -> str:
            store.write("set", "x", "1", ex=60, on=connection)
            return "OK"

        with pytest.raises(NotDurableError, match="in time"):
            WaitAofBarrier(store, "a test").durably(put)
        store.close()

"""The durability barrier on a real server: the intent is on disk before the last byte leaves, or it says so."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from ledger_rig import PREFIX, embedded_server

from worker.ledger.barrier import (
    AppendFsyncBarrier,
    Barrier,
    NotDurableError,
    PlainBarrier,
    WaitAofBarrier,
    choose_barrier,
)
from worker.ledger.store import LedgerRefusedError, LedgerUnavailableError, ServerFacts, Store


def never_wait(_seconds: float) -> None:
    """Fail: nobody is there to wait for."""
    pytest.fail("somebody else's turn was waited for")


def barrier_of(store: Store, owner: str = "me", wait: Callable[[float], object] = never_wait) -> AppendFsyncBarrier:
    """Build the barrier that toggles appendfsync."""
    return AppendFsyncBarrier(store=store, reason="a test", owner=owner, wait=wait)


def fsync_of(store: Store) -> str:
    """Ask the server for its setting."""
    return str(store.read("config_get", "appendfsync")["appendfsync"])


def chosen(store: Store, setting: str = "auto", **changes: Any) -> Barrier:
    """Choose a barrier for this server, or for one that differs from it."""
    facts = replace(store.facts(), **changes)
    return choose_barrier(setting, store=store, facts=facts, owner="me", wait=never_wait)


REDIS_7_0: dict[str, Any] = {"name": "redis", "version": (7, 0, 15)}


@pytest.mark.parametrize(
    ("setting", "server", "kind"),
    [
        ("auto", REDIS_7_0, "appendfsync"),
        ("auto", {"name": "redis", "version": (7, 4, 1)}, "appendfsync"),
        ("auto", {"name": "redis", "version": (8, 0, 0)}, "waitaof"),
        ("auto", {"name": "valkey", "version": (9, 1, 0)}, "appendfsync"),
        ("auto", REDIS_7_0 | {"appendonly": False}, "none"),
        ("waitaof", REDIS_7_0, "waitaof"),
        ("waitaof", REDIS_7_0 | {"appendonly": False}, "none"),
        ("appendfsync", {"name": "redis", "version": (8, 0, 0)}, "appendfsync"),
        ("none", REDIS_7_0, "none"),
    ],
)
def test_the_barrier_is_the_best_that_the_server_is_honest_about(
    real_store: Store, setting: str, server: dict[str, Any], kind: str
) -> None:
    """WAITAOF where it means an fsync, else appendfsync for a moment; nothing where there is no append-only file."""
    barrier = chosen(real_store, setting, **server)
    assert barrier.kind == kind
    assert barrier.reason
    assert fsync_of(real_store) == "everysec"


def test_a_server_that_always_syncs_needs_no_turns(real_store: Store) -> None:
    """The operator has chosen it: there is nothing to switch, and nothing to wait for."""
    real_store.write("config_set", "appendfsync", "always")
    assert chosen(real_store, **REDIS_7_0).kind == "always"
    real_store.write("config_set", "maxmemory", "1")
    assert chosen(real_store, **REDIS_7_0).kind == "appendfsync"
    real_store.write("config_set", "maxmemory", "0")


def test_a_turn_of_another_is_not_taken_for_the_operators_choice(real_store: Store) -> None:
    """The setting was seen in a turn that is over by now: its intents would be on no disk for the process's life."""
    assert chosen(real_store, **REDIS_7_0, appendfsync="always").kind == "appendfsync"


@pytest.mark.parametrize("seen", ["everysec", "always"])
def test_a_start_changes_nothing_for_those_who_run(real_store: Store, seen: str) -> None:
    """Whatever was seen a moment ago: another's turn stays `always` until it ends, and what is usual stays usual."""

    def write(_connection: Any) -> str:
        chosen(real_store, **REDIS_7_0, appendfsync=seen)
        return fsync_of(real_store)

    assert barrier_of(real_store).durably(write) == "always"
    chosen(real_store, **REDIS_7_0, appendfsync=seen)
    assert fsync_of(real_store) == "everysec"


def test_a_server_that_forbids_config_has_no_barrier(real_store: Store, server_url: str) -> None:
    """Managed ones do; then recovery goes by token."""
    real_store.write("acl_setuser", "tenant", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-config|set"])
    tenant = Store.connect(f"{server_url}?username=tenant&password=x", PREFIX)
    try:
        assert chosen(tenant, **REDIS_7_0).kind == "none"
    finally:
        tenant.close()
        real_store.write("acl_deluser", "tenant")


def test_a_server_that_does_not_answer_forbids_nothing(real_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A moment of silence at the start must not leave the process without a barrier for all of its life."""

    def silent(*_args: object, **_named: object) -> None:
        raise LedgerUnavailableError("Redis cannot be reached")

    monkeypatch.setattr(real_store, "write", silent)
    with pytest.raises(LedgerUnavailableError):
        chosen(real_store)


@pytest.mark.parametrize("kind", ["always", "none"])
def test_a_plain_barrier_writes_and_answers(real_store: Store, kind: str) -> None:
    """The server syncs by itself, or nothing can make it."""
    asked: list[Any] = []

    def write(connection: Any) -> str:
        asked.append(connection)
        return "OK"

    assert PlainBarrier(kind, "a test").durably(write) == "OK"
    assert asked == [None]
    assert fsync_of(real_store) == "everysec"


def test_the_setting_is_always_for_the_moment_of_the_write(real_store: Store) -> None:
    """So its reply comes after the fsync; before and after the server is as fast as it was."""
    seen: list[str] = []

    def write(connection: Any) -> str:
        seen.append(fsync_of(real_store))
        real_store.write("set", "batchmill:barrier_test", "x", ex=60, on=connection)
        return "OK"

    assert barrier_of(real_store).durably(write) == "OK"
    assert (seen, fsync_of(real_store)) == (["always"], "everysec")
    assert real_store.read("exists", real_store.keys.barrier, real_store.keys.barrier_mark) == 0


def test_a_write_that_fails_ends_its_turn(real_store: Store) -> None:
    """The setting goes back and the next one need not wait."""

    def fail(_connection: Any) -> str:
        raise LedgerUnavailableError

    with pytest.raises(LedgerUnavailableError):
        barrier_of(real_store).durably(fail)
    assert fsync_of(real_store) == "everysec"
    assert real_store.read("exists", real_store.keys.barrier, real_store.keys.barrier_mark) == 0


def test_a_refused_write_is_answered_as_it_was(real_store: Store) -> None:
    """STALE needs no disk."""
    assert barrier_of(real_store).durably(lambda _connection: "STALE") == "STALE"


def test_always_of_the_operator_is_left_alone(real_store: Store) -> None:
    """Without our mark it is the operator's own setting."""
    real_store.write("config_set", "appendfsync", "always")
    assert barrier_of(real_store).durably(lambda _connection: "OK") == "OK"
    assert fsync_of(real_store) == "always"


def crash_in_a_turn(store: Store, *, expired: bool) -> None:
    """Leave behind what a process that is killed in its turn leaves behind."""
    store.write("set", store.keys.barrier_mark, "everysec")
    store.write("config_set", "appendfsync", "always")
    if not expired:
        store.write("set", store.keys.barrier, "the dead", px=60_000)


def test_what_a_crash_left_behind_is_cleaned_at_the_next_turn(real_store: Store) -> None:
    """`always` with our mark is ours: the next turn restores what was before."""
    crash_in_a_turn(real_store, expired=True)
    barrier = chosen(real_store, **REDIS_7_0)
    assert barrier.kind == "appendfsync"
    assert barrier.durably(lambda _connection: "OK") == "OK"
    assert fsync_of(real_store) == "everysec"
    assert real_store.read("exists", real_store.keys.barrier_mark) == 0


def test_the_turn_of_somebody_else_is_waited_for(real_store: Store) -> None:
    """Until they have ended it, or it has run out."""
    crash_in_a_turn(real_store, expired=False)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            real_store.write("delete", real_store.keys.barrier)

    assert barrier_of(real_store, wait=wait).durably(lambda _connection: "OK") == "OK"
    assert (len(waits), fsync_of(real_store)) == (3, "everysec")


def test_a_turn_that_never_comes_is_given_up(real_store: Store) -> None:
    """The body's last byte cannot wait for ever."""
    crash_in_a_turn(real_store, expired=False)

    def write(_connection: Any) -> str:
        pytest.fail("written without a turn")

    with pytest.raises(NotDurableError):
        barrier_of(real_store, wait=lambda _seconds: None).durably(write)
    real_store.write("delete", real_store.keys.barrier, real_store.keys.barrier_mark)


def test_a_turn_dies_with_its_owner(real_store: Store) -> None:
    """Seconds later the next one begins."""

    def write(_connection: Any) -> str:
        assert 0 < real_store.read("pttl", real_store.keys.barrier) <= AppendFsyncBarrier.TURN_MS
        return "OK"

    barrier_of(real_store).durably(write)


def test_a_turn_that_was_lost_proves_nothing(real_store: Store) -> None:
    """The write may have come after the other one had switched back; what is theirs is left alone."""

    def slow_write(_connection: Any) -> str:
        real_store.write("set", real_store.keys.barrier, "the next", px=60_000)
        return "OK"

    with pytest.raises(NotDurableError):
        barrier_of(real_store).durably(slow_write)
    assert fsync_of(real_store) == "always"
    assert real_store.read("get", real_store.keys.barrier) == b"the next"
    real_store.write("delete", real_store.keys.barrier)
    barrier_of(real_store).durably(lambda _connection: "OK")
    assert fsync_of(real_store) == "everysec"


def test_a_turn_that_runs_out_while_it_ends_is_the_next_ones_to_end(
    real_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write was durable; the setting is restored by whoever has the turn now."""
    begin = redis.client.Pipeline.multi

    def lose_the_turn(pipe: "redis.client.Pipeline") -> None:
        real_store.write("set", real_store.keys.barrier, "the next", px=60_000)
        begin(pipe)

    monkeypatch.setattr(redis.client.Pipeline, "multi", lose_the_turn)
    assert barrier_of(real_store).durably(lambda _connection: "OK") == "OK"
    assert fsync_of(real_store) == "always"
    monkeypatch.undo()
    real_store.write("delete", real_store.keys.barrier)
    barrier_of(real_store).durably(lambda _connection: "OK")
    assert fsync_of(real_store) == "everysec"


@pytest.mark.parametrize("owners", [["one", "other"], ["one", "one"]])
def test_owners_take_turns(real_store: Store, owners: list[str]) -> None:
    """Replicas, and the threads of one: never two at a time, each under `always`, and in the end as it was."""
    inside: list[str] = []
    seen: list[tuple[int, str]] = []
    pause = threading.Event()

    def write(_connection: Any) -> str:
        inside.append("in")
        seen.append((len(inside), fsync_of(real_store)))
        inside.pop()
        return "OK"

    barriers = {owner: barrier_of(real_store, owner, wait=pause.wait) for owner in owners}

    def work(owner: str) -> None:
        for _ in range(20):
            barriers[owner].durably(write)

    threads = [threading.Thread(target=work, args=(owner,)) for owner in owners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [(1, "always")] * 40
    assert fsync_of(real_store) == "everysec"
    assert real_store.read("exists", real_store.keys.barrier, real_store.keys.barrier_mark) == 0


def test_a_server_without_waitaof_says_so_before_the_last_byte(real_store: Store) -> None:
    """Chosen by hand on a Redis that has none, it refuses every post."""
    if real_store.facts().version >= (7, 2):
        pytest.skip("this server has WAITAOF")
    with pytest.raises(LedgerRefusedError):
        WaitAofBarrier(real_store, "a test").durably(lambda _connection: "OK")


@pytest.fixture
def valkey_store(tmp_path: Path) -> Iterator[Store]:
    """A store on the embedded Valkey, which has WAITAOF."""
    with embedded_server(tmp_path) as url:
        store = Store.connect(url, PREFIX)
        if store.facts().version < (7, 2):
            store.close()
            pytest.skip("the embedded server is too old for WAITAOF")
        yield store
        store.close()


def test_waitaof_waits_on_the_connection_that_wrote(valkey_store: Store) -> None:
    """And only for a write that was made."""
    connections: list[Any] = []

    def write(connection: Any) -> str:
        connections.append(connection)
        valkey_store.write("set", "x", "1", ex=60, on=connection)
        return "OK"

    barrier = WaitAofBarrier(valkey_store, "a test")
    assert barrier.durably(write) == "OK"
    assert barrier.durably(lambda _connection: "STALE") == "STALE"
    assert len(connections) == 1
    valkey_store.write("config_set", "appendonly", "no")
    with pytest.raises(LedgerRefusedError):
        barrier.durably(write)
    assert barrier.durably(lambda _connection: "STALE") == "STALE"


def test_facts_are_the_servers_own(real_store: Store) -> None:
    """What it can do, whether it forgets, which life this is."""
    real_store.write("config_set", "maxmemory", "50mb")
    facts = real_store.facts()
    assert isinstance(facts, ServerFacts)
    assert facts.version >= (7, 0)
    assert (facts.appendonly, facts.appendfsync, facts.evicting, facts.was_replica) == (True, "everysec", False, False)
    assert facts.max_memory == 50 * 1024 * 1024
    real_store.write("config_set", "maxmemory-policy", "allkeys-lru")
    real_store.write("config_set", "appendonly", "no")
    assert (real_store.facts().evicting, real_store.facts().appendonly) == (True, False)

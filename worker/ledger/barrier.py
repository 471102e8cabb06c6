"""The durability barrier: the intent to post is on disk before the last byte of the body leaves.

Otherwise a Redis that dies after the POST could come back without the intent, and the batch would be paid for twice.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import redis

from worker.ledger.store import LedgerFullError, LedgerRefusedError, LedgerUnavailableError, ServerFacts, Store

WAIT_MS = 2_000
HONEST_WAITAOF = (8, 0)
"""Redis before 8.0, and Valkey up to 9.1 (measured), confirm WAITAOF without an fsync under everysec."""


class NotDurableError(LedgerUnavailableError):
    """The intent could not be made durable. The POST is given up before its last byte; the batch is tried again."""


class Barrier(Protocol):
    """`kind` is always, waitaof, appendfsync or none; `reason` says why it was chosen."""

    @property
    def kind(self) -> str:
        """The word for it."""

    @property
    def reason(self) -> str:
        """Why it was chosen."""

    def durably(self, write: Callable[[Any], str]) -> str:
        """Run a write on a connection and return its answer; when that is OK, it is on disk.

        Raises NotDurableError when it may not be.
        """


@dataclass(frozen=True, slots=True)
class PlainBarrier:
    """The server syncs every write by itself (`always`), or nothing can make it (`none`: recovery is by token)."""

    kind: str
    reason: str

    def durably(self, write: Callable[[Any], str]) -> str:
        """Write; see the class."""
        return write(None)


@dataclass(frozen=True, slots=True)
class WaitAofBarrier:
    """WAITAOF on the connection that wrote; it takes up to a second under everysec."""

    store: Store
    reason: str
    kind: str = "waitaof"

    def durably(self, write: Callable[[Any], str]) -> str:
        """Write, then wait until the local AOF is synced."""
        with self.store.write_connection() as connection:
            answer = write(connection)
            if answer == "OK":
                synced = self.store.write("execute_command", "WAITAOF", 1, 0, WAIT_MS, on=connection)
                if int(synced[0]) < 1:
                    raise NotDurableError("Redis did not sync its AOF in time")
        return answer


class AppendFsyncBarrier:
    """Sets `appendfsync always` for the moment of the write: the reply then comes after the fsync (about 1 ms).

    Replicas take turns by a key that expires; whoever finds the turn no longer its own leaves the setting alone.
    A crash in between, or a Redis that is full, leaves `always`, slow but safe, and a mark by which the next turn knows
    to end it; `always` without the mark is the operator's own and stays.
    """

    kind = "appendfsync"
    TURN_MS = 3_000

    def __init__(self, *, store: Store, reason: str, owner: str, wait: Callable[[float], object]) -> None:
        self.reason = reason
        self._store = store
        self._owner = owner
        self._turns = itertools.count()
        self._wait = wait

    def durably(self, write: Callable[[Any], str]) -> str:
        """Write under `appendfsync always`."""
        # threads of one process take turns too, so every turn has a name of its own
        name = f"{self._owner} {next(self._turns)}".encode()
        with self._store.write_connection() as connection, self._turn(connection, name):
            answer = write(connection)
            held = self._store.write("get", self._store.keys.barrier, on=connection)
            if held != name:
                raise NotDurableError("the turn to sync Redis' AOF was lost")
        return answer

    @contextlib.contextmanager
    def _turn(self, connection: Any, name: bytes) -> Iterator[None]:
        keys, write = self._store.keys, self._store.write
        for _ in range(1000):
            if self._put(keys.barrier, name, connection, milliseconds=self.TURN_MS, only_new="yes") == "OK":
                break
            self._wait(0.005)
        else:
            raise NotDurableError("no turn to sync Redis' AOF came up")
        try:
            usual = write("config_get", "appendfsync", on=connection).get("appendfsync")
            if usual != "always":
                self._put(keys.barrier_mark, usual, connection, milliseconds="", only_new="no")
                write("config_set", "appendfsync", "always", on=connection)
            yield
        finally:
            try:
                self._store.transact(lambda held: self._end_turn(held, name), on=connection)
            except LedgerFullError:
                # a full Redis takes no transaction, and only one ends the setting safely: it stays as a crash leaves it
                self._store.say("drop", on=connection, key=keys.barrier, value=name)

    def _put(self, key: str, value: str | bytes, connection: Any, *, milliseconds: int | str, only_new: str) -> str:
        # a plain SET is refused by a full Redis, and what waits to be posted may be what fills it
        return self._store.say("put", on=connection, key=key, value=value, milliseconds=milliseconds, only_new=only_new)

    def _end_turn(self, connection: Any, name: bytes) -> None:
        keys = self._store.keys
        # a turn that runs out in the middle of its end is somebody else's to end
        with contextlib.suppress(redis.WatchError), connection.pipeline() as pipe:
            pipe.watch(keys.barrier)
            usual = pipe.get(keys.barrier_mark)
            if pipe.get(keys.barrier) == name:
                pipe.multi()
                if usual:
                    pipe.config_set("appendfsync", usual.decode())
                pipe.delete(keys.barrier_mark, keys.barrier)
                pipe.execute()


def _is_usual(store: Store) -> bool:
    """Whether `always` is the operator's own setting: looked up with our mark at one instant, between any two turns.

    One after the other, the setting would be seen in a turn of another process and the mark when it has ended.
    """

    def ask(connection: Any) -> bool:
        with connection.pipeline() as pipe:
            pipe.exists(store.keys.barrier_mark)
            pipe.config_get("appendfsync")
            marked, setting = pipe.execute()
            return not marked and setting.get("appendfsync") == "always"

    try:
        with store.write_connection() as connection:
            return bool(store.transact(ask, on=connection))
    except LedgerFullError:
        return False  # a full Redis takes no transaction; taking turns is right in either case


def choose_barrier(
    setting: str, *, store: Store, facts: ServerFacts, owner: str, wait: Callable[[float], object]
) -> Barrier:
    """Choose how the intent becomes durable on this server. `setting` is auto, waitaof, appendfsync, always or none.

    `always` believes the operator that the server syncs every write, where it lets nobody ask (CONFIG is forbidden).

    Raises LedgerUnavailableError: no answer is no refusal, and must not cost the barrier for the life of the process.
    """
    if setting == "none":
        return PlainBarrier("none", "redis.barrier says so")
    if not facts.appendonly:
        return PlainBarrier("none", "the server keeps no append-only file")
    if setting == "always":
        return PlainBarrier("always", "redis.barrier says so")
    if facts.appendfsync == "always" and not facts.lazy_on_rewrite and _is_usual(store):
        return PlainBarrier("always", "the server syncs every write")
    honest = facts.name == "redis" and facts.version >= HONEST_WAITAOF
    if setting == "waitaof" or (setting == "auto" and honest):
        return WaitAofBarrier(store, "redis.barrier says so" if setting == "waitaof" else "Redis 8.0 or later")
    if facts.lazy_on_rewrite:
        # even `always` is only a word then: during a rewrite or a snapshot Redis writes and does not sync
        return PlainBarrier("none", "no-appendfsync-on-rewrite is yes")
    try:
        # it is at "no"; to try appendfsync itself could end another replica's turn in the middle
        store.write("config_set", "no-appendfsync-on-rewrite", "no")
    except LedgerRefusedError:
        return PlainBarrier("none", "the server forbids CONFIG SET and its WAITAOF is no fsync")
    return AppendFsyncBarrier(
        store=store, reason="WAITAOF is missing or no fsync on this server", owner=owner, wait=wait
    )

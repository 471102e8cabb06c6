"""The barrier in force: chosen for the server that is there, and chosen anew for another one.

A failover may lead to a server without an append-only file, and an operator may switch it off: what was durable
yesterday is a hope today. So each intent is proved by the very connection that wrote it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from worker.ledger.barrier import Barrier, NotDurableError, choose_barrier
from worker.ledger.store import ServerFacts, Store


@dataclass(frozen=True, slots=True)
class _Choice:
    barrier: Barrier
    run_id: str


class BarrierInForce:
    """A barrier that stands for one life of one server. `doubtful` asks whoever watches Redis to `choose` anew."""

    def __init__(
        self, setting: str, *, store: Store, facts: ServerFacts, owner: str, wait: Callable[[float], object]
    ) -> None:
        self._setting = setting
        self._store = store
        self._owner = owner
        self._wait = wait
        self._choice = self._choose(facts)
        self.doubtful = False

    @property
    def kind(self) -> str:
        """The word for it."""
        return self._choice.barrier.kind

    @property
    def reason(self) -> str:
        """Why it was chosen."""
        return self._choice.barrier.reason

    def choose(self, facts: ServerFacts) -> bool:
        """Choose for the server with these facts; True when that changes the kind.

        Raises LedgerUnavailableError: then the old choice stands, and lets nothing through to another server.
        """
        before = self.kind
        self._choice = self._choose(facts)
        self.doubtful = False
        return self.kind != before

    def durably(self, write: Callable[[Any], str]) -> str:
        """Run a write on a connection and return its answer; when that is OK, it is as durable as `kind` says.

        Raises NotDurableError when it may not be.
        """
        choice = self._choice
        with self._store.write_connection() as own:
            return choice.barrier.durably(lambda connection: self._proved(write, connection or own, choice))

    def _choose(self, facts: ServerFacts) -> _Choice:
        barrier = choose_barrier(self._setting, store=self._store, facts=facts, owner=self._owner, wait=self._wait)
        return _Choice(barrier, facts.run_id)

    def _proved(self, write: Callable[[Any], str], connection: Any, choice: _Choice) -> str:
        answer = write(connection)
        if answer == "OK" and (trouble := self._trouble(connection, choice)):
            self.doubtful = True
            raise NotDurableError(trouble)
        return answer

    def _trouble(self, connection: Any, choice: _Choice) -> str:
        info = self._store.write("info", "server", "persistence", on=connection)
        if info.get("run_id") != choice.run_id:
            return "Redis is another server, or was restarted, since the barrier was chosen"
        if choice.barrier.kind == "none":
            return ""
        if not info.get("aof_enabled"):
            return "Redis' append-only file was switched off"
        if choice.barrier.kind == "always" and self._setting != "always":  # else nobody is let ask, and the word holds
            setting = self._store.write("config_get", "appendfsync", on=connection).get("appendfsync")
            return "" if setting == "always" else "Redis' appendfsync is always no more"
        return ""

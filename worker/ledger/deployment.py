"""What belongs to the whole deployment: its id, its lanes, its workspace, its share of the account's queue."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from worker.ledger.store import MIN_VERSION, LedgerRefusedError, ServerFacts, Store

SCHEMA = "1"
"""The shape of batchmill's data in Redis; a worker refuses a newer one."""

_OPEN = ("sealed", "submitting", "in_progress", "canceling")


@dataclass(frozen=True, slots=True)
class Deployment:
    """Reads and marks the deployment's keys."""

    store: Store

    def enter(self, new_id: str, *, life: str = "", life_at: float = 0.0) -> str:
        """Return the deployment's id, making it `new_id` on an empty Redis.

        A new id is noted with the server's present `life`, and from when on an entry belongs to it: 0.0, any does,
        where nothing of an earlier life can be known by that id.
        Raises LedgerRefusedError when the data is of a newer batchmill.
        """
        key = self.store.keys.deployment
        words = ["id", new_id, "schema", SCHEMA, "life", life, "life_at", repr(life_at)]
        self.store.run("mark", hash=key, unless="id", tail=words)
        found, schema = self.store.read("hmget", key, "id", "schema")
        if schema is None or int(schema) > int(SCHEMA):
            raise LedgerRefusedError("the data in Redis is of a newer batchmill; upgrade this one")
        return str(found.decode())

    def check_server(self) -> ServerFacts:
        """Return the server's facts; raises LedgerRefusedError when it is too old for `#!lua flags=allow-oom`."""
        facts = self.store.facts()
        if facts.version < MIN_VERSION:
            spelled = ".".join(map(str, facts.version))
            raise LedgerRefusedError(f"{facts.name} {spelled} is too old: batchmill needs Redis 7.0 or Valkey 8")
        return facts

    def incarnation(self) -> str:
        """Return the server's run_id, which is new with every start."""
        info: Mapping[str, object] = self.store.read("info", "server")
        return str(info.get("run_id", "unknown"))

    def life_began(self, incarnation: str) -> float:
        """Return since when this life of the server is known, dating it if nobody has. Older prompts may be forgotten.

        0.0: the deployment was made in it.
        """
        life, at = self.store.read("hmget", self.store.keys.deployment, "life", "life_at")
        if life is not None and life.decode() == incarnation:
            return float(at)
        now = self.store.now()
        self.note(life=incarnation, life_at=repr(now))
        return now

    def note(self, **fields: str) -> None:
        """Set fields of the deployment's record; an empty value deletes one."""
        pairs = [word for name, value in fields.items() for word in (name, value)]
        self.store.run("mark", hash=self.store.keys.deployment, unless="", tail=pairs)

    def recall(self, name: str) -> str | None:
        """Return one field of the deployment's record."""
        value = self.store.read("hget", self.store.keys.deployment, name)
        return None if value is None else str(value.decode())

    def lanes(self) -> list[str]:
        """Return the names of all lanes ever seen."""
        members: Iterable[bytes] = self.store.read("smembers", self.store.keys.lanes)
        return sorted(member.decode() for member in members)

    def register_lanes(self, lanes: Iterable[str]) -> None:
        """Add lanes to the registry."""
        names = list(lanes)
        if names:
            self.store.read("sadd", self.store.keys.lanes, *names)

    def discover_lanes(self) -> set[str]:
        """Look for streams that a plain XADD made in lanes nobody configured; walks the keyspace in small steps."""
        pattern = re.compile(re.escape(self.store.keys.prefix) + r"\{([a-z0-9][a-z0-9._-]{0,62})\}:prompts")
        names: set[str] = set()
        cursor = None
        while cursor != 0:
            cursor, found = self.store.read(
                "scan", cursor or 0, match=self.store.keys.prefix + "{*}:prompts", count=1000, _type="STREAM"
            )
            names |= {match[1] for key in found if (match := pattern.fullmatch(key.decode("utf-8", "replace")))}
        return names

    def reserve(self, lane: str, uid: str, count: int, limit: int) -> bool:
        """Count a batch against the account's queue; False when it would not fit now. Repeating it changes nothing."""
        answer = self.store.say(
            "reserve", in_flight=self.store.keys.in_flight, batch=f"{lane} {uid}", count=count, limit=limit
        )
        return answer == "OK"

    def release(self, batches: Iterable[tuple[str, str]]) -> None:
        """Give back the share of batches that are no longer in the account's queue."""
        fields = [f"{lane} {uid}" for lane, uid in batches]
        if fields:
            self.store.read("hdel", self.store.keys.in_flight, *fields)

    def in_flight(self) -> int:
        """Return how many prompts count against the account's queue."""
        values: list[bytes] = self.store.read("hvals", self.store.keys.in_flight)
        return sum(map(int, values))

    def sweep_in_flight(self) -> int:
        """Give back what crashed workers left behind; returns how many batches that were."""
        fields: Mapping[bytes, bytes] = self.store.read("hgetall", self.store.keys.in_flight)
        batches = [(lane, uid) for lane, _, uid in (field.decode().partition(" ") for field in fields)]
        states = self.store.read_all(("hget", self.store.keys.batch(lane, uid), "state") for lane, uid in batches)
        stale = [batch for batch, state in zip(batches, states, strict=True) if (state or b"").decode() not in _OPEN]
        self.release(stale)
        return len(stale)

    def record_waiting(self, nbytes: Mapping[str, int]) -> None:
        """Publish how many bytes each lane's stream takes, for the enqueue script's QFULL."""
        pairs = [word for lane, size in nbytes.items() for word in (lane, str(size))]
        pairs += ["total", str(sum(nbytes.values()))]
        self.store.run("mark", hash=self.store.keys.waiting, unless="", tail=pairs)

"""What belongs to the whole deployment: its id, its lanes, its workspace, its share of the account's queue."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from worker.core.names import LANE_NAME, is_lane_name
from worker.ledger.batches import Durably
from worker.ledger.keys import in_one_slot
from worker.ledger.store import MIN_VERSION, ONE_SLOT, LedgerRefusedError, LedgerUnavailableError, ServerFacts, Store

SCHEMA = "1"
"""The shape of batchmill's data in Redis; a worker refuses a newer one."""

_OPEN = ("sealed", "submitting", "in_progress", "canceling")


@dataclass(frozen=True, slots=True)
class Origin:
    """Who works in this Redis, and when it was found emptied (Unix seconds). `orphans` is None until counted."""

    id: str | None
    emptied_at: float | None
    orphans: int | None


@dataclass(frozen=True, slots=True)
class Deployment:
    """Reads and marks the deployment's keys."""

    store: Store

    def enter(self, new_id: str, *, life: str = "", life_at: float = 0.0) -> str:
        """Return the deployment's id, making it `new_id` on an empty Redis.

        A new id is noted with the server's present `life`, and from when on an entry belongs to it: 0.0, any does,
        where nothing of an earlier life can be known by that id.
        Raises LedgerRefusedError when the data is of a newer batchmill, LedgerUnavailableError too when Redis forgot.
        """
        key = self.store.keys.deployment
        words = ["id", new_id, "schema", SCHEMA, "life", life, "life_at", repr(life_at)]
        self.store.run("mark", hash=key, unless="id", tail=words)
        found, schema = self.store.read("hmget", key, "id", "schema")
        if found is None:
            raise LedgerUnavailableError("Redis was restarted, and has forgotten what was written just before")
        if schema is None or int(schema) > int(SCHEMA):
            raise LedgerRefusedError("the data in Redis is of a newer batchmill; upgrade this one")
        return str(found.decode())

    def origin(self) -> Origin:
        """Look at who works here."""
        fields = self.store.read("hmget", self.store.keys.deployment, "id", "emptied_at", "orphans")
        found, emptied_at, orphans = (value.decode() if value else None for value in fields)
        return Origin(found, float(emptied_at) if emptied_at else None, int(orphans) if orphans else None)

    def reclaim(self, own_id: str) -> bool:
        """Write our id into a Redis that has forgotten it, and that it has. False: somebody else was faster."""
        tail = ["id", own_id, "schema", SCHEMA, "emptied_at", repr(self.store.now())]
        return self.store.say("mark", hash=self.store.keys.deployment, unless="id", tail=tail) == "OK"

    def count_orphans(self, count: int) -> bool:
        """Note how many remote batches nobody will ever fetch. False: somebody else has counted them."""
        key = self.store.keys.deployment
        return self.store.say("mark", hash=key, unless="orphans", tail=["orphans", str(count)]) == "OK"

    def check_server(self) -> ServerFacts:
        """Return the server's facts; raises LedgerRefusedError when batchmill cannot work on it."""
        facts = self.store.facts()
        if facts.version < MIN_VERSION:
            told = f"{facts.name} {'.'.join(map(str, facts.version))} is too old: batchmill needs Redis 7.0 or Valkey 8"
            raise LedgerRefusedError(told, "upgrade the server, or leave redis.url empty for an embedded one")
        if facts.cluster and not in_one_slot(self.store.keys.prefix):
            raise LedgerRefusedError(
                "Redis runs in cluster mode, and batchmill needs all of its keys in one slot", ONE_SLOT
            )
        if facts.replica:
            raise LedgerRefusedError("this Redis is a read-only replica", "let redis.url lead to the master")
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

    def sync(self, durably: Durably, *, at: float) -> None:
        """Bring everything that was written before onto the disk; raises NotDurableError when it may not be there."""
        key = self.store.keys.deployment
        durably(lambda client: self.store.say("mark", on=client, hash=key, unless="", tail=["synced_at", repr(at)]))

    def rewrite_aof(self) -> bool:
        """Have Redis write its append-only file anew from what it holds; False where it may or will not.

        A server that lost power in the middle of a script's writes may keep the half of them in the file, unseen, and
        carry them out at its next start, after all that came since: prompts came back behind the cursor, and cursors
        went back (seen on Redis 7.0.15; valkey-io/valkey#4342 mends the server). A new file has no such half.
        """
        try:
            self.store.write("bgrewriteaof")
        except LedgerRefusedError:
            return False
        return True

    def recall(self, name: str) -> str | None:
        """Return one field of the deployment's record."""
        value = self.store.read("hget", self.store.keys.deployment, name)
        return None if value is None else str(value.decode())

    def lanes(self) -> list[str]:
        """Return the names of all lanes that are configured, or that something is left of.

        What producers may have put there that is no name is passed over.
        """
        members: Iterable[bytes] = self.store.read("smembers", self.store.keys.lanes)
        names = (member.decode("utf-8", "replace") for member in members)
        return sorted(name for name in names if is_lane_name(name))

    def register_lanes(self, lanes: Iterable[str]) -> None:
        """Add lanes to the registry."""
        names = list(lanes)
        if names:
            self.store.run("enroll", set=self.store.keys.lanes, tail=names)

    def strike_lanes(self, lanes: Iterable[str]) -> None:
        """Take lanes that are gone out of the registry; one that is used again is registered or discovered anew."""
        names = list(lanes)
        if names:
            self.store.read("srem", self.store.keys.lanes, *names)

    def discover_lanes(self) -> set[str]:
        """Look for streams that a plain XADD made in lanes nobody configured; walks the keyspace in small steps.

        A record without a stream counts, too: whoever wrote it just as the lane went has left it to nobody.
        """
        pattern = re.compile(re.escape(self.store.keys.prefix) + r"\{(" + LANE_NAME + r")\}:(prompts|lane)")
        names: set[str] = set()
        cursor = None
        while cursor != 0:
            cursor, keys = self.store.read("scan", cursor or 0, match=self.store.keys.prefix + "{*}:[lp]*", count=1000)
            found = [match for key in keys if (match := pattern.fullmatch(key.decode("utf-8", "replace")))]
            types = self.store.read_all(("type", match[0]) for match in found) if found else []
            names |= {
                match[1]
                for match, type_ in zip(found, types, strict=True)
                if type_ == {"prompts": b"stream", "lane": b"hash"}[match[2]]
            }
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
        """Publish how many bytes each lane's stream takes, for the enqueue script's QFULL; other lanes are gone."""
        noted: list[bytes] = self.store.read("hkeys", self.store.keys.waiting)
        gone = [name for each in noted if (name := each.decode()) not in nbytes and name != "total"]
        pairs = [word for lane in gone for word in (lane, "")]
        pairs += [word for lane, size in nbytes.items() for word in (lane, str(size))]
        pairs += ["total", str(sum(nbytes.values()))]
        self.store.run("mark", hash=self.store.keys.waiting, unless="", tail=pairs)

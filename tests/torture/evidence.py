"""What is left after a run, read from where it lies: the sink's files, the API's account, Redis, the logs."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from worker.ledger.keys import Keys
from worker.simulator.account import Account
from worker.simulator.audit import paid
from worker.simulator.options import Options

ANSWER = re.compile(r"A simulated answer to \d+ bytes of params, CRC-32 ([0-9a-f]{8})")
TEMPORARY = "*.tmp"
BROKEN = re.compile(r"Traceback|\"event\": ?\"role\.failed\"")
PERMANENT = {"deployment": "hash", "lanes": "set", "waiting": "hash"}
LANE_KEYS = re.compile(r"\{([a-z0-9][a-z0-9._-]*)\}:([a-z]+)(:.*)?")
MORTAL = frozenset({"batch", "unusable", "remote", "id"})
"""Keys of a lane that are named after a batch or a prompt: each must have an end of life."""

KNOCKS = "{knocks}"
SILENT_MS = 300_000
"""Workers that have been silent for so long should have been tidied away: two minutes, and a look every minute."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the file sink."""

    id: str
    file: str
    number: object
    result: str
    checksum: str | None
    custom_id: str | None


@dataclass(slots=True)
class Billing:
    """What the API's account says, by the mark that each prompt carries in `max_tokens`."""

    committed: Counter[int] = field(default_factory=Counter)
    billed: Counter[int] = field(default_factory=Counter)
    where: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    batches: int = 0
    strangers: int = 0
    open: int = 0
    lives: int = 0
    posts: Counter[str] = field(default_factory=Counter)


def read_rows(folder: Path) -> list[Row]:
    """Read every file that has its final name."""
    return [_row(json.loads(line), file.name) for file in sorted(folder.rglob("*.jsonl")) for line in _lines(file)]


def _lines(file: Path) -> Iterable[str]:
    return file.read_text("utf-8").split("\n")[:-1]


def _row(tree: dict[str, Any], file: str) -> Row:
    result = tree["result"]
    checksum = None
    if result["type"] == "succeeded":
        said = "".join(block["text"] for block in result["message"]["content"])
        match = ANSWER.match(said)
        checksum = match[1] if match else None
    metadata = tree["metadata"]
    number = metadata.get("n") if isinstance(metadata, dict) else None
    return Row(tree["id"], file, number, result["type"], checksum, tree["custom_id"])


def read_temporary(folder: Path) -> list[Path]:
    """Find files of deliveries that never ended."""
    return sorted(folder.rglob(TEMPORARY))


def read_billing(account: Path, *, first_mark: int) -> Billing:
    """Read the account that the API kept, without the API."""
    opened = Account.open(Options(keep=account))
    try:
        now = opened.timeline.now()
        found = Billing(lives=opened.life, posts=Counter(opened.audit.outcomes))
        for batch in opened.remote.batches():
            if batch.foreign:
                found.strangers += 1
                continue
            found.batches += 1
            found.open += batch.ended_at(now) is None
            rows = opened.remote.rows(batch)
            for index in range(batch.count):
                found.committed[rows.record(index)[2] - first_mark] += 1
            for index in paid(batch, rows, now):
                number = rows.record(index)[2] - first_mark
                found.billed[number] += 1
                found.where[number].append(rows.ids[index])
        return found
    finally:
        opened.close()


def read_leftovers(client: redis.Redis, prefix: str = "batchmill:") -> list[str]:
    """Compare every key in Redis with what `ledger/keys.py` lets remain once everything is settled."""
    found: Any = client.scan_iter(count=1000)
    complaints = [_complaint(client, key.decode(), prefix) for key in found]
    return sorted(complaint for complaint in complaints if complaint)


def _complaint(client: redis.Redis, key: str, prefix: str) -> str | None:
    if not key.startswith(prefix):
        return f"{key}: not ours"
    name = key.removeprefix(prefix)
    if name in PERMANENT:
        return None
    if name.startswith(KNOCKS):
        return _knocks(client, key, name)
    match = LANE_KEYS.fullmatch(name)
    if match is None:
        return f"{key}: still there"
    return _lane_key(client, key, lane=match[1], kind=match[2], named=match[3] is not None, prefix=prefix)


def _lane_key(client: redis.Redis, key: str, *, lane: str, kind: str, named: bool, prefix: str) -> str | None:
    if named:
        ttl: Any = client.ttl(key)
        return None if kind in MORTAL and ttl >= 0 else f"{key}: no end of life"
    keys = Keys(prefix)
    if key in (keys.lane(lane), keys.settled(lane), keys.dead(lane)):
        return None
    if key == keys.prompts(lane):
        length: Any = client.xlen(key)
        return f"{key}: {length} prompts" if length else None
    return f"{key}: still there"


def _knocks(client: redis.Redis, key: str, name: str) -> str | None:
    """Knocks nobody has fetched are leftovers; what a dead worker had fetched is, once it should have been tidied."""
    kind = client.type(key)
    if kind == b"list":
        return f"{key}: knocks that nobody fetched"
    if "__acks__" not in name:
        return None
    worker = name.split("__acks__.", 1)[1].rsplit(".", 1)[0]
    beat: Any = client.zscore(f"{key.partition(KNOCKS)[0]}{KNOCKS}:__heartbeats__", worker)
    seconds: Any = client.time()
    if beat is None:
        return f"{key}: of a worker that nobody knows"
    return f"{key}: of a worker long dead" if beat < seconds[0] * 1000 - SILENT_MS else None


def read_states(client: redis.Redis, lanes: Iterable[str], prefix: str = "batchmill:") -> list[tuple[str, str, str]]:
    """Return (lane, uid and what is known of it, state) of every batch that is not settled."""
    keys, found = Keys(prefix), []
    for lane in lanes:
        members: Any = client.zrange(keys.due(lane), 0, -1, withscores=True)
        for raw, score in members:
            fields: Any = client.hgetall(keys.batch(lane, raw.decode()))
            known = {name.decode(): value.decode() for name, value in fields.items()}
            about = " ".join(f"{name}={known[name]}" for name in ABOUT if known.get(name))
            found.append((lane, f"{raw.decode()} due={score:.0f} {about}", known.get("state", "none")))
    return found


ABOUT = ("attempt", "count", "remote_id", "doubt", "doubt_at", "failures", "misses", "reason", "seen", "ruled_out")


def read_logs(directory: Path) -> tuple[Counter[str], list[str]]:
    """Count what daemons told, by event, and return what no daemon should ever have to tell."""
    told: Counter[str] = Counter()
    broken: list[str] = []
    for file in sorted(directory.glob("*.log")):
        with file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if BROKEN.search(line):
                    broken.append(f"{file.name}: {line.strip()[:2000]}")
                if line.startswith('{"timestamp"'):
                    told[_event(line)] += 1
    return told, broken


def _event(line: str) -> str:
    try:
        said = json.loads(line)
    except ValueError:
        return "unreadable line"
    more = said.get("resolution") or said.get("kind") or ""
    event = str(said.get("event"))
    if " " in event:
        return "dramatiq: " + " ".join(re.sub(r"[^A-Za-z ].*", "", event, flags=re.DOTALL).split()[:6])
    return f"{event} {more}".strip()

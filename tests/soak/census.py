"""A census of Redis: every key is of a kind that `worker/ledger/keys.py` certifies, has an owner, or will expire."""

import inspect
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from redis import Redis

from worker.actors import Queue
from worker.ledger.keys import PERMANENT, Keys

LOOKS = 6
"""A key is a stray only if it is one in so many looks in a row: a census is no snapshot, and batches move meanwhile."""

PAUSE = 0.7
LANE, NAME = "soak.lane", "soak.name"

_CERTIFICATE = re.compile(r"(STREAM|HASH|ZSET|SET|STRING)\b.*?[;:].*?(?P<end>\S.*)", re.DOTALL)
_END = re.compile(r"\b(dies|lives|expires|leaves|trimmed|rewritten|deleted|goes)\b")


class Owner(StrEnum):
    """Who keeps a key of a kind alive, and with whom it dies."""

    DEPLOYMENT = "the deployment"
    LANE = "its lane, as long as that is registered"
    BATCH = "its batch until it is settled, then time"
    TIME = "time"
    TURN = "the turn of a barrier"


OWNERS = {
    **dict.fromkeys(PERMANENT, Owner.DEPLOYMENT),
    **dict.fromkeys(("prompts", "lane", "due", "fences", "settled", "dead", "unposted"), Owner.LANE),
    **dict.fromkeys(("batch", "unusable"), Owner.BATCH),
    **dict.fromkeys(("dedupe", "remote", "barrier"), Owner.TIME),
    "barrier_mark": Owner.TURN,
}
"""The owner of each kind in `Keys`. A kind that is missing here has been added without asking this question."""


class UncertifiedError(Exception):
    """A kind of key that does not say its type, its end of life or its owner."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of key: what its names look like, its type in Redis, and who keeps it."""

    name: str
    pattern: re.Pattern[str]
    type: str
    owner: Owner


def certified(prefix: str) -> list[Kind]:
    """Read the birth certificates of all kinds of keys. Raises UncertifiedError."""
    return [_kind(name, member, Keys(prefix)) for name, member in vars(Keys).items() if _is_kind(name, member)]


def _is_kind(name: str, member: object) -> bool:
    return not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property))


def _kind(name: str, member: Any, keys: Keys) -> Kind:
    certificate = _CERTIFICATE.match(member.__doc__ or "")
    if certificate is None or not _END.search(certificate["end"]):
        raise UncertifiedError(f"Keys.{name} does not say its type and when it dies")
    if name not in OWNERS:
        raise UncertifiedError(f"Keys.{name} has no owner in OWNERS")
    found = getattr(keys, name)
    if not isinstance(member, property):
        given = (LANE, NAME)[: len(inspect.signature(member).parameters) - 1]
        found = found(*given)
    pattern = re.escape(found).replace(re.escape(LANE), r"(?P<lane>[a-z0-9][a-z0-9._-]*)")
    pattern = pattern.replace(re.escape(NAME), "(?P<name>.*)")
    return Kind(name, re.compile(pattern, re.DOTALL), certificate[1].lower(), OWNERS[name])


@dataclass(slots=True)
class Census:
    """What was found: keys by kind, members of collections by kind, and what has no right to be there."""

    keys: Counter[str] = field(default_factory=Counter)
    members: Counter[str] = field(default_factory=Counter)
    strays: set[str] = field(default_factory=set)
    settled: set[tuple[str, str]] = field(default_factory=set)


def take(client: "Redis", prefix: str = "batchmill:") -> Census:
    """Count everything, and look again at what seems to be a stray until it is sure to be one."""
    census = _look(client, prefix)
    for _ in range(LOOKS - 1):
        if not census.strays:
            break
        time.sleep(PAUSE)
        census.strays &= _look(client, prefix).strays
    return census


def _look(client: Any, prefix: str) -> Census:
    kinds, census = certified(prefix), Census()
    names = [key.decode("utf-8", "replace") for key in client.scan_iter(count=1000)]
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.ttl(name)
            pipe.type(name)
        answers = pipe.execute()
    registered = {lane.decode() for lane in client.smembers(Keys(prefix).lanes)}
    live = {lane: _uids(client.zrange(Keys(prefix).due(lane), 0, -1)) for lane in registered}
    knocks = f"{prefix}{{knocks}}:"
    for name, ttl, type_ in zip(names, answers[::2], answers[1::2], strict=True):
        if ttl == -2:  # gone since
            continue
        if name.startswith(knocks):
            _count_knocks(census, client, name, name.removeprefix(knocks), type_.decode())
            continue
        kind, match = _identify(kinds, name)
        if kind is None or match is None:
            census.strays.add(f"{name} is of no kind in ledger/keys.py")
            continue
        census.keys[kind.name] += 1
        census.members[kind.name] += _size(client, name, type_.decode())
        if kind.type != type_.decode():
            census.strays.add(f"{name} is a {type_.decode()}, not a {kind.type}")
        if ttl < 0 and (complaint := _complaint(kind, match.groupdict(), live)):
            census.strays.add(f"{name} {complaint}")
    _ask_members(census, client, Keys(prefix), live)
    _ask_knocks(census, client, knocks)
    return census


def _identify(kinds: Iterable[Kind], name: str) -> tuple[Kind | None, re.Match[str] | None]:
    for kind in kinds:
        if match := kind.pattern.fullmatch(name):
            return kind, match
    return None, None


def _complaint(kind: Kind, parts: dict[str, str], live: dict[str, set[str]]) -> str:
    """Say why a key that will not expire has no right to be there; empty if it has."""
    lane = parts.get("lane", "")
    match kind.owner:
        case Owner.LANE if lane not in live:
            return "belongs to a lane that nobody knows"
        case Owner.BATCH if parts["name"] not in live.get(lane, set()):
            return "will not expire, and its batch is not live"
        case Owner.TIME | Owner.TURN:
            return "will not expire"
        case _:
            return ""


def _ask_members(census: Census, client: Any, keys: Keys, live: dict[str, set[str]]) -> None:
    """Ask the members of collections that live as long as something else for that something."""
    for lane, uids in live.items():
        found = _uids(client.hkeys(keys.fences(lane))) | _uids(client.zrange(keys.unposted(lane), 0, -1))
        census.strays |= {f"{uid} outlives its batch in lane {lane}" for uid in found - uids}
        census.settled |= {(lane, uid) for uid in _uids(client.zrange(keys.settled(lane), 0, -1))}
    for share in _uids(client.hkeys(keys.in_flight)):
        lane, _, uid = share.partition(" ")
        if uid not in live.get(lane, set()):
            census.strays.add(f"{share} has a share of the queue and is not live")
    weighed = _uids(client.hkeys(keys.waiting)) - {"total"}
    census.strays |= {f"{lane} is weighed in {keys.waiting} and not registered" for lane in weighed - live.keys()}


def _count_knocks(census: Census, client: Any, name: str, tail: str, type_: str) -> None:
    queues = "|".join(Queue)
    if not re.fullmatch(rf"({queues})(\.msgs)?|__heartbeats__|__acks__\..+\.({queues})", tail):
        census.strays.add(f"{name} is nothing that knocks leave")
    census.keys["knocks"] += 1
    census.members["knocks"] += _size(client, name, type_)


def _ask_knocks(census: Census, client: Any, knocks: str) -> None:
    """Ask for what dramatiq leaves behind: fetched knocks of workers unheard of, messages that nobody will fetch."""
    workers = _uids(client.zrange(f"{knocks}__heartbeats__", 0, -1))
    known: dict[str, set[str]] = {queue: _uids(client.lrange(f"{knocks}{queue}", 0, -1)) for queue in Queue}
    for key in _uids(client.scan_iter(match=f"{knocks}__acks__.*", count=1000)):
        worker, _, queue = key.removeprefix(f"{knocks}__acks__.").rpartition(".")
        if worker not in workers:
            census.strays.add(f"{key} is of a worker that is gone")
        known.setdefault(queue, set()).update(_uids(client.smembers(key)))
    for queue in Queue:
        lost = _uids(client.hkeys(f"{knocks}{queue}.msgs")) - known[queue]
        census.strays |= {f"knock {each} of {queue} will never be fetched" for each in lost}


def _size(client: Any, name: str, type_: str) -> int:
    sizes: dict[str, Callable[[str], int]] = {
        "hash": client.hlen,
        "zset": client.zcard,
        "set": client.scard,
        "stream": client.xlen,
        "list": client.llen,
    }
    return sizes[type_](name) if type_ in sizes else 1


def _uids(found: Iterable[bytes]) -> set[str]:
    return {each.decode() for each in found}

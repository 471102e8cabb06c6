"""What of a server endangers a promise: `batchmill check` and every daemon say it, with what to do."""

from dataclasses import dataclass

from worker.ledger.store import ServerFacts


@dataclass(frozen=True, slots=True)
class Weakness:
    """One weakness. A `grave` one may cost prompts whatever batchmill does; one nobody can want `fails` a check."""

    word: str
    detail: str
    hint: str
    grave: bool = False
    fails: bool = False


EVICTS = Weakness(
    "eviction",
    "Redis may evict prompts when it is full",
    "set maxmemory-policy noeviction",
    grave=True,
    fails=True,
)
SNAPSHOTS = Weakness(
    "append-only file", "off: what came since the last snapshot dies with Redis", "set appendonly yes", grave=True
)
NO_FILE = Weakness("append-only file", "off: what Redis holds dies with it", "set appendonly yes", grave=True)
NO_FSYNC = Weakness(
    "fsync",
    "appendfsync no: prompts of the last half minute die with the machine",
    "set appendfsync everysec",
)
LAZY = Weakness(
    "fsync on rewrite",
    "no-appendfsync-on-rewrite yes: during a rewrite nothing is made durable",
    "set no-appendfsync-on-rewrite no",
)


def weaknesses(facts: ServerFacts) -> list[Weakness]:
    """Return what is weak about a server on which batchmill can work."""
    found = []
    if facts.evicting:
        found.append(EVICTS)
    if not facts.appendonly:
        found.append(SNAPSHOTS if facts.snapshots else NO_FILE)
    elif facts.appendfsync == "no":
        found.append(NO_FSYNC)
    if facts.appendonly and facts.lazy_on_rewrite:
        found.append(LAZY)
    return found

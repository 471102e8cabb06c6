"""What `batchmill check` finds out about Redis."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from worker.cli.check import Finding, fail, ok, warn
from worker.cli.reach import running_embedded
from worker.cli.settings import EX_UNAVAILABLE
from worker.clock import Clock
from worker.config import redact_url
from worker.embedded import EmbeddedUnavailable, find_program
from worker.ledger.barrier import choose_barrier
from worker.ledger.fitness import weaknesses
from worker.ledger.ledger import Ledger
from worker.ledger.store import LedgerRefusedError, LedgerUnavailableError, Store

if TYPE_CHECKING:
    from worker.config import Config
    from worker.ledger.store import ServerFacts

ROOM = 0.7
"""The share of Redis' memory that waiting prompts may take: batches, dead letters and ids need the rest."""


def look_at_redis(config: "Config") -> Iterator[Finding]:
    """Look at the server that is configured, at the embedded one that runs, or at the one that would be started."""
    url = config.redis.url or running_embedded(config)
    if url is None:
        yield _startable(config)
        return
    where = redact_url(config.redis.url) or f"embedded in {config.redis.directory}"
    store = None
    try:
        store = Store.connect(url, config.redis.prefix)
        facts = Ledger.over(store).deployment.check_server()
        version = ".".join(map(str, facts.version))
        yield ok("Redis", f"{where}: {facts.name} {version}")
        yield from _settings(config, facts)
        yield _barrier(config, store, facts)
    except LedgerRefusedError as error:
        yield fail("Redis", f"{where}: {error}", error.hint, EX_UNAVAILABLE)
    except LedgerUnavailableError as error:
        yield fail("Redis", f"{where}: {error}", "is redis.url right, and does the server run?", EX_UNAVAILABLE)
    finally:
        if store is not None:
            store.close()


def _startable(config: "Config") -> Finding:
    try:
        program = find_program(lambda _event, **_facts: None)
    except EmbeddedUnavailable as error:
        return fail("Redis", str(error), "", EX_UNAVAILABLE)
    return ok("Redis", f"embedded: {program.product} {program.version} would be started in {config.redis.directory}")


def _settings(config: "Config", facts: "ServerFacts") -> Iterator[Finding]:
    found = {weakness.word: weakness for weakness in weaknesses(facts)}
    fine = {"append-only file": f"on, appendfsync {facts.appendfsync}", "eviction": "noeviction"}
    for what in dict.fromkeys([*fine, *found]):
        weakness = found.get(what)
        if weakness is None:
            yield ok(what, fine[what])
        else:
            yield (fail if weakness.fails else warn)(what, weakness.detail, weakness.hint)
    limit, waiting = facts.max_memory, config.intake.max_bytes
    if limit and waiting > limit * ROOM:
        told = f"{limit} bytes, and intake.max_bytes lets {waiting} bytes of prompts wait"
        hint = f"set intake.max_bytes to {int(limit * ROOM)} or less: producers are told QFULL before Redis is full"
        yield warn("memory", told, hint)
    else:
        yield ok("memory", f"{limit} bytes" if limit else "unlimited")


def _barrier(config: "Config", store: Store, facts: "ServerFacts") -> Finding:
    clock = Clock()
    barrier = choose_barrier(config.redis.barrier, store=store, facts=facts, owner="check", wait=clock.sleep)
    told = f"{barrier.kind}: {barrier.reason}"
    if barrier.kind == "none":
        return warn("barrier", told, "after a crash of Redis lanes wait until every doubt is resolved by token")
    return ok("barrier", told)

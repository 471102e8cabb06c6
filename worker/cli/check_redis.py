"""What `batchmill check` finds out about Redis."""

from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

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
        store = Store.connect(url, config.redis.prefix, access=config.redis.access)
        facts = Ledger.over(store).deployment.check_server()
        version = ".".join(map(str, facts.version))
        yield ok("Redis", f"{where}: {facts.name} {version}")
        yield from _settings(config, facts)
        yield from _default_user(store, facts)
        yield from _verified(config)
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


def _default_user(store: Store, facts: "ServerFacts") -> Iterator[Finding]:
    """Warn of a restart that would lose data: some servers read their append-only file with the default user's rights.

    Seen on Redis 7.0.15; what scripts have written stands there as transactions, and of these nothing is left.
    """
    try:
        user = store.read("acl_getuser", "default")
    except (LedgerRefusedError, LedgerUnavailableError):
        return  # we have no right to ask
    if facts.appendonly and user is not None and "+@all" not in user["categories"]:
        hint = "switch it off by `user default off resetpass ~* &* +@all`: off is enough"
        yield fail("default user", "without its rights a restart of Redis may lose what scripts have written", hint)


def _verified(config: "Config") -> Iterator[Finding]:
    query = parse_qs(urlsplit(config.redis.url).query)
    if "none" in query.get("ssl_cert_reqs", []) or "false" in query.get("ssl_check_hostname", []):
        hint = "name its authority in redis.tls_ca_file, and leave ssl_… out of redis.url"
        yield warn("TLS", "redis.url lets anybody pass for this server", hint)


def _barrier(config: "Config", store: Store, facts: "ServerFacts") -> Finding:
    clock = Clock()
    barrier = choose_barrier(config.redis.barrier, store=store, facts=facts, owner="check", wait=clock.sleep)
    told = f"{barrier.kind}: {barrier.reason}"
    if barrier.kind == "none":
        unheeded = "; poll.delete_when_settled is not heeded" if config.poll.delete_when_settled else ""
        hint = "after a crash of Redis lanes wait until every doubt is resolved by token"
        return warn("barrier", told, hint + unheeded)
    return ok("barrier", told)

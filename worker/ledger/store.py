"""The one seam to Redis: connections, scripts, and errors that name who is to blame."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry

from worker.ledger.keys import Keys
from worker.ledger.scripts import MAX_TAIL, Script, read_scripts

Value = str | int | bytes

MIN_VERSION = (7, 0)
REPEATABLE = frozenset(
    {"accept", "describe", "finish", "mark", "note_unusable", "probe", "renew", "reserve", "settle"}
)
"""Scripts that may run twice for one call: a lost reply is asked for again instead of being passed on."""


class LedgerUnavailableError(Exception):
    """Redis cannot be reached or cannot answer now. Nothing is lost: the step is taken again."""


class LedgerFullError(Exception):
    """Redis refuses to take more in (maxmemory, or `intake.max_bytes`). The producer keeps the prompt and tries later."""


class LedgerRefusedError(Exception):
    """Redis is there but unfit (too old, or refuses our commands); an operator has to change it."""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server says of itself. `run_id` is new with every start; `was_replica` after a promotion."""

    name: str
    version: tuple[int, ...]
    run_id: str
    was_replica: bool
    appendonly: bool
    appendfsync: str
    evicting: bool
    max_memory: int


class Store:
    """Runs scripts and reads on one Redis.

    Two clients: `once` never repeats a command (a repeated compare-and-set would answer STALE for our own success),
    `again` repeats reads and the scripts of REPEATABLE twice. redis-py's own default is ten repeats of everything.
    """

    def __init__(self, *, once: "redis.Redis[bytes] | Any", again: Any, keys: Keys, flags: bool = True) -> None:
        self.keys = keys
        self._once = once
        self._again = again
        self._scripts: dict[str, tuple[Script, Any]] = {
            name: (script, (again if name in REPEATABLE else once).register_script(script.text))
            for name, script in read_scripts(flags=flags).items()
        }

    @classmethod
    def connect(cls, url: str, prefix: str, *, timeout: float = 5.0) -> "Store":
        """Open a store for `redis://`, `rediss://` or `unix://`; nothing is sent yet. `timeout` in seconds per command."""
        options: dict[str, Any] = {
            "socket_timeout": timeout,
            "socket_connect_timeout": min(timeout, 2.0),
            "socket_keepalive": True,
            "health_check_interval": 30,
        }
        if url.startswith("unix:"):
            del options["socket_keepalive"]
        try:
            once = redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **options)
            again = redis.Redis.from_url(url, retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), 2), **options)
        except ValueError as error:
            raise LedgerRefusedError("redis.url is no redis://, rediss:// or unix:// address") from error
        return cls(once=once, again=again, keys=Keys(prefix))

    def run(
        self, name: str, *, tail: Sequence[Value] = (), tail_keys: Sequence[str] = (), **named: Value
    ) -> Any:
        """Run a script; `tail` follows its named arguments, `tail_keys` its named keys. Answers bytes, int or lists."""
        if len(tail) > MAX_TAIL:
            raise ValueError(f"script {name}: a tail of {len(tail)} values is too long for Lua")
        script, call = self._scripts[name]
        keys, args = script.arrange(named)
        return self._reach(lambda: call(keys=[*keys, *tail_keys], args=[*args, *tail]))

    def say(self, name: str, *, tail: Sequence[Value] = (), tail_keys: Sequence[str] = (), **named: Value) -> str:
        """Run a script that answers with a word."""
        return cast("bytes", self.run(name, tail=tail, tail_keys=tail_keys, **named)).decode()

    def read(self, ask: Callable[[Any], Any]) -> Any:
        """Ask something that changes nothing; a broken connection is tried again."""
        return self._reach(lambda: ask(self._again))

    def write(self, tell: Callable[[Any], Any]) -> Any:
        """Send a command that may be sent once only."""
        return self._reach(lambda: tell(self._once))

    def pipeline(self, commands: Iterable[Callable[[Any], Any]]) -> list[Any]:
        """Send several reads in one round trip; a reply that is an error is returned in its place."""

        def ask(client: Any) -> Any:
            with client.pipeline(transaction=False) as pipe:
                for command in commands:
                    command(pipe)
                return pipe.execute(raise_on_error=False)

        answers: list[Any] = self.read(ask)
        return answers

    def now(self) -> float:
        """Return Redis' clock, the only one that decisions use, in Unix seconds."""
        seconds, micros = self.read(lambda client: client.time())
        return float(seconds) + float(micros) / 1e6

    def facts(self) -> ServerFacts:
        """Ask the server about itself."""
        info: dict[str, Any] = self.read(lambda client: client.info())
        replication_id = str(info.get("master_replid2", ""))
        version = str(info.get("valkey_version") or info.get("redis_version", "0"))
        return ServerFacts(
            name="valkey" if info.get("server_name") == "valkey" or "valkey_version" in info else "redis",
            version=tuple(int(part) for part in version.split(".")[:3] if part.isdigit()),
            run_id=str(info.get("run_id", "unknown")),
            was_replica=replication_id.strip("0") != "",
            appendonly=bool(info.get("aof_enabled")),
            appendfsync=self._config("appendfsync", "unknown"),
            evicting=str(info.get("maxmemory_policy", "noeviction")) != "noeviction",
            max_memory=int(info.get("maxmemory", 0)),
        )

    def close(self) -> None:
        """Close all connections."""
        self._once.close()
        self._again.close()

    def _config(self, name: str, default: str) -> str:
        try:
            answer: dict[str, str] = self.read(lambda client: client.config_get(name))
        except (LedgerRefusedError, LedgerUnavailableError):
            return default  # a managed Redis may forbid CONFIG
        return str(answer.get(name, default))

    @staticmethod
    def _reach(ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except redis.OutOfMemoryError as error:
            raise LedgerFullError("Redis is at maxmemory: it takes no new data until some is freed") from error
        except (redis.ConnectionError, redis.TimeoutError, redis.ReadOnlyError) as error:
            if isinstance(error, redis.AuthenticationError | redis.AuthorizationError):
                raise LedgerRefusedError(f"Redis refuses to let us in ({type(error).__name__})") from None
            raise LedgerUnavailableError(f"Redis cannot be reached ({type(error).__name__})") from None
        except redis.ResponseError as error:
            word = str(error).split(" ", 1)[0]
            if word == "OOM" or "OOM command not allowed" in str(error):
                raise LedgerFullError("Redis is at maxmemory: it takes no new data until some is freed") from None
            if word in {"BUSY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "UNBLOCKED"}:
                raise LedgerUnavailableError(f"Redis cannot answer now ({word})") from None
            raise LedgerRefusedError(f"Redis refuses a command ({word})") from error

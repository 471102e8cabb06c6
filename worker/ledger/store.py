"""The one seam to Redis: connections, scripts, and errors that name who is to blame."""

import re
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry

from worker.connections import open_client
from worker.core.access import FROM_URL, RedisAccess
from worker.ledger.keys import Keys, in_one_slot
from worker.ledger.scripts import MAX_TAIL, Script, read_scripts

Value = str | int | bytes

MIN_VERSION = (7, 0)
REPEATABLE = frozenset(
    {
        *("accept", "describe", "enroll", "finish", "glance", "mark", "note_unusable", "probe", "put", "renew"),
        *("reserve", "settle", "tidy"),
    }
)
"""Scripts that may run twice for one call: a lost reply is asked for again instead of being passed on."""


_FORBIDDEN = re.compile(r"no permissions to run the '([a-z|]+)' command")

_PASSING = (redis.exceptions.ClusterDownError, redis.exceptions.TryAgainError, redis.exceptions.AskError)
"""Keys change hands: MASTERDOWN (a kind of the first), CLUSTERDOWN, TRYAGAIN, ASK."""

ONE_SLOT = 'in a cluster, redis.prefix needs a hash tag, as in "{mill}:", and redis.url the scheme redis+cluster://'

_HINTS = {
    "unknown": "is it a Redis of 7.0 or later?",
    "NoPermissionError": "give the user of redis.url the commands and keys that it needs",
    "DENIED": "the server is in protected mode: give it a password, or bind it to where the workers are",
    "MISCONF": "the server cannot save to its disk: look at its log",
    "NOREPLICAS": "the server misses the replicas that min-replicas-to-write asks for",
    "CROSSSLOT": ONE_SLOT,
}
"""What to do about an error of Redis, by its word."""


class LedgerUnavailableError(Exception):
    """Redis cannot be reached or cannot answer now. Nothing is lost: the step is taken again."""


class LedgerFullError(Exception):
    """Redis takes no more in (maxmemory, or `intake.max_bytes`): the producer keeps the prompt and tries later."""


class LedgerRefusedError(Exception):
    """Redis is there but unfit (too old, or refuses our commands); an operator has to change it. `hint` says how."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server says of itself. `run_id` is new with every start; `was_replica` after a promotion.

    `lazy_on_rewrite`: it does not sync its append-only file while it rewrites it or takes a snapshot. `rewritten`: it
    has rewritten that file in its present life, or is at it.
    """

    name: str
    version: tuple[int, ...]
    run_id: str
    was_replica: bool
    appendonly: bool
    appendfsync: str
    evicting: bool
    max_memory: int
    replica: bool = False
    cluster: bool = False
    snapshots: bool = False
    lazy_on_rewrite: bool = False
    rewritten: bool = True


class Store:
    """Runs scripts and reads on one Redis.

    Two clients: `once` never repeats a command (a repeated compare-and-set would answer STALE for our own success),
    `again` repeats reads and the scripts of REPEATABLE twice. redis-py's own default is ten repeats of everything.
    """

    def __init__(self, *, once: Any, again: Any, keys: Keys, flags: bool = True) -> None:
        self.keys = keys
        self._once = once
        self._again = again
        self._scripts: dict[str, tuple[Script, Any]] = {
            name: (script, (again if name in REPEATABLE else once).register_script(script.text))
            for name, script in read_scripts(flags=flags).items()
        }

    @classmethod
    def connect(cls, url: str, prefix: str, *, access: RedisAccess = FROM_URL, timeout: float = 5.0) -> "Store":
        """Open a store, see `open_client`; nothing is sent yet. `timeout`: seconds a command."""
        if "+cluster://" in url and not in_one_slot(prefix):
            raise LedgerRefusedError("the keys of this prefix are in many slots of a cluster", ONE_SLOT)
        options: dict[str, Any] = {
            **access.options(url),
            "socket_timeout": timeout,
            "socket_connect_timeout": min(timeout, 2.0),
            "socket_keepalive": True,
            "health_check_interval": 30,
        }
        if url.startswith("unix:"):
            del options["socket_keepalive"]
        try:
            once = open_client(url, prefix=prefix, retry=Retry(NoBackoff(), 0), **options)
            repeats = Retry(ExponentialBackoff(cap=0.5, base=0.05), 2)
            again = open_client(url, prefix=prefix, retry=repeats, **options)
            once.connection_pool.make_connection()  # opens nothing; what is odd behind a ? is only seen here
        except (ValueError, TypeError, redis.RedisError) as error:
            raise LedgerRefusedError("redis.url is no address of a Redis, of Sentinels or of a cluster") from error
        return cls(once=once, again=again, keys=Keys(prefix))

    def run(
        self,
        name: str,
        *,
        tail: Sequence[Value] = (),
        tail_keys: Sequence[str] = (),
        on: Any = None,
        **named: Value,
    ) -> Any:
        """Run a script; `tail` follows its named arguments, `tail_keys` its named keys. Answers bytes, int or lists.

        `on` is a connection of `write_connection`, for writes that something else must follow on the same one.
        """
        if len(tail) > MAX_TAIL:
            raise ValueError(f"script {name}: a tail of {len(tail)} values is too long for Lua")
        script, call = self._scripts[name]
        keys, args = script.arrange(named)
        return self._reach(lambda: call(keys=[*keys, *tail_keys], args=[*args, *tail], client=on))

    def run_many(self, name: str, calls: Sequence[tuple[Mapping[str, Value], Sequence[Value]]]) -> list[Any]:
        """Run a script once for each (named arguments, tail), in one round trip; never twice unless REPEATABLE.

        A call that failed has one of the ledger's errors in its place. When LedgerUnavailableError is raised instead,
        nobody knows which of the calls were made.
        """
        script, registered = self._scripts[name]
        client = self._again if name in REPEATABLE else self._once
        words = []
        for named, tail in calls:
            keys, args = script.arrange(dict(named))
            words.append((len(keys), *keys, *args, *tail))

        def ask(wanted: Sequence[int]) -> list[Any]:
            with client.pipeline(transaction=False) as pipe:
                for at in wanted:
                    pipe.evalsha(registered.sha, *words[at])
                return cast("list[Any]", pipe.execute(raise_on_error=False))

        answers = self._reach(lambda: ask(range(len(words))))
        # a restarted server has forgotten the script, and has run none of these
        unknown = [at for at, answer in enumerate(answers) if isinstance(answer, redis.exceptions.NoScriptError)]
        if unknown:
            self.read("script_load", script.text)
            for at, answer in zip(unknown, self._reach(lambda: ask(unknown)), strict=True):
                answers[at] = answer
        return [self._blamed(answer) if isinstance(answer, Exception) else answer for answer in answers]

    def say(
        self,
        name: str,
        *,
        tail: Sequence[Value] = (),
        tail_keys: Sequence[str] = (),
        on: Any = None,
        **named: Value,
    ) -> str:
        """Run a script that answers with a word."""
        return cast("bytes", self.run(name, tail=tail, tail_keys=tail_keys, on=on, **named)).decode()

    def write_connection(self) -> Any:
        """Return a context manager for one connection of its own, without repeats. It is connected by then."""
        return self._reach(self._once.client)

    def read(self, command: str, *args: Any, **options: Any) -> Any:
        """Send a command of redis-py's that may be sent twice; a broken connection is tried again."""
        return self._reach(lambda: getattr(self._again, command)(*args, **options))

    def write(self, command: str, *args: Any, on: Any = None, **options: Any) -> Any:
        """Send a command that may be sent once only; `on` is a connection of `write_connection`."""
        return self._reach(lambda: getattr(on or self._once, command)(*args, **options))

    def transact(self, ask: Callable[[Any], Any], *, on: Any) -> Any:
        """Run a transaction on a connection of `write_connection`."""
        return self._reach(lambda: ask(on))

    def read_all(self, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Send several reads, each (redis-py's command, its arguments…), in one round trip.

        A reply that is an error stands in its place.
        """

        def ask() -> Any:
            with self._again.pipeline(transaction=False) as pipe:
                for command, *args in commands:
                    getattr(pipe, command)(*args)
                return pipe.execute(raise_on_error=False)

        answers: list[Any] = self._reach(ask)
        return answers

    def now(self) -> float:
        """Return Redis' clock, the only one that decisions use, in Unix seconds."""
        seconds, micros = self.read("time")
        return float(seconds) + float(micros) / 1e6

    def facts(self) -> ServerFacts:
        """Ask the server about itself."""
        info: dict[str, Any] = self.read("info")
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
            replica=info.get("role") == "slave",
            cluster=bool(info.get("cluster_enabled")),
            snapshots=self._config("save", "") != "",
            lazy_on_rewrite=self._config("no-appendfsync-on-rewrite", "no") == "yes",
            rewritten=int(info.get("aof_last_rewrite_time_sec", 0)) >= 0 or bool(info.get("aof_rewrite_in_progress")),
        )

    def close(self) -> None:
        """Close all connections."""
        self._once.close()
        self._again.close()

    def _config(self, name: str, default: str) -> str:
        try:
            answer: dict[str, str] = self.read("config_get", name)
        except (LedgerRefusedError, LedgerUnavailableError):
            return default  # a managed Redis may forbid CONFIG
        return str(answer.get(name, default))

    def _blamed(self, error: Exception) -> Exception:
        def fail() -> None:
            raise error

        try:
            self._reach(fail)
        except (LedgerFullError, LedgerRefusedError, LedgerUnavailableError) as blamed:
            return blamed
        return error

    @staticmethod
    def _reach(ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except redis.OutOfMemoryError:
            raise LedgerFullError("Redis is at maxmemory: it takes no new data until some is freed") from None
        except redis.exceptions.MovedError:
            raise LedgerRefusedError("Redis refuses a command (MovedError)", ONE_SLOT) from None
        except (redis.ConnectionError, redis.TimeoutError, redis.ReadOnlyError, *_PASSING) as error:
            if isinstance(error, redis.AuthenticationError):
                hint = "are user and password those of the server?"
                raise LedgerRefusedError(f"Redis refuses to let us in ({type(error).__name__})", hint) from None
            if isinstance(error.__context__, ssl.SSLCertVerificationError):
                # found out before anything was sent
                raise LedgerRefusedError(
                    f"Redis shows a certificate that is not trusted ({error.__context__.verify_message})"
                ) from None
            raise LedgerUnavailableError(f"Redis cannot be reached ({_kind(error)})") from None
        except redis.ResponseError as error:
            # of an error that redis-py has a class for, it has cut the word off
            word = str(error).split(" ", 1)[0] if type(error) is redis.ResponseError else type(error).__name__
            if word == "OOM" or "OOM command not allowed" in str(error):
                raise LedgerFullError("Redis is at maxmemory: it takes no new data until some is freed") from None
            if word in {"BUSY", "UNBLOCKED"}:
                raise LedgerUnavailableError(f"Redis cannot answer now ({word})") from None
            hint = _HINTS.get(word, "")
            if named := _FORBIDDEN.search(str(error)):  # of all its words only these: they may name a key
                word = f"{word}: {named[1]}"
            raise LedgerRefusedError(f"Redis refuses a command ({word})", hint) from None  # its text may quote it


def _kind(error: Exception) -> str:
    """Name an error; of one in TLS, which is no error of its own to redis-py, the reason too."""
    below = error.__context__
    reason = below.reason if isinstance(below, ssl.SSLError) else None
    return f"{type(error).__name__}, TLS: {reason}" if reason else type(error).__name__

"""Redis in the world: the real scripts on a real server, told the time by the world, that can be lost and rolled back.

The scripts are the ones that are shipped; only what they ask the server about itself (TIME, its run_id, and the time
in the id of a new entry) is answered by the world.
"""

import contextlib
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from storm import ANYWHERE, REDIS, Weather
from world import Process, World

from worker.ledger.keys import Keys
from worker.ledger.scripts import Script, read_scripts
from worker.ledger.store import REPEATABLE, LedgerUnavailableError, ServerFacts, Store

OURS, DISK = 0, 1
"""Two databases of the server: what it holds, and what of that it would still hold after a crash."""

CLOCK, LIFE = "world:clock", "world:life"
DOWN_SECONDS = 40.0
LONGEST_FREEZE = 700.0
LONGEST_TIMEOUT = 90.0
"""A caller may be frozen while it waits, and find its lease gone."""

MATTERS = 5.0
WEIGHTS = {"claim": 1.0, "describe": 1.0, "glance": 1.0, "mark": 1.0, "submit": 2 * MATTERS, "finish": 4 * MATTERS}
"""A call that changes a batch, or talks to the API or a sink, is hit more often than one of the many looks; the intent
to post, on which the money depends, more often still, and the closing of a batch, of which each has but one."""

_PRELUDE = f"""
local function world_time()
  local ms = redis.call("GET", "{CLOCK}")
  return {{math.floor(ms / 1000), ms % 1000 * 1000}}
end
local function world_info() return "run_id:" .. redis.call("GET", "{LIFE}") end
"""
_SAVE = """
redis.call("SELECT", ARGV[2]) redis.call("FLUSHDB") redis.call("SELECT", ARGV[1])
for _, key in ipairs(redis.call("KEYS", "*")) do redis.call("COPY", key, key, "DB", ARGV[2]) end
"""


@functools.cache
def scripts_of_the_world(*, flags: bool = True) -> dict[str, Script]:
    """Read the scripts that are shipped and let them ask the world instead of the server."""
    shipped = read_scripts(flags=flags).items()
    return {name: Script(name, _retold(script.text), script.keys, script.args) for name, script in shipped}


def _retold(text: str) -> str:
    told = text.replace('redis.call("TIME")', "world_time()").replace('redis.pcall("INFO", "server")', "world_info()")
    told = re.sub(r'(redis\.call\("XADD", \w+), "\*"', rf'\1, redis.call("GET", "{CLOCK}") .. "-*"', told)
    assert not re.search(r'"TIME"|"INFO"|"\*"', told), "a script asks the server something the world does not answer"
    first, newline, rest = told.partition("\n")
    return first + newline + _PRELUDE + rest if first.startswith("#!") else _PRELUDE + told


class Server:
    """The one Redis of a world. What it holds reaches its disk `lag` seconds later, unless somebody waits for it.

    `appendonly` says whether one can wait: without an append-only file only snapshots reach the disk.
    """

    def __init__(self, client: Any, world: World, weather: Weather, *, appendonly: bool, lag: float) -> None:
        self.client = client
        self.world = world
        self.weather = weather
        self.appendonly = appendonly
        self.life = 0
        self._began_at = world.now
        self.up = True
        self._lag = lag
        self._told = -1.0
        self._saving = False
        self._save = client.register_script(_SAVE)
        client.flushall()
        for script in scripts_of_the_world().values():
            client.script_load(script.text)  # or the first world of a process would have moments that no other has
        self._tell_life()

    def describe(self) -> dict[str, Any]:
        """Say what INFO would."""
        return {
            "run_id": f"life{self.life}",
            "uptime_in_seconds": int(self.world.now - self._began_at),
            "aof_enabled": int(self.appendonly),
            "rdb_last_load_keys_loaded": self.life,
        }

    def sync(self) -> None:
        """Bring all that is held onto the disk."""
        if self.weather.restarts:
            self._save(args=[OURS, DISK])

    def changed(self) -> None:
        """Note that there may be something that is not on the disk yet."""
        if self._saving or not self.weather.restarts:
            return
        self._saving = True
        life = self.life

        def save() -> None:
            self._saving = False
            if self.up and life == self.life:
                self.sync()

        self.world.after(self._lag, save)

    def restart(self, seconds: float) -> None:
        """Crash, and come back after so many seconds with what was on the disk."""
        self._crash()
        self.world.after(seconds, self._come_back)

    def blink(self) -> None:
        """Crash, and come back before anybody's client library has given up."""
        self._crash()
        self._come_back()

    def _crash(self) -> None:
        self.world.tell("Redis crashes: what was not on disk is forgotten")
        self.up = False
        self.life += 1

    def _come_back(self) -> None:
        self._save(args=[DISK, OURS])
        self._began_at = self.world.now
        self._tell_life()
        self.up = True
        self.world.tell("Redis is back")

    def outage(self, seconds: float) -> None:
        """Be out of reach for so many seconds."""
        self.world.tell("Redis is out of reach")
        self.up = False
        life = self.life

        def back() -> None:
            self.up = self.up or life == self.life

        self.world.after(seconds, back)

    def tell_time(self) -> None:
        """Let scripts know what time it is."""
        if self._told != self.world.now:
            self._told = self.world.now
            self.client.set(CLOCK, int(self._told * 1000))

    def add(self, lane: str, fields: dict[str, str]) -> str:
        """XADD as a producer does who waits until it is on disk."""
        self.tell_time()
        entry_id: bytes = self.client.xadd(
            f"batchmill:{{{lane}}}:prompts", fields, id=f"{int(self.world.now * 1000)}-*"
        )
        self.sync()
        return entry_id.decode()

    def _tell_life(self) -> None:
        self._told = -1.0
        self.client.set(LIFE, f"life{self.life}")
        self.tell_time()


class WorldStore(Store):
    """A store of one process. Every call is a moment at which the world may do something before and after."""

    def __init__(self, server: Server, process: Process, prefix: str) -> None:
        super().__init__(once=server.client, again=server.client, keys=Keys(prefix))
        self._server = server
        self._process = process
        self._manner = USUAL

    def run(self, name: str, *, on: "_Borrowed | None" = None, **named: Any) -> Any:
        """Run a script; one that may be repeated sometimes is."""
        weight = WEIGHTS.get(name, MATTERS)
        with self._in(_Manner(weight, repeats=name in REPEATABLE and on is None, on=on)):
            if name in REPEATABLE and not self._server.weather.calm and self._server.world.chance.strikes(0.02):
                super().run(name, **named)
        with self._in(_Manner(weight, repeats=name in REPEATABLE and on is None, on=on)):
            answer = super().run(name, **named)
        if weight >= MATTERS and self._server.weather.restarts and self._server.world.chance.strikes(0.3):
            self._server.sync()  # by chance: so a crash may forget this step and not the one before
        return answer

    def run_many(self, name: str, calls: Sequence[tuple[Mapping[str, Any], Sequence[Any]]]) -> list[Any]:
        """Run a script for each call in one go, which is one moment."""
        with self._in(_Manner(WEIGHTS.get(name, MATTERS), repeats=name in REPEATABLE)):
            return super().run_many(name, calls)

    def read(self, command: str, *args: Any, **options: Any) -> Any:
        """Send a read; about itself the server says what the world says."""
        if command == "time":
            return self._reach(lambda: divmod(int(self._server.world.now * 1_000_000), 1_000_000))
        if command == "info":
            return self._reach(self._server.describe)
        return super().read(command, *args, **options)

    def write(self, command: str, *args: Any, on: "_Borrowed | None" = None, **options: Any) -> Any:
        """Send a command; the one that waits for the disk is answered by the world's."""
        with self._in(_Manner(1.0, repeats=False, on=on)):
            if command == "info":
                return self._reach(self._server.describe)
            if command == "execute_command" and args[0] == "WAITAOF":
                return self._reach(self._wait_for_disk)
            return super().write(command, *args, **options)

    def read_all(self, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Send several reads, the time among them."""
        told = list(commands)
        now = divmod(int(self._server.world.now * 1_000_000), 1_000_000)
        answers = super().read_all(("ping",) if command == ("time",) else command for command in told)
        return [now if command == ("time",) else answer for command, answer in zip(told, answers, strict=True)]

    def facts(self) -> ServerFacts:
        """Describe a server whose WAITAOF is honest, if it has an append-only file."""
        return ServerFacts(
            name="redis",
            version=(8, 2, 3),
            run_id=f"life{self._server.life}",
            was_replica=False,
            appendonly=self._server.appendonly,
            appendfsync="everysec",
            evicting=False,
            max_memory=0,
        )

    def write_connection(self) -> Any:
        """Return the one connection there is, as a context manager; in another life of the server it is broken."""
        return _Borrowed(self._server.life)

    def close(self) -> None:
        """Close nothing: the server's client outlives the process."""

    def _reach(self, ask: Callable[[], Any]) -> Any:  # type: ignore[override]
        world, server = self._server.world, self._server
        manner, weight = self._manner, self._manner.weight
        disturb(world, server.weather, self._process, weight)
        fault = server.weather.strikes("redis", REDIS, weight=weight)
        life = server.life
        if fault == "blink":
            server.blink()
            if not manner.repeats:
                raise LedgerUnavailableError("Redis was restarted (in this world)")
        elif fault == "restart":
            server.restart(world.chance.between(0.0, DOWN_SECONDS))
        elif fault == "down":
            server.outage(world.chance.between(1.0, DOWN_SECONDS))
        elif fault == "late":
            world.tell("a command of Redis is on its way for too long")
            world.after(world.chance.between(0.0, DOWN_SECONDS), lambda: self._arrive(ask, life))
        elif fault == "lost":
            world.tell("a command of Redis is lost")
        if not server.up or fault in ("late", "lost"):
            world.wait(None, world.chance.between(1.0, LONGEST_TIMEOUT))
            raise LedgerUnavailableError("Redis cannot be reached (in this world)")
        if manner.on is not None and manner.on.life != server.life:
            raise LedgerUnavailableError("the connection was of another life (in this world)")
        answer = self._ask(ask)
        disturb(world, server.weather, self._process, weight)
        if fault == "reply_lost":
            world.tell("a reply of Redis is lost")
            raise LedgerUnavailableError("Redis did not answer (in this world)")
        return answer

    @contextlib.contextmanager
    def _in(self, manner: "_Manner") -> Iterator[None]:
        """Let the next call be made in a manner of its own; threads take turns between calls, never before one."""
        self._manner = manner
        try:
            yield
        finally:
            self._manner = USUAL

    def _wait_for_disk(self) -> list[int]:
        self._server.sync()
        return [1, 0]

    def _ask(self, ask: Callable[[], Any]) -> Any:
        self._server.tell_time()
        answer = Store._reach(ask)
        self._server.changed()
        return answer

    def _arrive(self, ask: Callable[[], Any], life: int) -> None:
        """Do what a client has given up on: its connection is gone, what it had sent is not."""
        if self._server.up and self._server.life == life:
            self._server.world.tell("the late command of Redis arrives")
            self._ask(ask)


@dataclass(frozen=True, slots=True)
class _Borrowed:
    """The shared client, lent for a `with` block, in one life of the server."""

    life: int

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


@dataclass(frozen=True, slots=True)
class _Manner:
    """How a call is made: how much hangs on it, whether the client library sends it again, on which connection."""

    weight: float
    repeats: bool
    on: _Borrowed | None = None


USUAL = _Manner(1.0, repeats=True)


def disturb(
    world: World, weather: Weather, process: Process, weight: float = MATTERS, *, sparing: Sequence[str] = ()
) -> None:
    """Let others go on, and perhaps end or freeze this process, at a moment when it would touch the outside."""
    rates = {fault: rate for fault, rate in ANYWHERE.items() if fault not in sparing}
    match weather.strikes("process", rates, weight=weight):
        case "kill":
            world.tell("is killed")
            world.kill(process)
        case "freeze":
            seconds = world.chance.between(5.0, LONGEST_FREEZE)
            world.tell(f"is frozen for {seconds:.0f} s")
            world.freeze(process, seconds)
        case "stop":
            world.tell("is asked to stop")
            for farewell in process.farewells:
                farewell()
    world.pause()

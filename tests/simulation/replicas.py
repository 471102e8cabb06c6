"""Replicas in the world: `wiring.build` assembles the real program, its loops and actors run as tasks.

Only what touches the outside is exchanged, at the seams where wiring asks for it: the store, the API's connection,
the broker, the sinks, the threads of the leases, the clock.
"""

import contextlib
import functools
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Self

import dramatiq
import server
from account import Account
from connection import WorldConnection
from prometheus_client import CollectorRegistry
from server import Server, WorldStore
from sinks import Shelf, WorldSink
from storm import KNOCK
from world import Process, World

from worker import wiring
from worker.batches_api import connection as shipped_connection
from worker.clock import Clock
from worker.config import Config
from worker.core.model import Claim
from worker.daemon import Daemon
from worker.ledger import store
from worker.ledger.lease import LeaseKeeper, Leases, LostLeaseError, StoppingError
from worker.ledger.store import LedgerUnavailableError
from worker.loops import Loop
from worker.rescuer import ForeignDeploymentError
from worker.telemetry import Telemetry

EXECUTORS = 2
START_SECONDS = 3.0
GRACE_SECONDS = 30.0
MOST_DOWN_SECONDS = 120.0


class WorldClock(Clock):
    """The world's time and chance, for one process."""

    def __init__(self, world: World, chance: Random) -> None:
        self._world = world
        self._chance = chance

    def now(self) -> float:
        """Return the world's time."""
        return self._world.now

    def monotonic(self) -> float:
        """Return the world's time."""
        return self._world.now

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Let others go on until the event is set."""
        self._world.wait(event.is_set, seconds)
        return event.is_set()

    def sleep(self, seconds: float) -> None:
        """Let others go on."""
        self._world.wait(None, seconds)

    def jitter(self) -> float:
        """Return a number that is the same in every repetition of this run."""
        return self._chance.random()

    def random_bytes(self, size: int) -> bytes:
        """Return bytes that are the same in every repetition of this run."""
        return self._chance.randbytes(size)


class WorldLeases(Leases):
    """Leases without threads: a claim is renewed when the step looks, if a third of the lease is over."""

    def keep(self, claim: Claim) -> LeaseKeeper:
        """Return a keeper that renews when it is asked."""
        return WorldKeeper(self, claim)


class WorldKeeper(LeaseKeeper):
    """Renews a claim in the thread of its step, which therefore loses it whenever it is slow."""

    def __init__(self, leases: Leases, claim: Claim) -> None:
        super().__init__(batches=leases.batches, claim=claim, lease=leases.seconds, stopping=leases.stopping)
        self._leases = leases
        self._mine = claim

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def check(self) -> None:
        """Renew; raise LostLeaseError or StoppingError when going on makes no sense."""
        if self._leases.stopping.is_set():
            raise StoppingError
        if not self._leases.batches.renew(self._mine, self._leases.seconds):
            raise LostLeaseError


class Knocks(dramatiq.Broker):
    """The queues of knocks, shared by all processes, as unreliable as they may be."""

    def __init__(self, post: "KnockPost") -> None:
        super().__init__(middleware=[])
        self._post = post

    def declare_queue(self, queue_name: str) -> None:
        """Have every queue."""
        self.queues[queue_name] = []

    def enqueue(self, message: Any, *, delay: int | None = None) -> Any:  # noqa: ARG002 - dramatiq's signature
        """Send a knock."""
        self._post.send(message)
        return message

    def backlog(self, queue_name: str) -> int:
        """Return how many knocks wait."""
        return sum(message.queue_name == queue_name for message in self._post.waiting)

    def tidy(self) -> int:
        """Have nothing to tidy."""
        return 0

    def close(self) -> None:
        """Close nothing."""


class KnockPost:
    """Knocks on their way. They may be lost, doubled, and overtake each other."""

    def __init__(self, world: World, account: Account) -> None:
        self._world = world
        self._weather = account.weather
        self.waiting: list[Any] = []

    def send(self, message: Any) -> None:
        """Take a knock in."""
        fault = self._weather.strikes("knock", KNOCK)
        if fault != "lost":
            self.waiting.append(message)
        if fault == "doubled":
            self._world.after(self._world.chance.between(0.0, 400.0), lambda: self.waiting.append(message))

    def fetch(self) -> Any:
        """Hand out a knock, most often the oldest."""
        at = self._world.chance.pick(len(self.waiting)) if self._world.chance.strikes(0.2) else 0
        return self.waiting.pop(at)


@dataclass
class Cluster:
    """All replicas of a deployment, and what they share."""

    world: World
    config: Config
    server: Server
    account: Account
    shelves: list[Shelf]
    chance: Random
    post: KnockPost
    _lives: int = 0

    def start(self, name: str) -> None:
        """Start a replica; one that dies is started anew a while later."""
        self._lives += 1
        process = Process(f"{name}.{self._lives}")
        process.last_words.append(lambda: self._replace(name))
        self.world.spawn(process, "main", lambda: self._live(process))

    def _replace(self, name: str) -> None:
        delay = self.world.chance.between(START_SECONDS, MOST_DOWN_SECONDS)
        self.world.after(delay, lambda: self.start(name))

    def _live(self, process: Process) -> None:
        """Do what `batchmill run` does, up to the start of its threads. What it cannot start with ends it."""
        try:
            app = self._build()
        except (LedgerUnavailableError, ForeignDeploymentError) as error:  # systemd tries again
            self.world.tell(f"cannot start: {type(error).__name__}")
            self.world.kill(process)
            return
        hook = threading.excepthook
        daemon = Daemon(app)
        threading.excepthook = hook
        process.farewells.append(lambda: self._stop(process, daemon, app))
        for loop in daemon._loops:
            if loop.name != "sink-checks":
                self.world.spawn(process, loop.name, functools.partial(self._loop, process, loop))
        for number in range(EXECUTORS):
            self.world.spawn(process, f"worker{number}", lambda: self._work(process, app))

    def _loop(self, process: Process, loop: Loop) -> None:
        """Run a loop; when it dies as it may, the watchdog ends the process."""
        try:
            loop._run()
        except ForeignDeploymentError:
            self.world.tell("works for another deployment now: the watchdog ends it")
            self.world.kill(process)

    def _stop(self, process: Process, daemon: Daemon, app: wiring.App) -> None:
        daemon._end_loops()
        app.stopping.set()
        self.world.after(GRACE_SECONDS, lambda: self.world.kill(process))

    def _work(self, process: Process, app: wiring.App) -> None:
        while not process.dead and not app.stopping.is_set():
            self.world.wait(lambda: bool(self.post.waiting), 3600.0)
            if self.post.waiting:
                message = self.post.fetch()
                app.broker.get_actor(message.actor_name).fn(*message.args)

    def _build(self) -> wiring.App:
        telemetry = Telemetry(version="world", registry=CollectorRegistry(), now=lambda: self.world.now)
        telemetry._log = Chronicle(self.world)  # type: ignore[assignment]
        clock = WorldClock(self.world, self.chance)
        app = wiring.build(self.config, url="redis://world", telemetry=telemetry, clock=clock, roles=wiring.ROLES)
        app.rescuer.step()
        return app

    @contextlib.contextmanager
    def seams(self) -> Iterator[None]:
        """Exchange what touches the outside; whoever asks gets what belongs to the process that runs at that moment."""
        here = self.world.here
        shelves = {shelf.name: shelf for shelf in self.shelves}
        exchanged: list[tuple[Any, str, Any]] = [
            (store, "read_scripts", server.scripts_of_the_world),
            (wiring, "Store", _Connector(self.server)),
            (wiring, "KnockBroker", lambda **_: Knocks(self.post)),
            (wiring, "Leases", WorldLeases),
            (wiring, "build_sink", lambda name, _: WorldSink(shelves[name], here())),
            (wiring, "read_prices", functools.cache(wiring.read_prices)),
            (shipped_connection, "Connection", lambda **_: WorldConnection(self.account, here())),
        ]
        kept = [(place, name, getattr(place, name)) for place, name, _ in exchanged]
        for place, name, other in exchanged:
            setattr(place, name, other)
        try:
            yield
        finally:
            for place, name, shipped in kept:
                setattr(place, name, shipped)


@dataclass(frozen=True)
class _Connector:
    server: Server

    def connect(self, _url: str, prefix: str, **_access: object) -> WorldStore:
        """Open a store of the process that asks."""
        return WorldStore(self.server, self.server.world.here(), prefix)


class Chronicle:
    """What the program logs goes into the timeline."""

    def __init__(self, world: World) -> None:
        self._world = world

    def info(self, event: str, **fields: object) -> None:
        """Tell what happened."""
        told = " ".join(f"{name}={value}" for name, value in fields.items() if value is not None and name != "exc_info")
        self._world.tell(f"{event} {told}")
        error = fields.get("exc_info")
        if isinstance(error, Exception):
            self._world.violated(f"an error nobody foresaw: {type(error).__name__}: {error}")

    warning = info
    error = info

    def debug(self, event: str, **fields: object) -> None:
        """Leave out what is told for developers."""

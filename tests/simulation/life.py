"""One run: a deployment in a storm, then calm, then the verdict. A seed, or a script of choices, repeats it exactly."""

import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from account import Account
from chance import Chance
from replicas import Cluster, KnockPost
from server import Server
from sinks import Shelf
from storm import STORM_SECONDS, Weather
from world import EPOCH, Process, World

from worker.config import Config, load_config

IN_FLIGHT = "batchmill:in_flight"
MAY_STAY = re.compile(r"batchmill:(deployment|lanes|waiting|\{\w+\}:(lane|prompts|dead|settled))")
"""Keys that live as long as their deployment or lane; everything else has an end of life of its own."""

HORIZON = 300.0
MOST_STEPS = 60_000
CALM_SECONDS = 6 * 3600.0
SETTINGS = {
    "lanes.default.max_age": "20s",
    "lanes.default.max_count": "3",
    "lanes.default.sinks": "left,right",
    "sinks.left.type": "stdout",
    "sinks.right.type": "stdout",
    "poll.interval": "30s",
    "submit.timeout": "60s",
    "submit.horizon": f"{HORIZON:g}s",
    "submit.overload_horizon": "60s",
    "submit.reconcile_interval": "30s",
    "park.probe": "60s",
    "lease": "45s",
    "tick": "15s",
    "anthropic.requests_per_minute": "1000000",
}


@dataclass(frozen=True)
class Outcome:
    """How a run ended: what was violated (nothing, if all is well), by which choices, and what had happened."""

    seed: int
    violations: tuple[str, ...]
    choices: tuple[int, ...]
    timeline: tuple[str, ...]
    struck: Counter[str]
    steps: int

    def brief(self) -> "Outcome":
        """Leave out what can be had again by repeating the run."""
        return replace(self, choices=(), timeline=())


def run(client: Any, seed: int, script: Sequence[int] | None = None) -> Outcome:
    """Let a world be, on an empty Redis of its own."""
    chance = Chance(seed, script)
    weather = Weather(
        chance,
        strength=(0.5, 1.0, 1.5, 3.0)[chance.pick(4)],
        left=5 + chance.pick(16),
        restarts=chance.strikes(0.5),
    )
    world = World(chance)
    appendonly = not chance.strikes(0.4)
    lag = (1.0, 2.0)[chance.pick(2)] if appendonly else (5.0, 60.0, 600.0)[chance.pick(3)]
    server = Server(client, world, weather, appendonly=appendonly, lag=lag)
    account = Account(
        world,
        weather,
        horizon=HORIZON,
        skew=(0.0, 240.0, -240.0)[chance.pick(3)],
        page_size=(1000, 1, 2)[chance.pick(3)],
    )
    exclusive = chance.strikes(0.5)
    account.strangers = not exclusive
    account.retries = appendonly or not weather.restarts
    shelves = [Shelf(name, world, weather) for name in ("left", "right")]
    cluster = Cluster(
        world=world,
        config=_configure(exclusive=exclusive, delete=chance.strikes(0.2) and appendonly),
        server=server,
        account=account,
        shelves=shelves,
        chance=Random(seed),
        post=KnockPost(world, account),
    )
    lanes = ("default", "other")[: 1 + chance.pick(2)]
    names = [f"p{number}" for number in range(3 + chance.pick(8))]
    still_to_come = _produce(world, server, lanes, names)

    def calm() -> None:
        weather.calm = True
        account.relieve()
        world.tell("calm: nothing fails any more")

    world.after(STORM_SECONDS, calm)
    with cluster.seams():
        for number in range(1 + chance.pick(3)):
            cluster.start(f"replica{number}")

        def settled() -> bool:
            return not still_to_come and _is_settled(client, lanes)

        over = world.run(
            lambda: world.steps % 64 == 0 and (settled() or world.now > EPOCH + STORM_SECONDS + CALM_SECONDS),
            most_steps=MOST_STEPS,
        )
        if not world.violations:
            if not over or not settled():
                world.violated(f"stuck: {_what_is_left(client, lanes)}")
            else:
                for wrong in _judge(client, names, shelves, account):
                    world.violated(wrong)
        world.end()
    return Outcome(
        seed, tuple(world.violations), tuple(chance.taken), tuple(world.timeline), Counter(weather.struck), world.steps
    )


def _configure(*, exclusive: bool, delete: bool) -> Config:
    settings = SETTINGS | {
        "anthropic.exclusive_workspace": str(exclusive).lower(),
        "poll.delete_when_settled": str(delete).lower(),
    }
    environ = {"ANTHROPIC_API_KEY": "sk-ant-world"}
    return load_config(path=None, environ=environ, cwd=Path(tempfile.gettempdir()), overrides=settings)


def _produce(world: World, server: Server, lanes: Sequence[str], names: Sequence[str]) -> list[str]:
    """Enqueue prompts bit by bit; returns a list of those that are still to come."""
    still_to_come = list(names)

    def produce() -> None:
        while still_to_come:
            world.wait(None, world.chance.between(0.0, 40.0))
            while not server.up:
                world.wait(None, 5.0)
            name = still_to_come[0]
            message = {"model": "claude-haiku-4-5", "max_tokens": 1, "messages": [{"role": "user", "content": name}]}
            bad = server.appendonly and world.chance.strikes(0.05)  # else its row may come twice, as is said
            params = "[]" if bad else msgspec.json.encode(message).decode()
            server.add(lanes[world.chance.pick(len(lanes))], {"params": params, "id": name})
            del still_to_come[0]

    world.spawn(Process("producer"), "main", produce)
    return still_to_come


def _is_settled(client: Any, lanes: Sequence[str]) -> bool:
    waiting = any(client.xlen(f"batchmill:{{{lane}}}:prompts") for lane in lanes)
    return (
        not waiting
        and not any(client.exists(f"batchmill:{{{lane}}}:due") for lane in lanes)
        and not client.exists(IN_FLIGHT)
    )


def _what_is_left(client: Any, lanes: Sequence[str]) -> str:
    left = []
    for lane in lanes:
        left.append(f"{lane} has {client.xlen(f'batchmill:{{{lane}}}:prompts')} prompts")
        for uid in client.zrange(f"batchmill:{{{lane}}}:due", 0, -1):
            batch = client.hgetall(f"batchmill:{{{lane}}}:batch:{uid.decode()}")
            left.append(f"{uid.decode()} {batch.get(b'state', b'?').decode()} {batch.get(b'reason', b'').decode()}")
    return "; ".join(left)


def _judge(client: Any, names: Sequence[str], shelves: Sequence[Shelf], account: Account) -> Iterator[str]:
    """Say what is wrong with a world in which everything is settled."""
    for shelf in shelves:
        if missing := set(names) - set(shelf.owners):
            yield f"{shelf.name} has no row of {' '.join(sorted(missing))}"
        if set(shelf.owners) - set(names):
            yield f"{shelf.name} has rows of strangers"
    if twice := [name for name, times in account.times_paid().items() if times > 1]:
        yield f"paid twice for {' '.join(twice)}"
    if immortal := sorted(key for key in _keys(client) if not MAY_STAY.fullmatch(key) and client.ttl(key) < 0):
        yield f"keys left over: {' '.join(immortal)}"


def _keys(client: Any) -> Iterator[str]:
    for key in client.scan_iter("batchmill:*"):
        yield key.decode()

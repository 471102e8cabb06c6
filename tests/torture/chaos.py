"""The chaos: who is killed, frozen or cut off, and when. Half of the blows fall at a moment of the protocol."""

import random
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import redis
from api_faults import conjure
from processes import Process
from proxy import AFTER, BEFORE
from sight import SYNCED, SYNCED_FINISH
from stage import LANES, LEASE, Stage
from weather import CALM, WEATHERS

AIMS = (
    *("submit", "submit", "accept", "seal", "settle", SYNCED_FINISH, "advance", "adopt", "claim", "split", "eject"),
    *("appendfsync always", "appendfsync everysec", "knock", "mark", "reserve", "renew", "enqueue"),
    *("POST head", "POST last byte", "POST last byte", "POST last byte", "GET list", "GET batch", "GET results"),
    "DELETE batch",
)
AIM_SECONDS = 4.0
"""A moment that has not come by then is given up, and the blow falls at random."""

FREEZE = (LEASE * 1.2, LEASE * 2.5)
TOGETHER = 0.04
"""The chance that Redis, or the API, dies in the same instant as somebody else."""

POWER_CUTS = 0.6
"""The share of Redis' deaths in which it also loses what was not synced."""

STRANGERS_LAST = 120.0
"""Seconds after which strangers delete a batch: by then nobody can still take it for one of ours."""

LONG_FREEZE = (11.0, 16.0)
"""Longer than the horizon: whatever the frozen process was about to do is out of date when it wakes up."""


@dataclass(slots=True)
class Aim:
    """A blow that waits for its moment. `victim` is daemon, redis or api; `number` the signal."""

    moment: str
    side: str
    victim: str
    number: signal.Signals
    passes: bool
    until: float


@dataclass
class Chaos:
    """Hurts a stage, and puts back on its feet what it has knocked over. All of `step` runs in one thread."""

    stage: Stage
    seed: int
    redis_died: Callable[[], None]
    interval: float
    kills: Counter[str] = field(default_factory=Counter)
    moments: Counter[str] = field(default_factory=Counter)
    pauses: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    strangers: int = 0
    power_cuts: int = 0

    def __post_init__(self) -> None:
        """Set the clocks."""
        self._chance = random.Random(f"chaos {self.seed}")
        self._lock = threading.Lock()
        self._aims: list[Aim] = []
        self._thaw: list[tuple[float, Process]] = []
        self._revive: dict[str, float] = {}
        self._next_blow = self._next_weather = self._next_faults = self._next_stranger = 0.0
        self._seen: dict[Any, int] = {}
        self._revoked = False
        self._strangers: deque[tuple[float, str]] = deque()
        self.paused = False

    @property
    def total(self) -> int:
        """How many processes were killed so far."""
        return sum(self.kills.values())

    def witness(self, owner: str, moment: str, side: str) -> bool:
        """Strike if this is the moment; called by the proxy, in its thread, while the traffic waits."""
        if moment in SYNCED and side == AFTER:
            self.stage.appendonly.note_synced()
        with self._lock:
            aim = next((aim for aim in self._aims if (aim.moment, aim.side) == (moment, side)), None)
            if aim is None:
                return True
            victim = self._victim(aim.victim, owner)
            if victim is None or victim.frozen:
                return True
            self._aims.remove(aim)
        self._strike(aim.victim, victim, aim.number, f"{moment}, {side}")
        return aim.passes

    def step(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        self._mend(now)
        if self.paused:
            return
        self.stage.appendonly.look()
        self._blow(now)
        if now >= self._next_weather:
            self._next_weather = now + self._chance.uniform(1.0, 6.0)
            for door in self.stage.doors():
                if door.weather.name != "dark":
                    door.weather = CALM if self._chance.random() < 0.5 else self._chance.choice(WEATHERS)
        if now >= self._next_faults:
            self._next_faults = now + self._chance.uniform(2.0, 6.0)
            self._misbehave()
        if now >= self._next_stranger and not self.stage.exclusive:
            self._next_stranger = now + self._chance.uniform(0.5, 3.0)
            self._be_strange()

    def end(self) -> None:
        """Hurt nothing any more, and take back every fault."""
        with self._lock:
            self.paused = True
            self._aims.clear()
        for door in self.stage.doors():
            if door.weather.name != "dark":
                door.weather = CALM
        for _, process in self._thaw:
            process.signal(signal.SIGCONT)
        self._thaw.clear()
        self._revive = dict.fromkeys(self._revive, 0.0)

    def healed(self) -> bool:
        """Take back the API's faults; returns whether it has heard."""
        self._count_strikes()
        answers = [
            self.stage.ask_api("DELETE", "faults"),
            self.stage.ask_api("POST", "faults", [{"kind": "restore_key"}, {"kind": "end_now"}]),
        ]
        return None not in answers

    def _victim(self, kind: str, owner: str) -> Process | None:
        match kind:
            case "redis":
                return self.stage.redis.process
            case "api":
                return self.stage.api
            case _:
                return self.stage.daemons.get(owner)

    def _strike(self, kind: str, victim: Process, number: signal.Signals, moment: str) -> None:
        if kind == "redis" and number == signal.SIGKILL:
            self.stage.shut_out()
        if not victim.alive or not victim.signal(number):
            return
        if number == signal.SIGKILL:
            self.kills[kind] += 1
            self.moments[f"{kind} at {moment}"] += 1
            self._strike_others(kind, moment)
            return
        self.pauses[kind] += 1
        self.moments[f"{kind} frozen at {moment}"] += 1
        bounds = LONG_FREEZE if kind == "daemon" and self._chance.random() < 0.25 else FREEZE
        self._thaw.append((time.monotonic() + self._chance.uniform(*bounds), victim))

    def _strike_others(self, kind: str, moment: str) -> None:
        """Now and then two die at once, or three."""
        for other in ("redis", "api"):
            if other != kind and self._chance.random() < TOGETHER:
                victim = self._victim(other, "")
                if victim is not None and not victim.frozen and victim.alive:
                    self._strike(other, victim, signal.SIGKILL, moment)

    def _blow(self, now: float) -> None:
        with self._lock:
            given_up = [aim for aim in self._aims if now > aim.until]
            self._aims = [aim for aim in self._aims if now <= aim.until]
        for aim in given_up:
            self._at_random(aim.victim, aim.number)
        if now < self._next_blow:
            return
        self._next_blow = now + self._chance.expovariate(1.0) * self.interval
        victim, number = self._chance.choices(
            [
                ("daemon", signal.SIGKILL),
                ("redis", signal.SIGKILL),
                ("api", signal.SIGKILL),
                ("daemon", signal.SIGSTOP),
                ("redis", signal.SIGSTOP),
            ],
            weights=[74, 7, 13, 8, 2],
        )[0]
        if self._chance.random() < 0.7:
            moment, side = self._chance.choice(AIMS), self._chance.choice((BEFORE, AFTER))
            passes = self._chance.random() < 0.5
            with self._lock:
                self._aims.append(Aim(moment, side, victim, number, passes, now + AIM_SECONDS))
        elif victim == "daemon" and self._chance.random() < 0.05:
            for name in self.stage.names:
                self._at_random("daemon", number, name)
        else:
            self._at_random(victim, number)

    def _at_random(self, kind: str, number: signal.Signals, owner: str | None = None) -> None:
        victim = self._victim(kind, owner or self._chance.choice(self.stage.names))
        if victim is not None and not victim.frozen:
            self._strike(kind, victim, number, "no special moment")

    def _mend(self, now: float) -> None:
        thawed = [each for each in self._thaw if each[0] <= now]
        for each in thawed:
            each[1].signal(signal.SIGCONT)
            self._thaw.remove(each)
        stage = self.stage
        victims: dict[str, Process | None] = {**stage.daemons, "redis": stage.redis.process, "api": stage.api}
        for name, process in victims.items():
            if process is not None and process.alive:
                continue
            due = self._revive.setdefault(name, now + (0.0 if self.paused else self._chance.uniform(0.0, 1.2)))
            if now >= due:
                del self._revive[name]
                self._raise(name, process)

    def _raise(self, name: str, process: Process | None) -> None:
        stage = self.stage
        self._thaw = [each for each in self._thaw if each[1] is not process]
        if name == "redis":
            stage.shut_out()
            if self._chance.random() < POWER_CUTS and stage.appendonly.lose_tail(self._chance):
                self.power_cuts += 1
            stage.start_redis()
            self.redis_died()
            stage.let_in()
            return
        if process is not None:
            stage.bury(name, process)
        if name == "api":
            stage.start_api()
            self._seen.clear()
            self._next_faults = 0.0
        else:
            stage.start_daemon(name)

    def _misbehave(self) -> None:
        """Take the API's old faults back and put new ones in force; with an API that does not answer, soon again."""
        self._count_strikes()
        wanted = [conjure(self._chance) for _ in range(self._chance.choice((0, 1, 2, 3, 4)))]
        self._revoked, was = any(fault["kind"] == "revoke_key" for fault in wanted), self._revoked
        if was:
            wanted.append({"kind": "restore_key"})
        if self._chance.random() < 0.7:
            wanted.append({"kind": "end_now"})
        heard = self.stage.ask_api("DELETE", "faults") is not None
        heard = heard and self.stage.ask_api("POST", "faults", wanted) is not None
        if not heard:
            self._revoked = was or self._revoked
            self._next_faults = time.monotonic() + 0.3
            return
        self.struck["revoke_key"] += self._revoked
        if self._chance.random() < 0.1 and self.stage.proxy.remote_ids:
            remote_id = self._chance.choice(self.stage.proxy.remote_ids)
            if self.stage.ask_api("POST", f"batches/{remote_id}/cancel", {}) is not None:
                self.struck["canceled by somebody else"] += 1

    def _count_strikes(self) -> None:
        report = self.stage.ask_api("GET", "faults")
        for fault in (report or {}).get("faults", ()):
            key = fault["number"]
            self.struck[fault["kind"]] += fault["struck"] - self._seen.get(key, 0)
            self._seen[key] = fault["struck"]

    def _be_strange(self) -> None:
        """Create a stranger's batch in our workspace, of the very size of one of ours that is in doubt or waits."""
        if any(self.stage.modes.values()):
            return  # while a single daemon still trusts that it is alone
        sizes: list[int] = []
        process = self.stage.redis.process
        if process is not None and process.alive and not process.frozen:
            with self.stage.redis.client(timeout=0.5) as client, suppress(redis.RedisError, OSError):
                for lane in LANES:
                    found: Any = client.zrange(f"batchmill:{{{lane}}}:unposted", 0, -1, withscores=True)
                    sizes += [int(score) for _, score in found]
        usable = [size for size in sizes if size]
        count = self._chance.choice(usable) if usable else self._chance.randrange(1, 40)
        made = self.stage.ask_api("POST", "batches", {"count": count})
        if made is not None:
            self.strangers += 1
            self._strangers.append((time.monotonic(), made["id"]))
        if self._strangers and time.monotonic() - self._strangers[0][0] > STRANGERS_LAST:
            self.stage.ask_api("POST", f"batches/{self._strangers.popleft()[1]}/delete", {})

"""The producers: prompts by the enqueue script through a proxy, and by plain XADD past it, until all are in for sure.

What Redis acknowledged and lost in a crash never reached batchmill (assumption A7), so a producer that must be sure
asks again: with an id that is harmless, and for plain entries the stream itself tells which are missing.
"""

import json
import random
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import redis
from stage import LANES, Stage

from worker.client import Producer
from worker.client.outcomes import Fate, QueueFull, Unreachable
from worker.core.entry_ids import order

MARK = 100
"""`max_tokens` of prompt 0; each has its own, by which the API's account tells prompts apart without trusting us."""

MOST_PROMPTS = 127_000
RECENT_SECONDS = 30.0  # counted when Redis is back, which a busy machine makes late
FILLER = "The quick brown fox jumps over the lazy dog. "


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as the producer knows it."""

    number: int
    lane: str
    params: str

    @property
    def id(self) -> str:
        """The producer's name for it."""
        return f"prompt-{self.number}"

    @property
    def checksum(self) -> int:
        """What the simulated answer quotes."""
        return zlib.crc32(self.params.encode())


def write(number: int, chance: random.Random, lane: str | None = None) -> Prompt:
    """Make up a prompt, for any lane if none is given."""
    text = f"prompt {number}: {FILLER * chance.randrange(1, 12)}"
    params = {"model": "claude-haiku-4-5", "max_tokens": MARK + number, "messages": [{"role": "user", "content": text}]}
    return Prompt(number, lane or chance.choice(LANES), json.dumps(params))


class Producers:
    """Enqueues `total` prompts, as far as `wanted()` allows at any time."""

    def __init__(self, stage: Stage, *, total: int, seed: int, wanted: Callable[[], int]) -> None:
        self.asked: dict[str, Prompt] = {}
        self.counts: Counter[str] = Counter()
        self.failure: BaseException | None = None
        self.plain_lock = threading.Lock()
        self._stage = stage
        self._total = total
        self._wanted = wanted
        self._chance = random.Random(f"producers {seed}")
        self._again: deque[Prompt] = deque()
        self._scripted: deque[tuple[float, Prompt]] = deque()
        self._plain: deque[tuple[float, str, Prompt]] = deque()
        self._unsure: list[Prompt] = []
        self._lanes: tuple[str | None, ...] = (None,)
        self._stop = threading.Event()
        url = f"redis://127.0.0.1:{stage.redis_doors['producer'].port}/0"
        self._clients = {lane: Producer(url, lane) for lane in LANES}
        self._straight = stage.redis.client(timeout=None)
        self._thread = threading.Thread(target=self._run, name="producers", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether all prompts are in for sure."""
        return len(self.asked) >= self._total and not self._again and not self._unsure

    def allow_more(self, more: int = 3 * len(LANES)) -> None:
        """Let so many prompts in on top, as many into each lane."""
        self._lanes = LANES
        self._total += more
        self._wanted = lambda: self._total

    def stop(self) -> None:
        """End, with whatever is in by now."""
        self._stop.set()
        self._thread.join(60)
        self._straight.close()
        for client in self._clients.values():
            client.close()

    def redis_died(self) -> None:
        """Make up for what a crash of Redis has lost. Call it when it is back and still nobody else can reach it."""
        now = time.monotonic()
        with self.plain_lock:
            self._straight.connection_pool.disconnect()
            recent = {prompt.id: prompt for at, prompt in list(self._scripted) if now - at < RECENT_SECONDS}
            known = {prompt.id for prompt in list(self._again)}
            self._again.extend(prompt for name, prompt in recent.items() if name not in known)
            newest = {lane: self._newest(lane) for lane in LANES}
            lost = [prompt for _, entry_id, prompt in self._plain if order(entry_id) > order(newest[prompt.lane])]
            for prompt in self._unsure:
                if not self._is_in(prompt):
                    lost.append(prompt)
                else:
                    self._enter(prompt)
            self._unsure.clear()
            for prompt in lost:
                self.counts["XADD: acknowledged and lost by a killed Redis, enqueued again"] += 1
                self._add(prompt)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                if not self._once():
                    self._stop.wait(0.02)
        except BaseException as error:
            self.failure = error
            raise

    def _once(self) -> bool:
        if self._again:
            self._script([self._again.popleft() for _ in range(min(50, len(self._again)))], again=True)
            return True
        room = min(self._wanted(), self._total) - len(self.asked) - len(self._unsure)
        if room <= 0:
            return False
        first = len(self.asked) + len(self._unsure)
        many = min(room, self._chance.randrange(1, 60))
        prompts = [
            write(number, self._chance, self._lanes[number % len(self._lanes)]) for number in range(first, first + many)
        ]
        if self._chance.random() < 0.35:
            self._plainly(prompts)
        else:
            self._script(prompts, again=False)
        return True

    def _script(self, prompts: list[Prompt], *, again: bool) -> None:
        """Enqueue by the script until each has its answer; an id makes repeating harmless."""
        for lane in LANES:
            those = [prompt for prompt in prompts if prompt.lane == lane]
            while those and not self._stop.is_set():
                try:
                    summary = self._clients[lane].enqueue_many(
                        {"params": prompt.params, "id": prompt.id, "metadata": {"n": prompt.number}} for prompt in those
                    )
                except Unreachable:
                    self.counts["script: no answer, asked again"] += 1
                    self._stop.wait(self._chance.uniform(0.05, 0.5))
                    continue
                except QueueFull:
                    self._stop.wait(0.2)
                    continue
                self.counts[f"script: {Fate.DUPLICATE}"] += summary.duplicate
                self.counts["script: enqueued"] += summary.enqueued
                if again:
                    self.counts["script: acknowledged and lost by a killed Redis, enqueued again"] += summary.enqueued
                for prompt in those:
                    self._scripted.append((time.monotonic(), prompt))
                    self._enter(prompt)
                break
        _trim(self._scripted)

    def _plainly(self, prompts: Iterable[Prompt]) -> None:
        """XADD one by one; when Redis dies in the middle, nobody goes on before the stream was looked at."""
        for prompt in prompts:
            while self._unsure and not self._stop.is_set():
                self._stop.wait(0.02)
            if self._stop.is_set():
                return
            with self.plain_lock:
                try:
                    self._add(prompt)
                except redis.RedisError:
                    self._unsure.append(prompt)
        _trim(self._plain)

    def _add(self, prompt: Prompt) -> None:
        fields: dict[Any, Any] = {
            "params": prompt.params,
            "id": prompt.id,
            "metadata": json.dumps({"n": prompt.number}),
        }
        entry_id: Any = self._straight.xadd(_stream(prompt.lane), fields)
        self._plain.append((time.monotonic(), entry_id.decode(), prompt))
        self.counts["XADD: enqueued"] += 1
        self._enter(prompt)

    def _enter(self, prompt: Prompt) -> None:
        self.asked[prompt.id] = prompt

    def _newest(self, lane: str) -> str:
        try:
            facts: Any = self._straight.xinfo_stream(_stream(lane))
        except redis.ResponseError:
            return "0-0"  # the stream itself is gone, or never was
        return str(facts["last-generated-id"].decode())

    def _is_in(self, prompt: Prompt) -> bool:
        entries: Any = self._straight.xrevrange(_stream(prompt.lane), count=2000)
        return any(fields.get(b"id") == prompt.id.encode() for _, fields in entries)


def _stream(lane: str) -> str:
    return f"batchmill:{{{lane}}}:prompts"


def _trim(recent: deque[Any]) -> None:
    while recent and time.monotonic() - recent[0][0] > 2 * RECENT_SECONDS:
        recent.popleft()

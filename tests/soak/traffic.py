"""The producers of a day: steady, in waves, in bursts; prompts good and bad; lanes that come and go; dead letters."""

import json
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from compressed_day import CompressedDay
from redis import Redis

from worker.client import Producer
from worker.client.outcomes import Fate, Outcome
from worker.ledger.dead_letters import DeadLetters
from worker.ledger.store import Store

WEIGHTS = {"default": 5, "bulk": 3, "urgent": 2}
UNUSABLE: tuple[dict[str, str], ...] = (
    {"params": "{"},
    {"params": "[]"},
    {"params": '{"model":"claude-haiku-4-5","max_tokens":5}'},
    {"params": '{"model":"claude-haiku-4-5","max_tokens":5,"messages":[{"role":"user","content":"x"}],"stream":true}'},
    {"parameters": "{}"},
)
MODELS = {"claude-haiku-4-5": 60, "claude-sonnet-4-5": 39, "claude-nobody-1": 1}
BURST_AT, VISITS_AT, LETTERS_AT = 0.35, (0.1, 0.5), (0.2, 0.45)
"""Minutes of an hour, as shares of it, at which something happens beside the steady flow."""

STEP = 0.1


class Traffic:
    """Enqueues for a day from a thread of its own. `wanted` says how many rows each prompt's id is owed."""

    def __init__(self, *, day: CompressedDay, redis_url: str, rate: float, seed: int) -> None:
        self.wanted: Counter[str] = Counter()
        self.told: Counter[str] = Counter()
        self.failed: Exception | None = None
        self._day = day
        self._rate = rate
        self._chance = random.Random(seed)
        self._url = redis_url
        self._client: Any = Redis.from_url(redis_url)
        self._store = Store.connect(redis_url, "batchmill:")
        self._producers: dict[str, Producer] = {}
        self._recent: deque[tuple[float, str, str]] = deque(maxlen=500)
        self._visitors: list[str] = []
        self._owed = 0.0
        self._number = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic")

    def start(self) -> None:
        """Begin the day."""
        self._thread.start()

    def stop(self) -> None:
        """End it. Raises what ended it before its time."""
        self._stop.set()
        self._thread.join()
        if self.failed is not None:
            raise self.failed

    def close(self) -> None:
        """Close all connections."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        for producer in self._producers.values():
            producer.close()
        self._client.close()
        self._store.close()

    def _run(self) -> None:
        try:
            self._produce()
        except Exception as error:  # noqa: BLE001 - raised again by `stop`
            self.failed = error

    def _produce(self) -> None:
        hour, began = self._day.real(3600), time.monotonic()
        before = 0.0
        while not self._stop.wait(STEP):
            now = (time.monotonic() - began) / hour
            self._owed += self._rate * hour * (now - before) * self._day.load(now)
            self._happen(before, now)
            while self._owed >= 1:
                count = min(int(self._owed), 50)
                self._owed -= count
                self._send(self._chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0], count)
            before = now

    def _happen(self, before: float, now: float) -> None:
        """Do what has come due between two instants, in hours of the day."""

        def due(share: float) -> bool:
            return int(before - share + 1) < int(now - share + 1)

        if due(BURST_AT):
            self._send("bulk", int(self._rate * self._day.real(3600) * 0.3 * self._day.load(now)))
        if any(map(due, VISITS_AT)):
            self._visit()
        if any(map(due, LETTERS_AT)):
            for lane in (*WEIGHTS, *self._visitors[-4:]):
                self._read_letters(lane)

    def _visit(self) -> None:
        """Use a lane that nobody configured and nobody will use again: found by looking, or told by its producer."""
        lane = f"visitor-{len(self._visitors)}"
        self._visitors.append(lane)
        self._send(lane, 8, announced=len(self._visitors) % 2 == 0)
        if lane in self._producers:
            self._producers.pop(lane).close()

    def _send(self, lane: str, count: int, *, announced: bool | None = None) -> None:
        good = [self._prompt() for _ in range(count)]
        if announced is None:
            announced = self._chance.random() < 0.6  # the others only know XADD
        if announced:
            self._announce(lane, good)
        else:
            with self._client.pipeline(transaction=False) as pipe:
                for fields in good:
                    pipe.xadd(f"batchmill:{{{lane}}}:prompts", self._spoiled(fields))
                pipe.execute()
            self.wanted.update(fields["id"] for fields in good)
            self.told["plain"] += count

    def _announce(self, lane: str, prompts: list[dict[str, str]]) -> None:
        if lane not in self._producers:
            self._producers[lane] = Producer(self._url, lane)
        again = [name for at, of, name in self._recent if of == lane and time.monotonic() - at < self._day.real(1200)]
        again = self._chance.sample(again, min(len(again), len(prompts) // 10))
        repeated = [{**self._prompt(), "id": name} for name in again]
        batch = [*prompts, *repeated]

        def tell(outcome: Outcome) -> None:
            self.told[str(outcome.fate)] += 1
            if outcome.fate is Fate.ENQUEUED:
                name = batch[outcome.position]["id"]
                self.wanted[name] += 1
                self._recent.append((time.monotonic(), lane, name))

        self._producers[lane].enqueue_many(
            ({**prompt, "params": prompt["params"]} for prompt in batch), tell=tell, patience=30.0
        )

    def _prompt(self) -> dict[str, str]:
        self._number += 1
        chance, name = self._chance, f"p{self._number}"
        content = "y" * int(chance.paretovariate(1.2) * 100 % 20_000)
        message = {"role": "user", "content": content or "y"}
        params = {
            "model": chance.choices(list(MODELS), list(MODELS.values()))[0],
            "max_tokens": 64,
            "messages": [message],
        }
        fields = {"params": json.dumps(params), "id": name}
        if chance.random() < 0.2:
            fields["metadata"] = json.dumps({"of": name})
        return fields

    def _spoiled(self, fields: dict[str, str]) -> dict[str, str]:
        if self._chance.random() < 0.04:
            return {**self._chance.choice(UNUSABLE), "id": fields["id"]}
        return fields

    def _read_letters(self, lane: str) -> None:
        """Redrive a third of the dead letters, drop a third, leave the rest to age."""
        letters = DeadLetters(self._store)
        acts: dict[str, Callable[[str, list[str]], int]] = {"redriven": letters.redrive, "dropped": letters.drop}
        for letter in list(letters.list(lane, limit=60)):
            act = self._chance.choice(("redriven", "dropped", "dropped", "left", "left"))
            if act in acts and acts[act](lane, [letter.letter_id]):
                self.told[act] += 1
                if act == "redriven":
                    self.wanted[letter.prompt_id] += 1

"""A real Redis on a socket, commands run as from a shell, and ledgers in whatever state a test needs."""

import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis import ConnectionError as RedisConnectionError
from redis import Redis

from worker.cli.main import main
from worker.core.model import Batch, State
from worker.embedded import EmbeddedUnavailable, find_program
from worker.ledger.ledger import Ledger
from worker.ledger.store import Store

PARAMS = {"model": "claude-haiku-4-5", "max_tokens": 16, "messages": [{"role": "user", "content": "Say hello."}]}
UIDS = "aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb", "cccccccccccccccc"


def wait_until(condition: Callable[[], Any], description: str, *, seconds: float = 20.0) -> Any:
    """Look every 20 ms until `condition` holds and return what it returned, or fail."""
    give_up_at = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > give_up_at:
            raise AssertionError(f"still not after {seconds} s: {description}")
        threading.Event().wait(0.02)
    return found


@contextlib.contextmanager
def redis_server(directory: Path, *settings: str) -> Iterator[str]:
    """Run a server without persistence; yields its URL. Skips where there is none, except in CI."""
    try:
        program = find_program(lambda _event, **_facts: None)
    except EmbeddedUnavailable as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))
    command = [program.path, "--port", "0", "--unixsocket", "r.sock", "--save", "", *settings]
    with subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL) as process:
        try:
            with Redis.from_url(f"unix://{directory}/r.sock") as redis:
                wait_until(lambda: _answers(redis), "the server answers")
            yield f"unix://{directory}/r.sock"
        finally:
            process.terminate()


def _answers(redis: Redis) -> bool:
    try:
        return bool(redis.ping())
    except RedisConnectionError:
        return False


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Shell:
    """Runs commands in this process; `run` returns how they ended."""

    capsys: pytest.CaptureFixture[str]

    def run(self, *words: str) -> Ended:
        """Run `batchmill WORDS…`."""
        self.capsys.readouterr()
        try:
            status = main(words)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        told = self.capsys.readouterr()
        return Ended(status, told.out, told.err)

    def json(self, *words: str) -> Any:
        """Run a command that must succeed with `--json` and return what it printed."""
        ended = self.run(*words, "--json")
        assert ended.status == 0, ended
        return ended.json


def open_ledger(url: str) -> Ledger:
    """Open the ledger on an empty Redis with the lane `default`."""
    ledger = Ledger.over(Store.connect(url, "batchmill:"))
    ledger.deployment.register_lanes(["default"])
    return ledger


def put_batch(
    ledger: Ledger, redis: Any, uid: str, *, lane: str = "default", prompts: int = 2, **fields: object
) -> Batch:
    """Put prompts and a sealed batch of them into a lane; `fields` overwrite what its record says."""
    keys = ledger.store.keys
    ids = [
        redis.xadd(keys.prompts(lane), {"params": json.dumps(PARAMS), "id": f"{uid[0]}{number}"}).decode()
        for number in range(prompts)
    ]
    sealed = {"state": "sealed", "first": ids[0], "last": ids[-1], "trigger": "count", "bytes": 200, "attempt": 0}
    record = sealed | {"entries": prompts, "count": prompts, "sealed_at": ledger.store.now() - 90} | fields
    redis.hset(keys.lane(lane), mapping={"cursor": ids[-1]})
    redis.hincrby(keys.lane(lane), "sealed_entries", prompts)
    redis.hset(keys.batch(lane, uid), mapping={name: str(value) for name, value in record.items()})
    if record["state"] == "settled":
        redis.zadd(keys.settled(lane), {uid: ledger.store.now() * 1000})
    else:
        redis.zadd(keys.due(lane), {uid: "+inf" if record["state"] == "held" else ledger.store.now() * 1000})
        redis.hset(keys.fences(lane), uid, 7)
    if remote_id := record.get("remote_id"):
        redis.set(keys.remote(lane, str(remote_id)), uid)
    batch = ledger.batches.get(lane, uid)
    assert batch is not None
    assert batch.state is State(str(record["state"]))
    return batch


def put_dead(
    redis: Any,
    ledger: Ledger,
    prompt_id: str,
    reason: str,
    *,
    age: float = 0.0,
    lane: str = "default",
    letter_id: str = "*",
) -> str:
    """Bury one prompt `age` seconds ago; returns the id of the dead letter."""
    buried = {"batchmill.reason": reason, "batchmill.buried_at": f"{ledger.store.now() - age:.3f}"}
    prompt = {"params": json.dumps(PARAMS), "id": prompt_id, "batchmill.batch": UIDS[0], "batchmill.attempt": 2}
    found: str = redis.xadd(ledger.store.keys.dead(lane), buried | prompt, id=letter_id).decode()
    return found

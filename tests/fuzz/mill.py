"""A worker whose roles are stepped by hand, on a real Redis and an API over HTTP; it remembers every body it sent."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from worker.actors import QUEUE_OF
from worker.batches_api import Created
from worker.clock import Clock
from worker.config import load_config
from worker.telemetry import Telemetry
from worker.wiring import ROLES, App, build

QUICK = {
    "lanes.default.max_age": "0s",
    "lanes.default.max_count": "1000",
    "poll.interval": "10ms",
    "submit.horizon": "300ms",
    "submit.overload_horizon": "100ms",
    "submit.reconcile_interval": "20ms",
    "park.probe": "50ms",
    "lease": "10s",
    "tick": "10ms",
    "anthropic.requests_per_minute": "1000000",
}


@contextmanager
def redis_server(directory: Path) -> Iterator[str]:
    """Run a real server on a socket in `directory`; yields its URL."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("CI needs a redis-server on PATH")
        pytest.skip("no redis-server on PATH")
    socket = directory / "redis.sock"
    words = ["--port", "0", "--unixsocket", str(socket), "--dir", str(directory), "--save", "", "--appendonly", "yes"]
    process = subprocess.Popen([program, *words], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: _answers(socket), description="the server answers")
        yield f"unix://{socket}"
    finally:
        process.kill()
        process.wait()


def _answers(socket: Path) -> bool:
    with redis.Redis(unix_socket_path=str(socket)) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False


def wait_until(condition: Callable[[], object], *, description: str, timeout: float = 60.0) -> None:
    """Look until a condition holds; fails with its description."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"not within {timeout:g} s: {description}")
        time.sleep(0.01)


class Mill:
    """One deployment under test. `bodies` are those of all creates, whole."""

    def __init__(self, *, redis_url: str, api_url: str, directory: Path, **settings: str) -> None:
        self.directory = directory
        self.bodies: list[bytes] = []
        self.redis: Any = redis.Redis.from_url(redis_url)
        self.redis.flushall()
        overrides = {
            "redis.url": redis_url,
            "anthropic.base_url": api_url,
            "sinks.results.path": str(directory / "results/{lane}/{batch}.jsonl"),
            **QUICK,
            **{name.replace("__", "."): value for name, value in settings.items()},
        }
        environ = {"ANTHROPIC_API_KEY": "sk-ant-fuzz"}
        config = load_config(path=None, environ=environ, cwd=directory, overrides=overrides)
        telemetry = Telemetry(version="test")
        self.app: App = build(config, url=redis_url, telemetry=telemetry, clock=Clock(), roles=ROLES)
        self._remember_bodies()
        self.app.rescuer.step()

    def close(self) -> None:
        """Close every connection."""
        self.app.close()
        self.redis.close()

    def add(self, entries: Iterable[Iterable[tuple[bytes, bytes]]], *, lane: str = "default") -> list[str]:
        """XADD entries as they are; returns their entry ids."""
        added: list[str] = []
        stream = f"batchmill:{{{lane}}}:prompts"
        pipe = self.redis.pipeline(transaction=False)
        for pairs in entries:
            pipe.execute_command("XADD", stream, "*", *(word for pair in pairs for word in pair))
            if len(pipe) == 500:
                added += [answer.decode() for answer in pipe.execute()]
        return added + [answer.decode() for answer in pipe.execute()]

    def drive(self, until: Callable[[], object], *, timeout: float = 60.0) -> None:
        """Take turns until a condition holds."""
        end = time.monotonic() + timeout
        while not until():
            if time.monotonic() > end:
                pytest.fail(f"not within {timeout:g} s: {self.batches()}")
            self.turn()

    def turn(self) -> None:
        """Let every role look once at every lane."""
        self.app.rescuer.step()
        for lane in self.app.ledger.deployment.lanes():
            assert self.app.batcher is not None
            while self.app.batcher.step(lane) == 0:
                pass
            for claim in self.app.ledger.batches.claim(lane, limit=100, lease=self.app.config.lease):
                self.app.steps[QUEUE_OF[claim.state]]([claim])

    def idle(self) -> bool:
        """Whether every prompt is settled."""
        lanes = self.app.ledger.deployment.lanes()
        return not any(self.app.ledger.batches.live(lane) or self.app.ledger.lanes.length(lane) for lane in lanes)

    def batches(self, lane: str = "default") -> list[Any]:
        """Return the records of a lane's live batches."""
        live = [(lane, uid) for uid in self.app.ledger.batches.live(lane)]
        return list(self.app.ledger.batches.get_many(live))

    def lines(self) -> list[bytes]:
        """Return every line of the result files."""
        files = sorted((self.directory / "results").rglob("*.jsonl"))
        return [line for file in files for line in file.read_bytes().split(b"\n") if line]

    def rows(self) -> list[dict[str, Any]]:
        """Return every row in the result files."""
        return [json.loads(line) for line in self.lines()]

    def dead(self, lane: str = "default") -> list[tuple[str, str]]:
        """Return the dead letters as (prompt id, reason)."""
        return [(letter.prompt_id, letter.reason) for letter in self.app.ledger.dead_letters.list(lane)]

    def metric(self, name: str, **labels: str) -> float:
        """Return a metric's value."""
        return self.app.telemetry.registry.get_sample_value(name, labels) or 0.0

    def _remember_bodies(self) -> None:
        assert self.app.api is not None
        create = self.app.api.create

        def remembering(body: Any, *, before_last_byte: Callable[[], None]) -> Created:
            self.bodies.append(b"".join(body))
            return create(body, before_last_byte=before_last_byte)

        self.app.api.create = remembering  # type: ignore[method-assign]

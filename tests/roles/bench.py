"""A worker on a bench: every role in this process, stepped by hand, on a real Redis and the simulator over HTTP."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from worker.actors import QUEUE_OF
from worker.clock import Clock
from worker.config import load_config
from worker.simulator import Simulator
from worker.telemetry import Telemetry
from worker.wiring import ROLES, App, build

QUICK = {
    "lanes.default.max_age": "0s",
    "lanes.default.max_count": "100",
    "poll.interval": "10ms",
    "submit.horizon": "300ms",
    "submit.overload_horizon": "100ms",
    "submit.reconcile_interval": "20ms",
    "park.probe": "50ms",
    "lease": "300ms",
    "tick": "10ms",
    "anthropic.requests_per_minute": "1000000",
}


def params(text: str = "hello") -> str:
    """Return usable params as JSON."""
    return json.dumps({"model": "claude-haiku-4-5", "max_tokens": 16, "messages": [{"role": "user", "content": text}]})


@contextmanager
def redis_server(directory: Path, *, appendonly: bool = True) -> Iterator[str]:
    """Run a real server on a socket in `directory`; yields its URL."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("CI needs a redis-server on PATH")
        pytest.skip("no redis-server on PATH")
    socket = directory / "redis.sock"
    words = ["--port", "0", "--unixsocket", str(socket), "--dir", str(directory), "--save", ""]
    words += ["--appendonly", "yes" if appendonly else "no"]
    process = subprocess.Popen([program, *words], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: socket.exists() and _answers(socket), description="the server answers")
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


def wait_until(condition: Callable[[], object], *, description: str, timeout: float = 30.0) -> None:
    """Wait for a condition; fails with its description."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"not within {timeout:g} s: {description}")
        time.sleep(0.01)


class Bench:
    """One deployment under test. `restart` is what a crash and a new start of the process come to."""

    def __init__(self, *, url: str, simulator: Simulator, directory: Path) -> None:
        self.url = url
        self.simulator = simulator
        self.directory = directory
        self.settings = dict(QUICK)
        self.redis: Any = redis.Redis.from_url(url)
        self._apps: list[App] = []

    def start(self, **settings: str) -> App:
        """Assemble a worker; settings are dotted keys with `__` for the dots."""
        self.settings |= {name.replace("__", "."): value for name, value in settings.items()}
        overrides = {
            "redis.url": self.url,
            "anthropic.base_url": self.simulator.url,
            "sinks.results.path": str(self.directory / "results/{lane}/{batch}.jsonl"),
            **self.settings,
        }
        config = load_config(
            path=None, environ={"ANTHROPIC_API_KEY": "sk-ant-bench"}, cwd=self.directory, overrides=overrides
        )
        app = build(config, url=self.url, telemetry=Telemetry(version="test"), clock=Clock(), roles=ROLES)
        self._apps.append(app)
        app.rescuer.step()
        return app

    def close(self) -> None:
        """Close every worker ever assembled."""
        for app in self._apps:
            app.close()
        self.redis.close()

    def enqueue(self, *texts: str, lane: str = "default", **fields: str) -> list[str]:
        """XADD one prompt for each text; returns their entry ids."""
        stream = f"batchmill:{{{lane}}}:prompts"
        return [self.redis.xadd(stream, {"params": params(text), **fields}).decode() for text in texts]

    def rows(self) -> list[dict[str, Any]]:
        """Return every row in the result files."""
        files = sorted((self.directory / "results").rglob("*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def verdict(self) -> dict[str, Any]:
        """Return what the API says was committed and billed."""
        return self.simulator.control.ledger()

    def idle(self, app: App) -> bool:
        """Whether every prompt is settled."""
        lanes = app.ledger.deployment.lanes()
        return all(not app.ledger.batches.live(lane) and not app.ledger.lanes.length(lane) for lane in lanes)

    def drive(self, app: App, until: Callable[[], object] | None = None, *, timeout: float = 20.0) -> None:
        """Take turns until a condition holds (everything settled, if none is given)."""
        condition = until or (lambda: self.idle(app))
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                live = app.ledger.batches.get_many([("default", uid) for uid in app.ledger.batches.live("default")])
                pytest.fail(f"not settled within {timeout:g} s: {live}")
            turn(app)
            time.sleep(0.005)


def turn(app: App) -> None:
    """Let every role look once at every lane."""
    app.rescuer.step()
    for lane in app.ledger.deployment.lanes():
        assert app.batcher is not None
        while app.batcher.step(lane) == 0:
            pass
        for claim in app.ledger.batches.claim(lane, limit=100, lease=app.config.lease):
            app.steps[QUEUE_OF[claim.state]]([claim])

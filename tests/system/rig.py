"""Real processes: a Redis that can be stopped and killed, workers that can be signalled, the simulator beside them.

Only what is promised to the outside is relied on: XADD, result files, the ops endpoints, exit statuses, signals.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from worker.simulator import Simulator

ROOT = Path(__file__).parents[2]
KEY = "sk-ant-system-test"
QUICK = {
    "http.port": "0",
    "lanes.default.max_age": "100ms",
    "lanes.default.max_count": "200",
    "poll.interval": "100ms",
    "submit.horizon": "3s",
    "submit.overload_horizon": "500ms",
    "submit.reconcile_interval": "200ms",
    "park.probe": "500ms",
    "lease": "3s",
    "tick": "50ms",
    "shutdown_timeout": "15s",
    "sinks.results.path": "results/{lane}/{batch}.jsonl",
}
"""Small windows and short leases; a doubt lasts seconds instead of half an hour."""


def wait_until(condition: Callable[[], object], *, description: str, timeout: float = 60.0) -> None:
    """Look until a condition holds; fails with its description."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"not within {timeout:g} s: {description}")
        time.sleep(0.02)


def elapsed(seconds: float) -> Callable[[], bool]:
    """Return a condition that holds so many seconds from now, for outages that have a length."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def params(text: str = "hello", **more: object) -> str:
    """Return usable params as JSON."""
    message = {"role": "user", "content": text}
    return json.dumps({"model": "claude-haiku-4-5", "max_tokens": 64, "messages": [message], **more})


def free_port() -> int:
    """Return a port nobody listens on, below those that outgoing connections take for themselves."""
    for port in range(20_000 + os.getpid() * 37 % 10_000, 32_000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no port is free")


class RedisServer:
    """A real server on a TCP port, with an append-only file: what it was given survives stop, kill and start."""

    def __init__(self, directory: Path, *words: str) -> None:
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            if os.environ.get("CI"):
                pytest.fail("CI needs a redis-server on PATH")
            pytest.skip("no redis-server on PATH")
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._words = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", ""]
        self._words += ["--appendonly", "yes", "--enable-debug-command", "yes", *words]
        self._process: subprocess.Popen[bytes] | None = None
        self.client = redis.Redis.from_url(self.url)

    def start(self) -> None:
        """Start it, or start it again on the same data, and wait until it answers."""
        process = self._process = subprocess.Popen(self._words, stdout=subprocess.DEVNULL)
        wait_until(lambda: process.poll() is not None or self._answers(process.pid), description="Redis answers")
        assert process.poll() is None, "Redis did not start"

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it: by SIGTERM in order, by SIGKILL at once."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(20)
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, to freeze it for example."""
        assert self._process is not None
        self._process.send_signal(number)

    def close(self) -> None:
        """End it for good."""
        self.stop(signal.SIGKILL)
        self.client.close()

    def all_written(self) -> bool:
        """Whether everything that was accepted has reached the append-only file."""
        facts: Any = self.client.info("persistence")
        return not facts["aof_buffer_length"] and not facts["aof_pending_bio_fsync"]

    def _answers(self, pid: int) -> bool:
        try:
            facts: Any = self.client.info("server")
        except redis.RedisError:
            return False
        return bool(facts["process_id"] == pid)


class Worker:
    """A running `batchmill` process. What it says is in `out` and `err`."""

    def __init__(self, words: list[str], *, env: Mapping[str, str], directory: Path, name: str) -> None:
        self._out, self._err = directory / f"{name}.out", directory / f"{name}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "worker", *words], stdout=out, stderr=err, env=env, cwd=directory
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def out(self) -> str:
        """Everything on standard output so far."""
        return self._out.read_text("utf-8", "replace")

    @property
    def err(self) -> str:
        """Everything on standard error so far."""
        return self._err.read_text("utf-8", "replace")

    def tail(self) -> str:
        """Return the end of what it said, for a failure's message."""
        lines = [line for line in self.err.splitlines() if '"level":"debug"' not in line]
        return "\n".join(lines[-15:])

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def ready(self) -> "Worker":
        """Wait until it has printed where it listens; returns itself."""
        wait_until(lambda: "http://" in self.out or not self.alive, description="the worker has started")
        assert self.alive, f"exit status {self.process.returncode}: {self.err}"
        return self

    def get(self, path: str) -> tuple[int, str]:
        """Ask an ops endpoint; returns the status and the body."""
        url = self.out.split()[0] + path
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - our own loopback address
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def status(self) -> dict[str, Any]:
        """Return `/statusz`."""
        report: dict[str, Any] = json.loads(self.get("/statusz")[1])
        return report

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that carry these labels."""
        total = 0.0
        for line in self.get("/metrics")[1].splitlines():
            match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if match and match[1] == name:
                held = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2] or ""))
                if labels.items() <= held.items():
                    total += float(match[3])
        return total

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self, timeout: float = 30.0) -> int:
        """Wait for its end; returns the exit status."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the worker did not end within {timeout:g} s; it said:\n{self.tail()}")

    def stop(self) -> int:
        """Ask it to end in order; returns the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """Let it die without a word."""
        self.process.kill()
        self.process.wait()


class Rig:
    """One deployment: a Redis, a simulated API, as many workers as a test starts."""

    def __init__(self, *, directory: Path, server: RedisServer, simulator: Simulator) -> None:
        self.directory = directory
        self.server = server
        self.simulator = simulator
        self.workers: list[Worker] = []
        self._lines: dict[Path, list[str]] = {}

    def environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a worker; `settings` are dotted keys."""
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
        spelled = {f"BATCHMILL_{key.upper().replace('.', '__')}": value for key, value in settings.items()}
        return kept | spelled | {"PYTHONPATH": str(ROOT)}

    def spawn(self, *flags: str, env: Mapping[str, str | None] | None = None, **settings: str) -> Worker:
        """Start `batchmill run` and do not wait. Settings have `__` for dots; None in `env` leaves a variable out."""
        dotted = QUICK | {name.replace("__", "."): value for name, value in settings.items()}
        environment: dict[str, str | None] = {
            **self.environment(dotted),
            "REDIS_URL": self.server.url,
            "ANTHROPIC_BASE_URL": self.simulator.url,
            "ANTHROPIC_API_KEY": KEY,
            **(env or {}),
        }
        worker = Worker(
            ["run", *flags],
            env={name: value for name, value in environment.items() if value is not None},
            directory=self.directory,
            name=f"worker-{len(self.workers)}",
        )
        self.workers.append(worker)
        return worker

    def start(self, *flags: str, env: Mapping[str, str | None] | None = None, **settings: str) -> Worker:
        """Start `batchmill run` and wait until it is at work."""
        return self.spawn(*flags, env=env, **settings).ready()

    def close(self) -> None:
        """Let every worker die."""
        for worker in self.workers:
            if worker.alive:
                worker.process.send_signal(signal.SIGCONT)
                worker.kill()

    def add(self, entries: Iterable[Mapping[Any, Any]], *, lane: str = "default") -> list[str]:
        """XADD entries by pipelines; returns their entry ids."""
        stream, ids, left = f"batchmill:{{{lane}}}:prompts", [], list(entries)
        for at in range(0, len(left), 1000):
            with self.server.client.pipeline(transaction=False) as pipe:
                for fields in left[at : at + 1000]:
                    pipe.xadd(stream, fields)  # type: ignore[arg-type]
                ids += [entry.decode() for entry in pipe.execute()]
        return ids

    def enqueue(self, count: int, *, lane: str = "default", name: str = "p", text: str = "hello") -> list[str]:
        """XADD `count` usable prompts with the ids `p-0`, `p-1`, …; returns these."""
        names = [f"{name}-{number}" for number in range(count)]
        self.add(({"params": params(text), "id": each, "metadata": f'{{"of":"{each}"}}'} for each in names), lane=lane)
        return names

    def row_lines(self) -> list[str]:
        """Return the lines of all result files; a file that is there is complete and never changes."""
        for file in self.directory.glob("results/**/*.jsonl"):
            if file not in self._lines:
                self._lines[file] = file.read_text("utf-8").split("\n")[:-1]
        return [line for lines in self._lines.values() for line in lines]

    def rows(self) -> list[dict[str, Any]]:
        """Return all rows."""
        return [json.loads(line) for line in self.row_lines()]

    def await_rows(self, count: int, *, timeout: float = 60.0) -> None:
        """Wait for so many rows."""
        end = time.monotonic() + timeout
        while len(self.row_lines()) < count:
            if time.monotonic() > end:
                words = [f"status {worker.process.poll()}:\n{worker.tail()}" for worker in self.workers]
                pytest.fail(f"{len(self.row_lines())} of {count} rows after {timeout:g} s\n" + "\n".join(words))
            time.sleep(0.02)

    def assert_exact(self, names: Iterable[str]) -> None:
        """Every prompt has exactly one row, nothing else has one, and nothing was paid for twice."""
        counted, wanted = Counter(row["id"] for row in self.rows()), Counter(names)
        assert counted - wanted == Counter(), "rows nobody asked for"
        assert wanted - counted == Counter(), "prompts without a row"
        assert self.verdict()["prompts_billed_twice"] == 0
        assert self.verdict()["prompts_billed"] == sum(wanted.values())

    def verdict(self) -> dict[str, Any]:
        """Return what the API says was committed and billed."""
        return self.simulator.control.ledger()

    def created(self) -> list[dict[str, Any]]:
        """Return all remote batches, oldest first."""
        batches: Any = self.simulator.control.state()["batches"]
        return list(batches)

    def inject(self, kind: str, **fault: object) -> None:
        """Put a fault of the API in force."""
        self.simulator.control.inject({"kind": kind, **fault})

    def struck(self, kind: str) -> int:
        """Return how often faults of a kind have struck."""
        faults: Any = self.simulator.control.state()["faults"]
        return sum(fault["struck"] for fault in faults if fault["kind"] == kind)


@contextmanager
def deployment(directory: Path, *redis_words: str, **options: Any) -> Iterator[Rig]:
    """Run a Redis and a simulator, without any worker yet; options are the simulator's."""
    server = RedisServer(directory / "redis", *redis_words)
    with Simulator(**{"ends_after": 0.2, "poll_hint": 0, **options}) as simulator:
        rig = Rig(directory=directory, server=server, simulator=simulator)
        try:
            server.start()
            yield rig
        finally:
            rig.close()
            server.close()

"""The processes of a soak: a Redis, replicas of this checkout or of another, and deploys that replace them."""

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressed_day import CONFIGURED, SINK_PATH, CompressedDay
from compressed_worker import CHECKOUT, CONSTANTS, PLANTS
from redis import Redis, RedisError

ROOT = Path(__file__).parents[2]
KEY = "sk-ant-soak-0123456789"
START_SECONDS = 90.0


class SoakError(Exception):
    """The soak itself cannot go on: a tool is missing, or a process did not start or end."""


def wait_until(condition: Callable[[], object], *, description: str, timeout: float) -> None:
    """Look until a condition holds. Raises SoakError."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise SoakError(f"not within {timeout:g} s: {description}")
        time.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Checkout:
    """Code to run: its folder and what to call it."""

    name: str
    folder: Path

    @classmethod
    def of(cls, wanted: str, directory: Path) -> "Checkout":
        """Return a checkout for a folder, or for a revision of this repository, which is exported into `directory`."""
        if (Path(wanted) / "worker" / "__main__.py").exists():
            return cls(Path(wanted).resolve().name, Path(wanted).resolve())
        git = ["git", "-C", str(ROOT)]
        found = subprocess.run([*git, "rev-parse", "--short", f"{wanted}^{{commit}}"], capture_output=True, check=False)
        if found.returncode:
            raise SoakError(f"{wanted!r} is neither a checkout nor a revision")
        name = found.stdout.decode().strip()
        archive = subprocess.run([*git, "archive", name, "worker"], capture_output=True, check=True).stdout
        folder = directory / name
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")
        return cls(name, folder.resolve())


class Server:
    """A real Redis with an append-only file."""

    def __init__(self, directory: Path) -> None:
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            raise SoakError("no redis-server on PATH")
        directory.mkdir(parents=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{port}/0"
        words = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", ""]
        words += ["--slowlog-log-slower-than", "-1"]  # its entries would count as data of ours
        self._process = subprocess.Popen([*words, "--appendonly", "yes"], stdout=subprocess.DEVNULL)
        self.client: Redis = Redis.from_url(self.url)
        wait_until(self._answers, description="Redis answers", timeout=START_SECONDS)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def used_memory(self) -> int:
        """Return the bytes that Redis has allocated, for whatever."""
        info: Any = self.client.info("memory")
        return int(info["used_memory"])

    def data_bytes(self) -> int:
        """Return the bytes that Redis holds for data: without its clients, scripts, buffers and tables of keys."""
        stats: Any = self.client.memory_stats()
        return int(stats["dataset.bytes"])

    def close(self) -> None:
        """End it."""
        self.client.close()
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise SoakError("Redis did not start")
        try:
            return bool(self.client.ping())
        except RedisError:
            return False


class Replica:
    """One `batchmill run`."""

    def __init__(self, checkout: Checkout, *, name: str, env: Mapping[str, str], directory: Path) -> None:
        self.checkout = checkout
        self._out, self._err = directory / f"{name}.out", directory / f"{name}.err"
        script = Path(__file__).with_name("compressed_worker.py")
        paths = {"PYTHONPATH": str(checkout.folder), CHECKOUT: str(checkout.folder)}
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, str(script), "run"], stdout=out, stderr=err, env={**env, **paths}, cwd=directory
            )

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    def ready(self) -> "Replica":
        """Wait until it listens. Raises SoakError."""
        wait_until(
            lambda: "http://" in self._out.read_text() or not self.alive,
            description="the replica has started",
            timeout=START_SECONDS,
        )
        if not self.alive:
            raise SoakError(f"a replica of {self.checkout.name} did not start: {self.said()[-2000:]}")
        return self

    def get(self, path: str) -> str:
        """Ask an ops endpoint."""
        url = self._out.read_text().split()[0] + path
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - our own loopback address
            text: str = answer.read().decode()
        return text

    def said(self) -> str:
        """Return its log."""
        return self._err.read_text("utf-8", "replace")

    def events(self) -> Counter[str]:
        """Count the lines of its log by event, warnings and worse also by level."""
        counted: Counter[str] = Counter()
        for line in self.said().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                counted["unreadable"] += 1
                continue
            counted[entry.get("event", "")] += 1
            if entry.get("level") == "error":
                counted["errors"] += 1
        return counted

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask for its end and wait for it; returns the exit status. Raises SoakError."""
        self.process.send_signal(number)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            raise SoakError("a replica did not end within a minute") from None

    def kill(self) -> None:
        """Let it die."""
        self.process.kill()
        self.process.wait()


class Fleet:
    """Replicas on one Redis and one API: an elder that lives all day, and two that are deployed anew."""

    def __init__(
        self,
        *,
        day: CompressedDay,
        directory: Path,
        redis_url: str,
        api_url: str,
        other: Checkout | None,
        plants: str,
        tell: Callable[[str], object],
    ) -> None:
        self._directory = directory
        self._tell = tell
        self._mine = Checkout("this", ROOT)
        self._other = other or self._mine
        spelled = {f"BATCHMILL_{name.upper().replace('.', '__')}": value for name, value in day.settings().items()}
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
        self._env = {
            **kept,
            **spelled,
            **{f"BATCHMILL_LANES__{lane.upper()}__SINKS": "results" for lane in CONFIGURED},
            "BATCHMILL_HTTP__PORT": "0",
            "BATCHMILL_LOG__FORMAT": "json",
            "BATCHMILL_SINKS__RESULTS__PATH": SINK_PATH,
            "REDIS_URL": redis_url,
            "ANTHROPIC_BASE_URL": api_url,
            "ANTHROPIC_API_KEY": KEY,
            CONSTANTS: json.dumps(day.constants()),
        }
        self.replicas: list[Replica] = []
        self.statuses: Counter[int] = Counter()
        self.elder = self._start(self._mine, {PLANTS: plants} if plants else {})
        self._deployed = [self._start(self._other), self._start(self._mine)]

    def deploy(self) -> None:
        """Replace the two, one after the other; with another checkout one of them is always of the other version."""
        for place, replica in enumerate(self._deployed):
            newer = self._mine if replica.checkout is self._other else self._other
            self.statuses[replica.stop()] += 1
            self._deployed[place] = self._start(newer)
            self._tell(f"deployed {newer.name} for {replica.checkout.name}")

    def crash(self) -> None:
        """Let one of the two die without a word, and start it again."""
        self._deployed.reverse()
        replica = self._deployed[0]
        replica.kill()
        self._deployed[0] = self._start(replica.checkout)
        self._tell(f"killed and started {replica.checkout.name}")

    def stop(self) -> None:
        """End all in order."""
        for replica in self.replicas:
            if replica.alive:
                self.statuses[replica.stop()] += 1

    def close(self) -> None:
        """End all, however they are."""
        for replica in self.replicas:
            if replica.alive:
                replica.kill()

    def events(self) -> dict[str, Counter[str]]:
        """Return what was told, by checkout."""
        found: dict[str, Counter[str]] = {}
        for replica in self.replicas:
            found.setdefault(replica.checkout.name, Counter()).update(replica.events())
        return found

    def _start(self, checkout: Checkout, more: Mapping[str, str] | None = None) -> Replica:
        name = f"replica-{len(self.replicas)}-{checkout.name}"
        replica = Replica(checkout, name=name, env={**self._env, **(more or {})}, directory=self._directory)
        self.replicas.append(replica)
        return replica.ready()

"""The stage of a run: one Redis, one API, some daemons, a proxy before each of them. Whatever dies is started again."""

import asyncio
import http.client
import json
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from power import AppendOnlyFile
from processes import Nursery, Process, RedisProcess
from proxy import Door, Proxy, Witness
from sight import ApiSight, RedisSight
from weather import CALM, DARK, Weather

ROOT = Path(__file__).parents[2]
KEY = "sk-ant-torture"
LANES = ("default", "bulk", "night-shift")
HORIZON = 10.0
"""Seconds. Whatever delays a create or hides a batch stays well below it, as assumptions A1 and A2 ask."""

LEASE = 2.0
SETTINGS = {
    "http.port": "0",
    "log.format": "json",
    "lease": f"{LEASE}s",
    "tick": "100ms",
    "threads": "6",
    "shutdown_timeout": "15s",
    "anthropic.requests_per_minute": "1000000",
    "lanes.default.max_age": "400ms",
    "lanes.default.max_count": "40",
    "poll.interval": "500ms",
    "poll.delete_when_settled": "true",
    "submit.timeout": "2s",
    "submit.horizon": f"{HORIZON}s",
    "submit.overload_horizon": "5s",
    "submit.reconcile_interval": "400ms",
    "park.probe": "500ms",
}


class Stage:
    """Everything that can be hurt, in one directory."""

    def __init__(
        self,
        directory: Path,
        *,
        daemons: int,
        seed: int,
        exclusive: bool,
        witness: Witness,
        settings: Mapping[str, str],
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.seed = seed
        self.exclusive = exclusive
        self._settings = settings
        self.ended: Counter[str] = Counter()
        self.nursery = Nursery()
        self.redis = RedisProcess(directory / "redis")
        self.appendonly = AppendOnlyFile(directory / "redis")
        self.api: Process | None = None
        self.api_port = _free_port(seed)
        self.proxy = Proxy(seed=seed, witness=witness)
        far_redis = partial(asyncio.open_unix_connection, self.redis.path)
        far_api = partial(asyncio.open_connection, "127.0.0.1", self.api_port)
        self.names = [f"daemon-{number}" for number in range(daemons)]
        self.redis_doors = {n: self.proxy.door(n, far_redis, RedisSight) for n in [*self.names, "producer"]}
        self.api_doors = {name: self.proxy.door(name, far_api, ApiSight) for name in self.names}
        self.daemons: dict[str, Process | None] = dict.fromkeys(self.names)
        self.modes: dict[str, bool] = {}
        self._closed = False

    @property
    def results(self) -> Path:
        """Where the file sink writes."""
        return self.directory / "results"

    @property
    def account(self) -> Path:
        """Where the API keeps its account."""
        return self.directory / "account"

    def doors(self) -> list[Door]:
        """Return every door."""
        return [*self.redis_doors.values(), *self.api_doors.values()]

    def start_redis(self) -> None:
        """Start Redis, which nobody can reach before `let_in`."""
        self.redis.start()

    def shut_out(self) -> None:
        """Let nobody reach Redis."""
        for door in self.redis_doors.values():
            door.weather = DARK

    def let_in(self, weather: Weather = CALM) -> None:
        """Open the doors of Redis."""
        for door in self.redis_doors.values():
            door.weather = weather

    def start_api(self) -> None:
        """Start the API on its account; it answers soon."""
        words = ["simulate", "--port", str(self.api_port), "--keep", str(self.account), "--json"]
        words += ["--ends-after", "0.4", "--seed", str(self.seed), "--body-timeout", "2"]
        self.api = self.nursery.spawn("api", words, env=_environment({}), directory=self.directory)

    def start_daemon(self, name: str) -> None:
        """Start a daemon; it is at work when it has found Redis."""
        settings = {
            **SETTINGS,
            **self._settings,
            "redis.url": f"redis://127.0.0.1:{self.redis_doors[name].port}/0",
            "anthropic.base_url": f"http://127.0.0.1:{self.api_doors[name].port}",
            "anthropic.exclusive_workspace": "true" if self.exclusive else "false",
            "sinks.results.path": str(self.results / "{lane}" / "{batch}.jsonl"),
        }
        self.modes[name] = self.exclusive
        env = {**_environment(settings), "ANTHROPIC_API_KEY": KEY}
        self.daemons[name] = self.nursery.spawn(name, ["run"], env=env, directory=self.directory)

    def ask_api(self, method: str, path: str, body: object = None, *, timeout: float = 1.0) -> Any:
        """Ask a route of the simulator, past every proxy; None when it does not answer well."""
        connection = http.client.HTTPConnection("127.0.0.1", self.api_port, timeout=timeout)
        try:
            connection.request(method, f"/simulator/{path}", body=None if body is None else json.dumps(body))
            answer = connection.getresponse()
            content = answer.read()
            return json.loads(content) if answer.status == http.HTTPStatus.OK else None
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()

    def bury(self, name: str, process: Process) -> None:
        """Note how a process ended that nobody killed."""
        end = time.monotonic() + 1.0
        while process.pid not in self.nursery.statuses and time.monotonic() < end:
            time.sleep(0.005)
        status = self.nursery.statuses.pop(process.pid, None)
        if status != -signal.SIGKILL:
            self.ended[f"{name.partition('-')[0]} exit {status}"] += 1
        process.close()

    def processes(self) -> list[Process]:
        """Return all processes that were started and not buried."""
        found = [*self.daemons.values(), self.api, self.redis.process]
        return [process for process in found if process is not None]

    def close(self) -> list[int]:
        """End everything, once; returns the process ids of daemons and APIs that would not die."""
        left: list[int] = []
        if self._closed:
            return left
        self._closed = True
        for process in self.processes():
            if process is not self.redis.process:
                process.signal(signal.SIGCONT)
                process.signal(signal.SIGKILL)
                if not process.gone(10.0):
                    left.append(process.pid)
                process.close()
        self.redis.close()
        self.proxy.close()
        self.nursery.close()
        return left


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
    spelled = {f"BATCHMILL_{key.upper().replace('.', '__')}": value for key, value in settings.items()}
    return kept | spelled | {"PYTHONPATH": str(ROOT)}


def _free_port(seed: int) -> int:
    """Return a port that no outgoing connection and no other test takes while the API is dead."""
    for port in range(10_000 + (os.getpid() * 31 + seed) % 8_000, 19_999):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")

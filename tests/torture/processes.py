"""The processes of a run: daemons and the API from the zygote, and a Redis; all of them can be killed and frozen."""

import json
import os
import queue
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

ZYGOTE = Path(__file__).with_name("zygote.py")
PATIENCE = 60.0


class Process:
    """One process, held by a descriptor: no signal of ours ever reaches somebody else's."""

    def __init__(self, name: str, pid: int) -> None:
        self.name = name
        self.pid = pid
        self.began = time.monotonic()
        self.frozen = False
        self._killed = False
        self._lock = threading.Lock()
        self._fd: int | None = None
        with suppress(ProcessLookupError):
            self._fd = os.pidfd_open(pid)

    @property
    def alive(self) -> bool:
        """Whether it still runs, frozen or not."""
        return self._fd is not None and not select.select([self._fd], [], [], 0)[0]

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal; returns whether there was still somebody to get it: nobody is killed twice."""
        with self._lock, suppress(ProcessLookupError):
            if self._fd is None or self._killed or not self.alive:
                return False
            signal.pidfd_send_signal(self._fd, number)
            self._killed = number == signal.SIGKILL
            self.frozen = number == signal.SIGSTOP
            return True
        return False

    def gone(self, timeout: float) -> bool:
        """Wait for its end; returns whether it came."""
        return self._fd is None or bool(select.select([self._fd], [], [], timeout)[0])

    def close(self) -> None:
        """Let the descriptor go."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class Nursery:
    """Starts processes of batchmill through the zygote. `ended` counts exit statuses of those nobody killed."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._zygote = subprocess.Popen(
                [sys.executable, str(ZYGOTE), str(theirs.fileno())], pass_fds=[theirs.fileno()], close_fds=True
            )
        self._channel = ours
        self._born: queue.Queue[int | None] = queue.Queue()
        self._lock = threading.Lock()
        self.statuses: dict[int, int] = {}
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def spawn(self, name: str, words: Sequence[str], *, env: Mapping[str, str], directory: Path) -> Process:
        """Fork one; what it says is appended to `<name>.log` in the directory."""
        request = {"words": words, "env": env, "directory": str(directory), "out": str(directory / f"{name}.log")}
        with self._lock:
            self._channel.sendall(json.dumps(request).encode() + b"\n")
            pid = self._born.get(timeout=PATIENCE)
        if pid is None:
            raise ChildProcessError("the zygote has died")
        return Process(name, pid)

    def close(self) -> None:
        """End the zygote; whoever still lives dies with it."""
        self._channel.shutdown(socket.SHUT_RDWR)
        self._zygote.wait(PATIENCE)
        self._listener.join(PATIENCE)
        self._channel.close()

    def _listen(self) -> None:
        with self._channel.makefile("rb") as lines, suppress(ConnectionError):
            for line in lines:
                said: dict[str, Any] = json.loads(line)
                if "pid" in said:
                    self._born.put(said["pid"])
                else:
                    self.statuses[said["ended"]] = said["status"]
        self._born.put(None)


class RedisProcess:
    """A real server on a unix socket, with an append-only file synced every second: what a daemon finds in the wild."""

    def __init__(self, directory: Path) -> None:
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            raise FileNotFoundError("there is no redis-server on PATH")
        directory.mkdir(parents=True, exist_ok=True)
        self.path = str(directory / "redis.sock")
        self._words = [program, "--port", "0", "--unixsocket", self.path, "--dir", str(directory), "--save", ""]
        self._words += ["--appendonly", "yes", "--appendfsync", "everysec", "--logfile", str(directory / "redis.log")]
        self._words += ["--auto-aof-rewrite-min-size", "16mb"]  # rewritten often, like that of a busy server
        self._running: subprocess.Popen[bytes] | None = None
        self.process: Process | None = None

    def client(self, *, timeout: float | None = 10.0) -> redis.Redis:
        """Return a client past every proxy, which sends nothing twice: redis-py would, ten times."""
        return redis.Redis(unix_socket_path=self.path, socket_timeout=timeout, retry=Retry(NoBackoff(), 0))

    def start(self) -> None:
        """Start it, or start it again on the same data, and wait until it answers. Raises TimeoutError."""
        self.reap()
        running = self._running = subprocess.Popen(self._words, stdout=subprocess.DEVNULL)
        self.process = Process("redis", running.pid)
        end = time.monotonic() + PATIENCE
        with self.client() as client:
            while time.monotonic() < end and self.process.alive:
                with suppress(redis.RedisError, OSError):
                    facts: Any = client.info("server")
                    if facts["process_id"] == running.pid and client.ping():
                        return
                time.sleep(0.01)
        raise TimeoutError("Redis did not start")

    def reap(self) -> None:
        """Bury one that has died."""
        if self._running is not None:
            self._running.wait(PATIENCE)
            self._running = None
        if self.process is not None:
            self.process.close()
            self.process = None

    def close(self) -> None:
        """End it for good."""
        if self.process is not None:
            self.process.signal(signal.SIGCONT)
            self.process.signal(signal.SIGKILL)
        self.reap()

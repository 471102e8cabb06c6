"""Real servers in real processes, for the tests of the embedded server."""

import fcntl
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis

from worker.clock import Clock
from worker.embedded import EmbeddedServer

NO_LEASH = "import os, sys; os.execv(sys.argv[2], sys.argv[2:])"
MEMORY = 64 * 1024 * 1024

_OWNER = """
import json, sys
sys.path[:0] = json.loads(sys.argv[2])
from pathlib import Path
from redis import Redis
from worker.embedded import EmbeddedServer, spawn
if sys.argv[3]:
    spawn._LEASH = sys.argv[3]
server = EmbeddedServer.start(Path(sys.argv[1]), max_memory_bytes=64 * 1024 * 1024)
with Redis.from_url(server.url) as client:
    pid = client.info("server")["process_id"]
print(json.dumps({"url": server.url, "owned": server.owned, "pid": pid}), flush=True)
sys.stdin.readline()
server.stop()
"""


class Hurried(Clock):
    """A clock on which every pause takes twenty seconds, at once."""

    def __init__(self) -> None:
        self.at = 0.0

    def monotonic(self) -> float:
        """Tell the invented time."""
        return self.at

    def sleep(self, seconds: float) -> None:
        """Let twenty seconds pass."""
        assert seconds < 1
        self.at += 20.0


def wait_until(condition: Callable[[], object], description: str, *, seconds: float = 15.0) -> None:
    """Look every 10 ms until `condition` holds, or fail."""
    give_up_at = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up_at:
            raise AssertionError(f"still not after {seconds} s: {description}")
        threading.Event().wait(0.01)


def start(directory: Path, **given: Any) -> EmbeddedServer:
    """Start a small server in this process."""
    return EmbeddedServer.start(directory, max_memory_bytes=MEMORY, **given)


def pid_of(server: EmbeddedServer) -> int:
    """Ask the server for its process id."""
    with Redis.from_url(server.url) as client:
        return int(client.info("server")["process_id"])


def is_running(pid: int) -> bool:
    """Whether a process lives; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def is_free(lock: Path) -> bool:
    """Whether nobody holds the lock."""
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


class Other:
    """Another process that started or adopted the server of a directory. `facts` has url, owned and pid."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin
        assert process.stdout
        self.process = process
        self._stdin, self._stdout = process.stdin, process.stdout
        self.facts: dict[str, Any] = {}

    def ready(self) -> "Other":
        """Wait until it has its server."""
        self.facts = json.loads(self._stdout.readline())
        return self

    def stop(self) -> None:
        """Let it stop its server and end."""
        self._stdin.write("\n")
        self._stdin.flush()
        assert self.process.wait(20) == 0

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.process.kill()
        self.process.wait()


@contextmanager
def other_process(directory: Path, leash: str = "") -> Iterator[Other]:
    """Start another process on `directory`, which ties its server to itself unless given another `leash`."""
    path = json.dumps([entry for entry in sys.path if entry])
    command = [sys.executable, "-c", _OWNER, str(directory), path, leash]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield Other(process)
        finally:
            process.kill()

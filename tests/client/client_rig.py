"""A real Redis on a socket, and a wire to it that can be cut at the worst moment."""

import contextlib
import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import ConnectionError as RedisConnectionError
from redis import Redis

from worker.embedded import EmbeddedUnavailable, find_program

PARAMS = {"model": "claude-haiku-4-5", "max_tokens": 16, "messages": [{"role": "user", "content": "Say hello."}]}


def wait_until(condition: Callable[[], object], description: str, *, seconds: float = 15.0) -> None:
    """Look every 10 ms until `condition` holds, or fail."""
    give_up_at = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up_at:
            raise AssertionError(f"still not after {seconds} s: {description}")
        threading.Event().wait(0.01)


@contextlib.contextmanager
def redis_server(directory: Path) -> Iterator[str]:
    """Run a server without persistence; yields its URL. Skips where there is none, except in CI."""
    try:
        program = find_program(lambda _event, **_facts: None)
    except EmbeddedUnavailable as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))
    path = directory / "r.sock"
    command = [program.path, "--port", "0", "--unixsocket", "r.sock", "--save", "", "--appendonly", "no"]
    with subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL) as process:
        try:
            with Redis.from_url(f"unix://{path}") as redis:
                wait_until(lambda: _answers(redis), "the server answers")
            yield f"unix://{path}"
        finally:
            process.terminate()


def _answers(redis: Redis) -> bool:
    try:
        return bool(redis.ping())
    except RedisConnectionError:
        return False


class Wire:
    """Carries bytes between a port of its own and a server's socket, and loses the next `lose` replies when told to.

    A reply is lost together with its connection, and only one to a request that holds `trigger`: it was carried out.
    """

    def __init__(self, path: str) -> None:
        self.lose = 0
        self.lost = 0
        self.trigger = b"EVALSHA"
        self._path = path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """Cut every connection and listen no more."""
        self._closing.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            if select.select([self._listener], [], [], 0.05)[0]:
                near, _ = self._listener.accept()
                thread = threading.Thread(target=self._carry, args=(near,))
                self._threads.append(thread)
                thread.start()

    def _carry(self, near: socket.socket) -> None:
        doomed = False
        with near, socket.socket(socket.AF_UNIX) as far, contextlib.suppress(OSError):
            far.connect(self._path)
            while not self._closing.is_set():
                ready, _, _ = select.select([near, far], [], [], 0.05)
                for end in ready:
                    piece = end.recv(1 << 20)
                    if not piece:
                        return
                    if end is near:
                        doomed = doomed or (self.lost < self.lose and self.trigger in piece)
                        far.sendall(piece)
                    elif doomed:
                        self.lost += 1
                        return
                    else:
                        near.sendall(piece)

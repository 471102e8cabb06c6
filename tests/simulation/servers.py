"""A real Redis of this process's own, on a socket in a temporary folder; nothing of it is kept."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis


class NoServerError(Exception):
    """There is no redis-server on PATH."""


@contextmanager
def own_redis() -> Iterator[Any]:
    """Run a server; yields a client of it. Raises NoServerError."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        raise NoServerError("no redis-server on PATH")
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "redis.sock"
        words = [
            program,
            "--port",
            "0",
            "--unixsocket",
            str(socket),
            "--dir",
            folder,
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, process_group=0)
        try:
            client = redis.Redis(unix_socket_path=str(socket))
            _await(client, process)
            yield client
            client.close()
        finally:
            process.kill()
            process.wait()


def _await(client: Any, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < end:
        try:
            client.ping()
        except redis.ConnectionError:
            time.sleep(0.01)
        else:
            return
    raise NoServerError("redis-server does not start")

"""An address that leads to one server and then to another, as a load balancer's or Sentinel's does; and two servers."""

import select
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from bench import Bench, wait_until

from worker.simulator import Simulator
from worker.wiring import App

BUFFER = 65_536


class Switchboard:
    """Forwards TCP on a loopback port to wherever `switch` said last; nobody answers while that is nowhere."""

    def __init__(self) -> None:
        self._target: int | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._wake, self._woken = socket.socketpair()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept)]
        self.port = self._listener.getsockname()[1]
        self._threads[0].start()

    def switch(self, port: int | None) -> None:
        """Lead to another port from now on, and cut whoever is connected."""
        with self._lock:
            self._target = port
            for held in self._open:
                with suppress(OSError):
                    held.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End everything."""
        self._wake.send(b"x")
        self._threads[0].join()
        self.switch(None)
        for thread in self._threads[1:]:
            thread.join()
        for held in (self._listener, self._wake, self._woken):
            held.close()

    def _accept(self) -> None:
        while self._woken not in select.select([self._listener, self._woken], [], [])[0]:
            client, _ = self._listener.accept()
            thread = threading.Thread(target=self._forward, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _forward(self, client: socket.socket) -> None:
        with client, socket.socket() as server:
            with self._lock:
                if self._target is None:
                    return
                target = self._target
                self._open |= {client, server}
            with suppress(OSError):
                server.connect(("127.0.0.1", target))
                self._pump(client, server)
            with self._lock:
                self._open -= {client, server}

    @staticmethod
    def _pump(client: socket.socket, server: socket.socket) -> None:
        while True:
            for source in select.select([client, server], [], [])[0]:
                data = source.recv(BUFFER)
                if not data:
                    return
                (server if source is client else client).sendall(data)


def free_port() -> int:
    """Return a port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A real server on a TCP port, with a directory of its own."""

    def __init__(self, directory: Path, *words: str) -> None:
        directory.mkdir()
        self.port = free_port()
        program = shutil.which("redis-server") or "redis-server"
        self._words = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(directory)]
        self._words += ["--save", "", "--repl-diskless-sync-delay", "0", *words]
        self.client: Any = redis.Redis(port=self.port)
        self.start()

    def start(self) -> None:
        """Start it on what is in its directory."""
        self._process = subprocess.Popen(self._words, stdout=subprocess.DEVNULL)
        wait_until(self._answers, description="the server answers")

    def kill(self) -> None:
        """Let it die without a word."""
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        with suppress(redis.RedisError):
            found: int = self.client.info("server")["process_id"]
            return found == self._process.pid
        return False


class Pair:
    """A master with a replica whose link can be cut, and a bench whose Redis is whatever the address leads to."""

    def __init__(self, directory: Path, simulator: Simulator, *, appendonly: tuple[str, str] = ("yes", "yes")) -> None:
        if shutil.which("redis-server") is None:
            pytest.skip("no redis-server on PATH")
        self.address, self._link = Switchboard(), Switchboard()
        self.master = Server(directory / "master", "--appendonly", appendonly[0])
        self.replica = Server(directory / "replica", "--appendonly", appendonly[1])
        self._link.switch(self.master.port)
        self.replica.client.replicaof("127.0.0.1", self._link.port)
        self.in_step()
        self.address.switch(self.master.port)
        url = f"redis://127.0.0.1:{self.address.port}"
        self.bench = Bench(url=url, simulator=simulator, directory=directory)

    def in_step(self) -> None:
        """Wait until the replica has all that the master has."""

        def same() -> bool:
            link = self.replica.client.info("replication")
            offset = self.master.client.info("replication")["master_repl_offset"]
            return bool(link.get("master_link_status") == "up" and link.get("slave_repl_offset") == offset)

        wait_until(same, description="the replica is in step")

    def lag(self) -> None:
        """Let the replica have what is there now, and nothing of what follows."""
        self.in_step()
        self._link.switch(None)

    def fail_over(self, *apps: App, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Let the master die, promote the replica, and lead the address there."""
        self.address.switch(None)
        self.master.kill()
        meanwhile()
        self.replica.client.execute_command("REPLICAOF", "NO", "ONE")
        self.address.switch(self.replica.port)
        for app in apps:
            wait_until(lambda app=app: _reaches(app), description="the worker is connected again")  # type: ignore[misc]

    def close(self) -> None:
        """Stop everything."""
        self.bench.close()
        for server in (self.master, self.replica):
            server.kill()
            server.client.close()
        self.address.close()
        self._link.close()


def _reaches(app: App) -> bool:
    """Whether all connections of a worker work; each that was cut says so once."""
    with suppress(Exception):
        app.ledger.store.write("ping")
        app.ledger.store.read("ping")
        return bool(app.broker.client.ping())
    return False

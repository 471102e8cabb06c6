"""An HTTP server on a raw socket that does what a test scripted for each request, and counts every byte."""

import contextlib
import json
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

PATIENCE = 10.0
Play = Callable[["Exchange"], None]


class Hangup(Exception):  # noqa: N818 - says what happened
    """The client went away."""


@dataclass
class Exchange:
    """One request, as far as it has arrived."""

    connection: socket.socket
    server: "Server"
    method: str
    target: str
    headers: Mapping[str, str]
    early: bytes
    received: int = 0
    kept: bytearray = field(default_factory=bytearray)
    hung_up: bool = False
    ended: bool = False

    @property
    def announced(self) -> int:
        """The request's Content-Length."""
        return int(self.headers.get("content-length", "0"))

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def read(self, count: int | None = None) -> None:
        """Receive up to `count` bytes of the body, all of it without a count. Raises Hangup where it ends early."""
        until = self.announced if count is None else count
        if self.early:
            self._note(self.early)
            self.early = b""
        buffer = bytearray(1 << 20)
        while self.received < until:
            size = self.connection.recv_into(buffer)
            if not size:
                self._hang_up()
            self._note(memoryview(buffer)[:size])

    def answer(self, status: int, body: object = b"", **headers: str) -> None:
        """Send a whole answer; anything but bytes goes as JSON, underscores in header names become dashes."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {"content-length": str(len(raw)), **{name.replace("_", "-"): value for name, value in headers.items()}}
        lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in named.items() if value)]
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + raw)

    def send(self, raw: bytes) -> None:
        """Send bytes as they are."""
        self.connection.sendall(raw)

    def reset(self) -> None:
        """End the connection the rude way."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """End the connection."""
        self.ended = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
        self.connection.close()

    def _note(self, piece: bytes | memoryview) -> None:
        with self.server.changed:
            self.received += len(piece)
            if self.received < 1 << 20:
                self.kept += piece
            self.server.changed.notify_all()

    def _hang_up(self) -> None:
        with self.server.changed:
            self.hung_up = True
            self.server.changed.notify_all()
        raise Hangup


class Server:
    """Plays one scripted play per request, in order; an unscripted request is answered with 599."""

    def __init__(self) -> None:
        self.script: deque[Play] = deque()
        self.exchanges: list[Exchange] = []
        self.connections = 0
        self.changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    @property
    def url(self) -> str:
        """Where to reach it."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def plays(self, *plays: Play) -> None:
        """Script the next requests."""
        self.script.extend(plays)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that arrived makes the condition true; fail if that takes too long."""
        with self.changed:
            assert self.changed.wait_for(condition, PATIENCE), "the condition did not come true"

    def received(self) -> int:
        """How many bytes of the first request's body have arrived."""
        return self.exchanges[0].received if self.exchanges else 0

    def hung_up(self) -> bool:
        """Whether the first request was broken off by the client."""
        return bool(self.exchanges) and self.exchanges[0].hung_up

    def close(self) -> None:
        """End everything, threads included."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(PATIENCE)
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, Hangup):
            for exchange in self._requests(connection):
                with self.changed:
                    self.exchanges.append(exchange)
                    play = self.script.popleft() if self.script else answers(599, {})
                    self.changed.notify_all()
                play(exchange)
                if exchange.ended or exchange.headers.get("connection") == "close":
                    return

    def _requests(self, connection: socket.socket) -> Iterator[Exchange]:
        held = b""
        while True:
            while b"\r\n\r\n" not in held:
                piece = connection.recv(65_536)
                if not piece:
                    return
                held += piece
            head, _, held = held.partition(b"\r\n\r\n")
            first, *lines = head.decode().split("\r\n")
            method, target, _ = first.split(" ")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            yield Exchange(connection, self, method, target, headers, held)
            held = b""


def answers(status: int, body: object = b"", **headers: str) -> Play:
    """Receive the whole request, then answer."""

    def play(exchange: Exchange) -> None:
        exchange.read()
        exchange.answer(status, body, **headers)

    return play


def batch(remote_id: str = "msgbatch_1", **changes: Any) -> dict[str, Any]:
    """Describe a remote batch as the API would."""
    return {
        "id": remote_id,
        "type": "message_batch",
        "processing_status": "in_progress",
        "request_counts": {"processing": 3, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0},
        "created_at": "2026-11-22T10:00:00.250000Z",
        "expires_at": "2026-11-23T10:00:00.250000Z",
        "ended_at": None,
        "archived_at": None,
        "cancel_initiated_at": None,
        "results_url": None,
        **changes,
    }


def failure(error_type: str, message: str = "no", error_code: str | None = None) -> dict[str, Any]:
    """Describe an error as the API would."""
    details = {"error_code": error_code} if error_code else None
    return {"type": "error", "error": {"type": error_type, "message": message, "details": details}, "request_id": "r1"}

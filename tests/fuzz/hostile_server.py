"""An HTTP server that says what it was told to, as raw bytes and without end if need be, until its client goes."""

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterable, Iterator

Play = Callable[[], Iterable[bytes]]
PATIENCE = 20.0


class HostileServer:
    """Answers every request with `play`, then closes the connection. `heads` are the requests, without their bodies."""

    def __init__(self) -> None:
        self.play: Play = lambda: [b""]
        self.heads: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        """Where to reach it."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        """End everything, threads included."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(PATIENCE)
            self._receive(connection)
            for piece in self.play():
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65_536):  # or what was sent is lost with the connection
                pass

    def _receive(self, connection: socket.socket) -> None:
        held = b""
        while b"\r\n\r\n" not in held:
            held += connection.recv(65_536)
        head, _, body = held.partition(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        left = int(lengths[0]) - len(body) if lengths else 0
        while left > 0:
            left -= len(connection.recv(65_536))
        self.heads.append(head)


def answer(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> Play:
    """Say a whole answer, with a length unless the headers have one or a coding that needs none, and then goodbye."""
    named = [b"connection: close", *headers]
    if not any(header.lower().startswith((b"content-length", b"transfer-encoding")) for header in headers):
        named.append(b"content-length: %d" % len(body))
    return lambda: [b"HTTP/1.1 " + status + b"\r\n" + b"\r\n".join(named) + b"\r\n\r\n" + body]


def endless(head: bytes, piece: bytes) -> Play:
    """Say something, and then the same for ever."""
    return lambda: itertools.chain([head], itertools.repeat(piece))


def slowly(play: Play, passes: Callable[[], object]) -> Play:
    """Let time pass before each piece."""

    def dribble() -> Iterator[bytes]:
        for piece in play():
            passes()
            yield piece

    return dribble

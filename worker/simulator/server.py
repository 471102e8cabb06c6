"""Accepts connections and serves each in a thread of its own: plain sockets are the fastest the library has."""

import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from worker.simulator.wire import BodyCut, BodyStalled, Hangup, Malformed, Reply, Request, Wire

BACKLOG = 512
JOIN_SECONDS = 5.0


class Server:
    """Listens on `bind`:`port` (0: any free port) from start() to stop(). `answer` is called in many threads."""

    def __init__(
        self,
        answer: Callable[[Request], Reply],
        *,
        bind: str,
        port: int,
        body_timeout: float,
        idle_timeout: float,
    ) -> None:
        self._answer = answer
        self._body_timeout = body_timeout
        self._idle_timeout = idle_timeout
        family = socket.AF_INET6 if ":" in bind else socket.AF_INET
        self._listener = socket.create_server((bind, port), family=family, backlog=BACKLOG)
        self._bell, self._rope = socket.socketpair()
        self._lock = threading.Lock()
        self._open: dict[socket.socket, threading.Thread] = {}
        self._stopping = False
        self._acceptor = threading.Thread(target=self._accept, name="simulator", daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._listener.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def start(self) -> None:
        """Begin to accept."""
        self._acceptor.start()

    def stop(self) -> None:
        """Close everything, in mid-answer if need be, and wait for the threads."""
        with self._lock:
            self._stopping = True
        self._rope.send(b"!")
        if self._acceptor.is_alive():
            self._acceptor.join(JOIN_SECONDS)
        with self._lock:
            connections = dict(self._open)
        for sock in connections:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in connections.values():
            thread.join(JOIN_SECONDS)
        for sock in (self._listener, self._bell, self._rope):
            sock.close()

    def _accept(self) -> None:
        while True:
            ready, _, _ = select.select([self._listener, self._bell], [], [])
            if self._bell in ready:
                return
            try:
                sock, _ = self._listener.accept()
            except OSError:
                continue  # gone before we came to it
            thread = threading.Thread(target=self._serve, args=(sock,), name="simulator connection", daemon=True)
            with self._lock:
                self._open[sock] = thread
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        wire = Wire(sock, body_timeout=self._body_timeout, idle_timeout=self._idle_timeout)
        try:
            while not self._stopping and self._one(wire):
                pass
        except Hangup as hangup:
            if hangup.reset:
                wire.reset()
        except (BodyCut, BodyStalled, OSError):
            pass  # the client has gone, or we have
        finally:
            with self._lock:
                del self._open[sock]
            sock.close()

    def _one(self, wire: Wire) -> bool:
        try:
            request = wire.next_request()
            if request is None:
                return False
            reply = self._answer(request)
            if not reply.early:
                request.drain()
        except Malformed as error:
            return wire.send(Reply(400, {"content-type": "text/plain"}, str(error).encode(), early=True), keep=False)
        return wire.send(reply, keep=request.keep)

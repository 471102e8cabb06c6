"""A proxy before Redis that lets one command through and swallows its answer."""

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

BUFFER = 65_536


class CuttingProxy:
    """Forwards TCP to a unix socket. Once `armed` with bytes, the first request that holds them loses its answer."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._wake, self._woken = socket.socketpair()
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self.armed: bytes | None = None
        self.cuts = 0

    def serve(self) -> None:
        """Accept connections until `close`."""
        while self._woken not in select.select([self._listener, self._woken], [], [])[0]:
            client, _ = self._listener.accept()
            thread = threading.Thread(target=self._forward, args=(client,))
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """End every connection."""
        self._wake.send(b"x")

    def join(self) -> None:
        """Wait for all threads and close the sockets."""
        for thread in self._threads:
            thread.join()
        for held in (self._listener, self._wake, self._woken):
            held.close()

    def _forward(self, client: socket.socket) -> None:
        cutting = False
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self._path)
            while True:
                ready = select.select([client, server, self._woken], [], [])[0]
                if self._woken in ready:
                    return
                for source in ready:
                    data = source.recv(BUFFER)
                    if not data:
                        return
                    if source is client and self.armed and self.armed in data:
                        self.armed, cutting = None, True
                    if source is server and cutting:
                        self.cuts += 1
                        return
                    (server if source is client else client).sendall(data)


@contextmanager
def cutting_proxy(path: str) -> Iterator[CuttingProxy]:
    """Run a proxy before the server at a unix socket."""
    proxy = CuttingProxy(path)
    thread = threading.Thread(target=proxy.serve)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()
        proxy.join()

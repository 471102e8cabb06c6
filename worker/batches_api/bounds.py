"""What an answer may cost: so many bytes, so many seconds.

No server and no proxy gone mad fills the memory with one answer, or keeps a thread with one that never ends: a step
that holds a batch's lease would hold it for ever.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpcore2
import httpx2

from worker.batches_api.budget import Clock

LARGEST_ANSWER = 16 * 1024 * 1024
"""Bytes, decoded; a list of a thousand batches has 600 KB."""

LARGEST_COMPLAINT = 1024 * 1024
"""Bytes of an answer that is no success: what is behind them is not read, its status says enough."""

_RESULTS = "/results"


class AnswerTooLargeError(httpx2.ReadError):
    """An answer is longer than any answer can be."""


def no_cookies() -> CookieJar:
    """Return a jar that takes nothing: what answers wish to be remembered by would pile up, and be sent back."""
    return CookieJar(policy=DefaultCookiePolicy(allowed_domains=()))


def bound(response: httpx2.Response) -> None:
    """Let no more of an answer be read than it may have; as an event hook, before anybody reads. Results are streams.

    The SDK reads what is no success whole, and as text: in a coding of the server's choice, had that not been fixed.
    """
    response.encoding = "utf-8"
    if response.is_success and response.request.url.path.endswith(_RESULTS):
        return
    encoded = httpx2.Response(
        response.status_code, headers=response.headers, stream=response.stream, request=response.request
    )
    response.stream = _Bounded(encoded)
    for name in ("content-encoding", "content-length", "transfer-encoding"):
        response.headers.pop(name, None)


class _Bounded(httpx2.SyncByteStream):
    """The decoded body of an answer, in one piece."""

    def __init__(self, encoded: httpx2.Response) -> None:
        self._encoded = encoded

    def __iter__(self) -> Iterator[bytes]:
        most = LARGEST_ANSWER if self._encoded.is_success else LARGEST_COMPLAINT
        whole = bytearray()
        for piece in self._encoded.iter_bytes():
            whole += piece
            if len(whole) > most:
                if self._encoded.is_success:
                    raise AnswerTooLargeError(f"more than {most} bytes")
                break
        yield bytes(whole[:most])

    def close(self) -> None:
        self._encoded.close()


class Watch(threading.local):
    """How long this thread's call may still take, over all that it reads and writes; None: as long as it likes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: float | None = None
        self._answer_seconds: float | None = None

    @contextmanager
    def over(self, *, answer: float, sending: float | None = None) -> Iterator[None]:
        """Watch a call: `answer` seconds from its first read on, before that `sending` seconds, if they are given."""
        self._until = None if sending is None else self._clock.monotonic() + sending
        self._answer_seconds = answer
        try:
            yield
        finally:
            self._until = self._answer_seconds = None

    def sending(self, timeout: float | None) -> float | None:
        """Return how long a write may take. Raises WriteTimeout."""
        return self._left(timeout, httpcore2.WriteTimeout)

    def reading(self, timeout: float | None) -> float | None:
        """Return how long a read may take. Raises ReadTimeout."""
        if self._answer_seconds is not None:
            self._until = self._clock.monotonic() + self._answer_seconds
            self._answer_seconds = None
        return self._left(timeout, httpcore2.ReadTimeout)

    def _left(self, timeout: float | None, late: type[httpcore2.TimeoutException]) -> float | None:
        if self._until is None:
            return timeout
        left = self._until - self._clock.monotonic()
        if left <= 0:
            raise late("no end in sight")
        return left if timeout is None else min(timeout, left)


def keep_watch(client: httpx2.Client, watch: Watch) -> None:
    """Put every connection that a client will open under a watch.

    Timeouts are for one read: a byte a minute, or hints that an answer is to come, keep a call alive for ever.
    """
    for transport in (client._transport, *client._mounts.values()):  # noqa: SLF001 - no option leads to the backend
        pool = getattr(transport, "_pool", None)
        if pool is not None:
            pool._network_backend = _Backend(pool._network_backend, watch)  # noqa: SLF001 - the same


class _Backend(httpcore2.NetworkBackend):
    """Opens connections under a watch."""

    def __init__(self, backend: httpcore2.NetworkBackend, watch: Watch) -> None:
        self._backend = backend
        self._watch = watch

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        stream = self._backend.connect_tcp(host, port, timeout, local_address, socket_options)
        return _Stream(stream, self._watch)

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.NetworkStream:
        return _Stream(self._backend.connect_unix_socket(path, timeout, socket_options), self._watch)

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)


class _Stream(httpcore2.NetworkStream):
    """A connection under a watch."""

    def __init__(self, stream: httpcore2.NetworkStream, watch: Watch) -> None:
        self._stream = stream
        self._watch = watch

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._watch.reading(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._watch.sending(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, timeout), self._watch)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

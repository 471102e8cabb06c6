"""HTTP/1.1 over one accepted socket: requests in, replies out, and every rude way to end it."""

import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

PHRASES = {status.value: status.phrase for status in HTTPStatus}
HEAD_LIMIT = 64 << 10
PIECE = 1 << 20  # one receive; larger gains nothing on loopback
LINGER_SECONDS = 5.0
LINGER_BYTES = 1 << 30


class Hangup(Exception):  # noqa: N818  # says what happened on the wire
    """End the connection without (the rest of) an answer; `reset` sends RST, else it just closes."""

    def __init__(self, *, reset: bool = True) -> None:
        self.reset = reset
        super().__init__("reset" if reset else "close")


class BodyCut(Exception):  # noqa: N818  # says what happened on the wire
    """The client left before its body was complete."""


class BodyStalled(Exception):  # noqa: N818  # says what happened on the wire
    """Nothing of the body arrived for longer than the body timeout."""


class Malformed(Exception):  # noqa: N818  # says what happened on the wire
    """Not HTTP as we know it; answered 400 and closed."""


@dataclass(slots=True)
class Request:
    """One request; `body` yields its pieces (valid until the next one) and may raise BodyCut or BodyStalled."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    content_length: int | None
    body: Iterator[bytes | memoryview]
    keep: bool = True

    def drain(self) -> None:
        """Read what is left of the body."""
        for _ in self.body:
            pass

    def read(self, limit: int) -> bytes:
        """Read the whole of a small body; raises Malformed above `limit` bytes."""
        body = bytearray()
        for piece in self.body:
            body += piece
            if len(body) > limit:
                raise Malformed("body too large")
        return bytes(body)


@dataclass(slots=True)
class Reply:
    """One answer. A body of pieces is framed as `framing` says; `early` closes without reading the request's body."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Iterator[bytes] = b""
    framing: Literal["chunked", "close"] = "chunked"
    early: bool = False


class Wire:
    """The two directions of one connection."""

    def __init__(self, sock: socket.socket, *, body_timeout: float, idle_timeout: float) -> None:
        self._sock = sock
        self._body_timeout = body_timeout
        self._idle_timeout = idle_timeout
        self._buffer = bytearray()
        self._room: memoryview | None = None
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def next_request(self) -> Request | None:
        """Read the next head; None once the client has gone or said nothing for `idle_timeout`. Raises Malformed."""
        self._sock.settimeout(self._idle_timeout)
        try:
            while (end := self._buffer.find(b"\r\n\r\n")) < 0:
                if len(self._buffer) > HEAD_LIMIT:
                    raise Malformed("head too large")
                if not (piece := self._sock.recv(HEAD_LIMIT)):
                    return None
                self._buffer += piece
        except OSError:
            return None
        head = bytes(self._buffer[:end]).decode("latin-1")
        del self._buffer[: end + 4]
        return self._request(head)

    def _request(self, head: str) -> Request:
        first, *lines = head.split("\r\n")
        try:
            method, target, protocol = first.split(" ")
            headers = {name.strip().lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
            length = int(headers["content-length"]) if "content-length" in headers else None
        except ValueError:
            raise Malformed("bad request head") from None
        if not protocol.startswith("HTTP/1.") or (length is not None and length < 0):
            raise Malformed("bad request head")
        parts = urlsplit(target)
        chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        body = self._chunks() if chunked else self._fixed(length or 0)
        if headers.get("expect", "").lower() == "100-continue":
            body = self._after_continue(body)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        keep = protocol == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
        return Request(method, unquote(parts.path), query, headers, None if chunked else length or 0, body, keep)

    def _after_continue(self, body: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        self._sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        yield from body

    def _fixed(self, left: int) -> Iterator[bytes | memoryview]:
        if self._buffer and left:
            piece = bytes(self._buffer[:left])
            del self._buffer[: len(piece)]
            left -= len(piece)
            yield piece
        while left:
            got = self._receive(left)
            left -= len(got)
            yield got

    def _chunks(self) -> Iterator[bytes | memoryview]:
        while True:
            while (end := self._buffer.find(b"\r\n")) < 0:
                self._buffer += self._receive(HEAD_LIMIT)
            try:
                left = int(bytes(self._buffer[:end]).split(b";")[0], 16)
            except ValueError:
                raise Malformed("bad chunk") from None
            del self._buffer[: end + 2]
            yield from self._fixed(left)
            while len(self._buffer) < 2:  # noqa: PLR2004  # the CRLF after a chunk
                self._buffer += self._receive(HEAD_LIMIT)
            del self._buffer[:2]
            if not left:
                return

    def _receive(self, most: int) -> memoryview:
        if self._room is None:
            self._room = memoryview(bytearray(PIECE))
        self._sock.settimeout(self._body_timeout)
        try:
            count = self._sock.recv_into(self._room, min(most, PIECE))
        except TimeoutError:
            raise BodyStalled from None
        except OSError:
            raise BodyCut from None
        if not count:
            raise BodyCut
        return self._room[:count]

    def send(self, reply: Reply, *, keep: bool) -> bool:
        """Send a whole answer; returns whether the connection may serve another. Raises OSError, Hangup."""
        self._sock.settimeout(self._idle_timeout)
        streamed = not isinstance(reply.body, bytes)
        keep = keep and not reply.early and not (streamed and reply.framing == "close")
        headers = dict(reply.headers)
        if isinstance(reply.body, bytes):
            headers.setdefault("content-length", str(len(reply.body)))
        elif reply.framing == "chunked" and "content-length" not in headers:
            headers["transfer-encoding"] = "chunked"
        headers["connection"] = "keep-alive" if keep else "close"
        phrase = PHRASES.get(reply.status, "Overloaded")
        head = f"HTTP/1.1 {reply.status} {phrase}\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n"
        if isinstance(reply.body, bytes):
            self._sock.sendall(head.encode("latin-1") + reply.body)
        else:
            self._sock.sendall(head.encode("latin-1"))
            self._stream(reply.body, chunked="transfer-encoding" in headers)
        if reply.early:
            self._linger()
        return keep

    def _stream(self, pieces: Iterator[bytes], *, chunked: bool) -> None:
        for piece in pieces:
            self._sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            self._sock.sendall(b"0\r\n\r\n")

    def _linger(self) -> None:
        # Closing on top of unread bytes would reset the connection and take our answer with it.
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
            self._sock.settimeout(LINGER_SECONDS)
            seen = 0
            while seen < LINGER_BYTES and (piece := self._sock.recv(PIECE)):
                seen += len(piece)

    def reset(self) -> None:
        """Make the coming close an RST."""
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

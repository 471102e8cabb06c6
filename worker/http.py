"""The ops endpoints: is it alive, is it ready, its metrics, its status. Read-only, and no prompt is ever behind them.

`/livez`, `/readyz` and `/metrics` are open to whoever reaches the port: orchestrators and Prometheus send no token.
`/statusz` names lanes and batches: on an address that others can reach it asks for the bearer token, and without one
it is closed. No client may hold more than its share: of connections, of time, of bytes.
On loopback nobody else can connect but a web page can, through the browser of a person on this machine, by naming its
own host after 127.0.0.1: there, requests for any other host than this machine are refused.
"""

import contextlib
import hmac
import io
import ipaddress
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

import msgspec
import prometheus_client
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics import exposition as openmetrics

from worker.clock import Clock

REQUEST_TIMEOUT = 10.0
"""Seconds for a whole request, however slowly it drips."""

MOST_REQUEST_BYTES = 128 * 1024
MOST_CONNECTIONS = 64
"""At the same time; beyond it the newest is hung up on, since a probe asks again and threads cost memory."""

_TEXT = "text/plain; charset=utf-8"
_JSON = "application/json"
_HTML = "text/html; charset=utf-8"
_INDEX = b"<!doctype html><title>batchmill</title><ul>%s</ul>\n" % b"".join(
    b'<li><a href="%s">/%s</a></li>' % (name, name) for name in (b"livez", b"readyz", b"metrics", b"statusz")
)


class BindError(OSError):
    """The address cannot be listened on; the text says which, why, and what to set instead."""


class Tell(Protocol):
    """Where failures are told: `telemetry.warning` has this shape."""

    def __call__(self, event: str, /, **fields: object) -> None:
        """Write one line."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: HTTPStatus
    kind: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class OpsServer:
    """Serves the endpoints from threads of its own until `stop`.

    `live` and `ready` return problems by name, nothing if all is well; `status` returns what `/statusz` shows as JSON.
    All three are called anew for each request, on its thread. `tell` hears of failures; without it they are silent.
    """

    def __init__(
        self,
        *,
        bind: str,
        port: int,
        live: Callable[[], Mapping[str, str]],
        ready: Callable[[], Mapping[str, str]],
        status: Callable[[], Mapping[str, object]],
        registry: CollectorRegistry,
        token: str | None = None,
        tell: Tell | None = None,
    ) -> None:
        self._bind = bind
        self._port = port
        self._token = token
        self._tell = tell
        self._loopback = True
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._routes: Mapping[str, Callable[[Message], _Answer]] = {
            "/": lambda _: _Answer(HTTPStatus.OK, _HTML, _INDEX),
            "/livez": lambda _: _health(live()),
            "/readyz": lambda _: _health(ready()),
            "/metrics": lambda headers: _exposition(registry, headers.get("Accept") or ""),
            "/statusz": lambda _: _Answer(HTTPStatus.OK, _JSON, msgspec.json.encode(status()) + b"\n"),
        }

    def start(self) -> int:
        """Listen, and return the port that was really bound. Raises BindError if that is impossible."""
        try:
            self._server = _Server(self._bind, self._port, self)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or "not an address or port of this machine"
            raise BindError(
                f"cannot listen on {self._bind or '*'}:{self._port}: {reason}; "
                "set [http] bind and port to something free (port 0 takes any)"
            ) from error
        self._loopback = self._server.loopback
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="ops-http", daemon=True)
        self._thread.start()
        return self._server.server_port

    @property
    def closes_status(self) -> bool:
        """Whether `/statusz` is closed to everybody: others can reach the address, and no token is set."""
        return not self._loopback and not self._token

    def stop(self) -> None:
        """Stop listening. Requests under way are left to their own threads; a second call does nothing."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._server = self._thread = None

    def answer(self, path: str, headers: Message) -> _Answer:
        """Return the answer to a GET; an error inside becomes a 500 that tells nothing."""
        if self._loopback and not _names_this_machine(headers.get("Host"), self._bind):
            return _plain(HTTPStatus.FORBIDDEN, "unknown host")
        route = path.partition("?")[0]
        if route not in self._routes:
            return _plain(HTTPStatus.NOT_FOUND, "not found")
        if route == "/statusz" and self.closes_status:
            return _plain(HTTPStatus.FORBIDDEN, "beyond loopback this needs http.token_file to be set")
        if route == "/statusz" and not self._may_see_status(headers.get("Authorization") or ""):
            return _plain(HTTPStatus.UNAUTHORIZED, "a bearer token is needed", {"WWW-Authenticate": "Bearer"})
        try:
            return self._routes[route](headers)
        except Exception as error:  # noqa: BLE001  # whatever breaks in a check must not break the server
            self.failed(error, route)
            return _plain(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error")

    def failed(self, error: BaseException | None, path: str | None = None) -> None:
        """Tell of a failure that no client is to hear about."""
        if self._tell is not None:
            self._tell("http.failed", path=path, error_type=type(error).__name__, exc_info=error)

    def _may_see_status(self, authorization: str) -> bool:
        if self._loopback:
            return True
        scheme, _, given = authorization.partition(" ")
        # Headers arrive as Latin-1, whatever bytes they were.
        same = hmac.compare_digest(given.strip().encode("latin-1", "replace"), (self._token or "").encode())
        return same and scheme.lower() == "bearer"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, bind: str, port: int, ops: OpsServer) -> None:
        found = socket.getaddrinfo(bind or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, _, _, _, address = found[0]
        self.loopback = ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback
        self.ops = ops
        self._places = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__((str(address[0]), port), _Handler)

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """Hand a connection to a thread of its own, while there is a place for it."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._places.release()
            raise

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        """Answer, on that thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def server_bind(self) -> None:
        """Bind without asking DNS for our own name, as the standard library would."""
        if self.address_family == socket.AF_INET6:
            with contextlib.suppress(OSError):  # "::" should take IPv4 as well, where the system can
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]  # host and port

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002  # socketserver's signature
        """Tell of what went wrong with a connection, unless the other side merely went away."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError | TimeoutError):
            self.ops.failed(error)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = REQUEST_TIMEOUT
    server_version = "batchmill"
    sys_version = ""
    default_request_version = "HTTP/1.0"  # else what is no HTTP is answered as HTTP/0.9, without a status

    def setup(self) -> None:
        """Read through a limit: the standard library's timeout is for each piece, and a piece may be a byte."""
        super().setup()
        self.rfile = io.BufferedReader(_Limited(self.connection, self.timeout))

    def do_GET(self) -> None:  # the standard library's name
        self._send(self.server.ops.answer(self.path, self.headers))

    def do_HEAD(self) -> None:  # the standard library's name
        self._send(self.server.ops.answer(self.path, self.headers))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002 - its signature
        """Answer what is no proper GET or HEAD with one line, where the standard library would quote the request."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            self._send(_plain(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD", {"Allow": "GET, HEAD"}))
        else:
            status = HTTPStatus(code)
            self._send(_plain(status, status.phrase.lower()))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the standard library's names
        """Log nothing: probes and scrapes come every few seconds for ever."""

    def _send(self, answer: _Answer) -> None:
        self.close_connection = True
        self.connection.settimeout(self.timeout)
        self.send_response(answer.status)
        for name, value in {
            "Content-Type": answer.kind,
            "Content-Length": str(len(answer.body)),
            "Cache-Control": "no-store",
            "Content-Security-Policy": "default-src 'none'",
            "X-Content-Type-Options": "nosniff",
            **answer.headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)


class _Limited(io.RawIOBase):
    """The bytes of one request, as long as they are few and come soon. Raises TimeoutError, ConnectionError."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection = connection
        self._clock = Clock()
        self._give_up_at = self._clock.monotonic() + seconds
        self._left = MOST_REQUEST_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._give_up_at - self._clock.monotonic()
        if left <= 0:
            raise TimeoutError
        if self._left <= 0:
            raise ConnectionAbortedError
        self._connection.settimeout(left)
        count = self._connection.recv_into(buffer)
        self._left -= count
        return count


def _plain(status: HTTPStatus, text: str, headers: Mapping[str, str] | None = None) -> _Answer:
    return _Answer(status, _TEXT, f"{text}\n".encode(), headers or {})


def _health(problems: Mapping[str, str]) -> _Answer:
    status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
    return _Answer(status, _JSON, msgspec.json.encode({"ok": not problems, "problems": dict(problems)}) + b"\n")


def _exposition(registry: CollectorRegistry, accept: str) -> _Answer:
    wanted = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    if "application/openmetrics-text" in wanted:
        body: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]  # theirs is untyped
        return _Answer(HTTPStatus.OK, openmetrics.CONTENT_TYPE_LATEST, body)
    body = prometheus_client.generate_latest(registry)
    return _Answer(HTTPStatus.OK, prometheus_client.exposition.CONTENT_TYPE_PLAIN_0_0_4, body)


def _names_this_machine(host: str | None, bind: str) -> bool:
    if host is None:  # no browser leaves it out
        return True
    name = host.strip().lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    if name in ("localhost", bind.lower()):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False

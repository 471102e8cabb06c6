import json
import socket
import struct
import time
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any

import pytest

from worker.simulator import Options, Simulator

Any_ = Callable[..., Any]
HEADERS = "Host: simulator\r\nAuthorization: Bearer sk-ant-canary\r\nanthropic-version: 2026-10-21\r\n"


def _connect(simulator: Simulator) -> socket.socket:
    host, port = simulator.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def _head(length: int, extra: str = "") -> bytes:
    return f"POST /v1/messages/batches HTTP/1.1\r\n{HEADERS}{extra}Content-Length: {length}\r\n\r\n".encode()


def _read(sock: socket.socket) -> bytes:
    received = b""
    while piece := sock.recv(65_536):
        received += piece
    return received


def _outcomes(simulator: Simulator) -> Any:
    return simulator.control.state()["posts"]


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
@pytest.mark.parametrize("missing", [1, 10, 100_000])
def test_a_cut_body_creates_nothing(
    simulator: Simulator, requests: Any_, wait_until: Any_, how: str, missing: int
) -> None:
    """A connection closed before the last byte, by one byte or many, in any way, leaves no batch behind."""
    body = json.dumps(requests(2_000)).encode()
    with _connect(simulator) as sock:
        sock.sendall(_head(len(body)) + body[:-missing])
        if how == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how == "half-close":
            sock.shutdown(socket.SHUT_WR)
            assert _read(sock) == b""
    wait_until(lambda: _outcomes(simulator) == {"cut": 1}, "the cut is on record")
    assert simulator.control.ledger()["batches"] == 0


def test_the_last_byte_creates(simulator: Simulator, requests: Any_) -> None:
    """With the last byte withheld there is no batch; when it comes, there is."""
    body = json.dumps(requests(10)).encode()
    with _connect(simulator) as sock:
        sock.sendall(_head(len(body), "Connection: close\r\n") + body[:-1])
        assert simulator.control.ledger()["batches"] == 0
        sock.sendall(body[-1:])
        assert _read(sock).startswith(b"HTTP/1.1 200 OK\r\n")
    assert simulator.control.ledger()["batches"] == 1


def test_a_stalled_body_is_refused_and_creates_nothing(simulate: Any_, requests: Any_) -> None:
    """After `body_timeout` without a byte the answer is 400 `request_body_timeout`, and the connection closes."""
    simulator = simulate(body_timeout=0.1)
    body = json.dumps(requests(10)).encode()
    with _connect(simulator) as sock:
        sock.sendall(_head(len(body)) + body[:-1])
        head, _, answer = _read_until_closing(sock).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer)["error"]["details"] == {"error_code": "request_body_timeout"}
    assert _outcomes(simulator) == {"request_body_timeout": 1}
    assert simulator.control.ledger()["batches"] == 0


def _read_until_closing(sock: socket.socket) -> bytes:
    answer = _read(sock)
    sock.shutdown(socket.SHUT_WR)
    return answer


def test_a_chunked_body_creates(simulator: Simulator, requests: Any_) -> None:
    """A body without Content-Length works, and cut before its last chunk it creates nothing."""
    body = json.dumps(requests(2_000)).encode()
    head = f"POST /v1/messages/batches HTTP/1.1\r\n{HEADERS}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(body[at : at + 7_001]), body[at : at + 7_001]) for at in range(0, len(body), 7_001)
    )
    for end, batches in ((b"", 0), (b"0\r\n\r\n", 1)):
        with _connect(simulator) as sock:
            sock.sendall(head.encode() + chunks + end)
            sock.shutdown(socket.SHUT_WR)
            _read(sock)
        assert simulator.control.ledger()["batches"] == batches


def test_a_connection_serves_many_requests(simulator: Simulator, requests: Any_) -> None:
    """Keep-alive holds through creates, errors and streams."""
    connection = HTTPConnection(simulator.url.removeprefix("http://"), timeout=10)
    headers = {"authorization": "Bearer sk-ant-canary", "anthropic-version": "2026-10-21"}
    try:
        for _ in range(3):
            connection.request("POST", "/v1/messages/batches", json.dumps(requests(3)).encode(), headers)
            first_socket = connection.sock
            batch_id = json.loads(connection.getresponse().read())["id"]
            simulator.control.end()
            connection.request("GET", f"/v1/messages/batches/{batch_id}/results", headers=headers)
            assert connection.getresponse().read().count(b"\n") == 3
            connection.request("POST", "/v1/messages/batches", b"{}", {})
            assert json.loads(connection.getresponse().read())["error"]["type"] == "authentication_error"
            assert connection.sock is first_socket
    finally:
        connection.close()


def test_a_client_that_expects_100_is_told_to_go_on(simulator: Simulator, requests: Any_) -> None:
    """`Expect: 100-continue` is answered before the body."""
    body = json.dumps(requests()).encode()
    with _connect(simulator) as sock:
        sock.sendall(_head(len(body), "Expect: 100-continue\r\nConnection: close\r\n"))
        assert sock.recv(1_000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert _read(sock).startswith(b"HTTP/1.1 200 OK")


def test_a_huge_body_gets_its_413_before_it_is_sent(simulate: Any_) -> None:
    """The gateway refuses by Content-Length alone, and the answer survives the bytes that still come."""
    simulator = simulate(max_body_bytes=1_000_000)
    with _connect(simulator) as sock:
        sock.sendall(_head(50_000_000))
        assert sock.recv(12) == b"HTTP/1.1 413"
        sock.sendall(b"x" * 5_000_000)
        sock.shutdown(socket.SHUT_WR)
        _read(sock)
    assert _outcomes(simulator) == {"refused 413": 1}


def test_an_early_status_comes_before_the_body(simulator: Simulator) -> None:
    """With `early` the scripted status is answered while the client still sends."""
    simulator.control.inject({"on": "create", "kind": "status", "status": 429, "early": True})
    with _connect(simulator) as sock:
        sock.sendall(_head(50_000_000))
        assert sock.recv(12) == b"HTTP/1.1 429"


@pytest.mark.parametrize(
    "nonsense", [b"\r\n\r\n", b"GET\r\n\r\n", b"GET / SPDY/3\r\n\r\n", b"GET / HTTP/1.1\r\nx\r\n\r\n"]
)
def test_what_is_no_http_is_refused(simulator: Simulator, nonsense: bytes) -> None:
    """A broken head is 400 and the end of the connection."""
    with _connect(simulator) as sock:
        sock.sendall(nonsense)
        assert sock.recv(12) == b"HTTP/1.1 400"


def test_stopping_closes_idle_connections(simulator: Simulator) -> None:
    """A client that keeps its connection open does not keep the simulator."""
    with _connect(simulator) as sock:
        sock.sendall(f"GET /v1/messages/batches HTTP/1.1\r\n{HEADERS}\r\n".encode())
        assert sock.recv(12) == b"HTTP/1.1 200"
        began = time.monotonic()
        simulator.stop()
        assert time.monotonic() - began < 4
        _read(sock)


def test_a_simulator_starts_once_and_stops_twice(simulate: Any_) -> None:
    """Its address is known only while it runs, and stop is harmless when repeated."""
    simulator = Simulator()
    with pytest.raises(RuntimeError):
        _ = simulator.url
    assert simulator.start() == simulator.url
    with pytest.raises(RuntimeError):
        simulator.start()
    simulator.stop()
    simulator.stop()
    with pytest.raises(RuntimeError):
        simulator.start()
    taken = int(simulate().url.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"):
        Simulator(taken).start()


@pytest.mark.parametrize(
    "wrong",
    [{"ends_after": -1}, {"lifetime": 0}, {"requests_per_minute": 0}, {"framing": "gzip"}, {"max_requests": 0}],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    """Every option is checked before anything starts."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Options(**wrong)

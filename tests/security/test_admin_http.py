"""The ops endpoints under hostile clients: what they may see, and how little of us they can hold."""

import contextlib
import hmac
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from security_rig import QUICK, Daemon, environment, guarded_redis, wait_until

import worker.http
from worker.http import OpsServer

TOKEN = "t0ken-for-status"


@contextlib.contextmanager
def serving(bind: str = "127.0.0.1", token: str | None = None) -> Iterator[int]:
    """Serve endpoints of nothing; yields the port."""
    server = OpsServer(
        bind=bind,
        port=0,
        live=dict,
        ready=dict,
        status=lambda: {"lanes": ["default"]},
        registry=CollectorRegistry(),
        token=token,
    )
    try:
        yield server.start()
    finally:
        server.stop()


def ask(port: int, path: str, **headers: str) -> tuple[int, str]:
    """Ask once; returns the status and the body."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def hung_up(connection: socket.socket) -> bool:
    """Whether the other side has closed the connection without a word."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "mill.example"])
def test_without_a_token_others_cannot_see_the_status(host: str) -> None:
    """Not even who seems to come from this machine: a published port of a container looks like loopback."""
    with serving("0.0.0.0") as port:  # noqa: S104 - the case that is tested
        status, body = ask(port, "/statusz", Host=host)
        assert status == 403
        assert "http.token_file" in body
        assert "default" not in body
        assert [ask(port, path, Host=host)[0] for path in ("/livez", "/readyz", "/metrics")] == [200, 200, 200]


def test_on_loopback_it_stays_open() -> None:
    """Whoever is on this machine may look, as the command line does."""
    with serving() as port:
        assert ask(port, "/statusz") == (200, '{"lanes":["default"]}\n')


def test_a_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a refusal takes tells nothing of how much was right."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    with serving("0.0.0.0", TOKEN) as port:  # noqa: S104 - the case that is tested
        assert ask(port, "/statusz", Authorization=f"Bearer {TOKEN[:-1]}x")[0] == 401
        assert ask(port, "/statusz", Authorization=f"Bearer {TOKEN}")[0] == 200
    assert len(compared) == 2


def test_a_request_that_drips_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then keeps no thread: the limit is for the request, not for each byte."""
    monkeypatch.setattr(worker.http._Handler, "timeout", 0.3)
    with serving() as port, contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nX: ")
        connection.settimeout(0.05)

        def refused() -> bool:
            try:
                connection.sendall(b"x")
                return connection.recv(1) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        wait_until(refused, description="the server hangs up", timeout=20)
        assert ask(port, "/livez")[0] == 200


def test_headers_without_an_end_are_cut_off() -> None:
    """A hundred headers of 64 KB each would be let through by the standard library."""
    with serving() as port, contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"GET /livez HTTP/1.1\r\n")
            for number in range(10):
                connection.sendall(b"X-%d: %b\r\n" % (number, b"x" * 60_000))
            connection.sendall(b"\r\n")
        assert hung_up(connection)
        assert ask(port, "/livez")[0] == 200


def test_so_many_connections_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs a thread; beyond the limit the newest is hung up on, and a place that is free is given away again."""
    assert worker.http.MOST_CONNECTIONS <= 64
    monkeypatch.setattr(worker.http, "MOST_CONNECTIONS", 3)
    with serving() as port, contextlib.ExitStack() as stack:
        before = threading.active_count()
        idle = [
            stack.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=10)))
            for _ in range(3)
        ]
        wait_until(lambda: threading.active_count() >= before + 3, description="all places are taken")
        with contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as late:
            assert hung_up(late)
        idle[0].close()
        wait_until(lambda: threading.active_count() < before + 3, description="a place is free")
        assert ask(port, "/livez")[0] == 200


@pytest.mark.parametrize("given_as", ["file", "credential"])
def test_a_daemon_that_listens_everywhere_shows_its_status_for_the_token_alone(tmp_path: Path, given_as: str) -> None:
    """From the file that the setting names, or as systemd hands it over; it is in no log."""
    (tmp_path / "http_token").write_text(f"{TOKEN}\n", "utf-8")
    settings = QUICK | {"http.bind": "0.0.0.0"}  # noqa: S104 - the case that is tested
    credentials = {"CREDENTIALS_DIRECTORY": str(tmp_path)} if given_as == "credential" else {}
    settings |= {} if credentials else {"http.token_file": "http_token"}
    with guarded_redis(tmp_path / "redis") as server:
        url = server.url.replace("//", "//admin:s3curity-admin@")
        daemon = Daemon(
            folder=tmp_path, env=environment(settings, {"REDIS_URL": url, "ANTHROPIC_API_KEY": "k"} | credentials)
        )
        try:
            daemon.ready()
            assert daemon.get("/statusz")[0] == daemon.get("/statusz", Authorization="Bearer wrong")[0] == 401
            status, body = daemon.get("/statusz", Authorization=f"Bearer {TOKEN}")
            assert (status, list(json.loads(body)["lanes"])) == (200, ["default"])
            assert daemon.get("/livez")[0] == daemon.get("/metrics")[0] == 200
        finally:
            assert daemon.stop() == 0
        assert "http.status_closed" not in daemon.err
        assert TOKEN not in daemon.err + daemon.out


def test_a_daemon_that_listens_everywhere_without_a_token_says_what_is_closed(tmp_path: Path) -> None:
    """It starts all the same: a container's probes and scrapes need no token."""
    with guarded_redis(tmp_path / "redis") as server:
        url = server.url.replace("//", "//admin:s3curity-admin@")
        settings = QUICK | {"http.bind": "0.0.0.0"}  # noqa: S104 - the case that is tested
        daemon = Daemon(folder=tmp_path, env=environment(settings, {"REDIS_URL": url, "ANTHROPIC_API_KEY": "k"}))
        try:
            daemon.ready()
            assert [daemon.get(path)[0] for path in ("/statusz", "/livez", "/readyz")] == [403, 200, 200]
            assert '"event":"http.status_closed"' in daemon.err
        finally:
            assert daemon.stop() == 0

import http.client
import json
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

import worker.http
from worker.http import BindError, OpsServer
from worker.telemetry import Telemetry

Problems = Mapping[str, str]


class Daemon:
    """What stands behind the endpoints: a test changes the answers and reads what was told."""

    def __init__(self) -> None:
        self.live: Callable[[], Problems] = dict
        self.ready: Callable[[], Problems] = dict
        self.status: Callable[[], Mapping[str, object]] = lambda: {"lanes": ["default"]}
        self.told: list[tuple[str, dict[str, object]]] = []
        self.port = 0

    def tell(self, event: str, /, **fields: object) -> None:
        """Remember a line."""
        self.told.append((event, fields))

    def serve(self, *, bind: str = "127.0.0.1", token: str | None = None) -> OpsServer:
        """Return a server, not started."""
        return OpsServer(
            bind=bind,
            port=0,
            live=lambda: self.live(),  # noqa: PLW0108  # a test may replace it later
            ready=lambda: self.ready(),  # noqa: PLW0108  # a test may replace it later
            status=lambda: self.status(),  # noqa: PLW0108  # a test may replace it later
            registry=Telemetry(version="1", registry=CollectorRegistry()).registry,
            token=token,
            tell=self.tell,
        )

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, http.client.HTTPMessage, str]:
        """Send one request; a header's underscore stands for a hyphen."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """A daemon whose endpoints listen on loopback."""
    made = Daemon()
    server = made.serve()
    made.port = server.start()
    yield made
    server.stop()


@pytest.fixture
def exposed() -> Iterator[Daemon]:
    """A daemon whose endpoints others can reach, with a token; asked through loopback, which it includes."""
    made = Daemon()
    server = made.serve(bind="0.0.0.0", token="geheim-ß")  # noqa: S104  # the case that is tested
    made.port = server.start()
    yield made
    server.stop()


@pytest.mark.parametrize(("path", "check"), [("/livez", "live"), ("/readyz", "ready")])
def test_health_is_200_without_problems_and_503_with_them(daemon: Daemon, path: str, check: str) -> None:
    """The body names the problems, and each request asks again."""
    status, headers, body = daemon.ask(path)
    assert (status, headers["Content-Type"], json.loads(body)) == (
        200,
        "application/json",
        {"ok": True, "problems": {}},
    )
    setattr(daemon, check, lambda: {"redis": "unreachable"})
    status, _, body = daemon.ask(f"{path}?verbose")
    assert (status, json.loads(body)) == (503, {"ok": False, "problems": {"redis": "unreachable"}})


def test_liveness_does_not_ask_for_readiness(daemon: Daemon) -> None:
    """An outage of Redis must not become a crash loop."""
    daemon.ready = lambda: {"redis": "unreachable"}
    assert daemon.ask("/livez")[0] == 200


def test_metrics_come_as_text_or_as_openmetrics_when_asked(daemon: Daemon) -> None:
    """Prometheus asks for OpenMetrics, a person with curl for nothing."""
    status, headers, body = daemon.ask("/metrics", Accept="*/*")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert "batchmill_build_info" in body
    assert "# EOF" not in body
    accept = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5"
    status, headers, body = daemon.ask("/metrics", Accept=accept)
    assert headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    parsed = parse_openmetrics(body)  # type: ignore[no-untyped-call]  # theirs is untyped
    assert "batchmill_build_info" in {family.name for family in parsed}


def test_status_is_json(daemon: Daemon) -> None:
    """What the callable returns, as it is."""
    status, headers, body = daemon.ask("/statusz")
    assert (status, headers["Content-Type"], json.loads(body)) == (200, "application/json", {"lanes": ["default"]})


def test_the_root_links_to_what_there_is(daemon: Daemon) -> None:
    """Relative links, so that they work behind a path prefix."""
    _, _, body = daemon.ask("/")
    for name in ("livez", "readyz", "metrics", "statusz"):
        assert f'href="{name}"' in body
        assert daemon.ask(f"/{name}")[0] == 200


def break_with_a_prompt() -> Mapping[str, object]:
    """Raise what quotes a prompt."""
    raise KeyError("CANARYPROMPT")


def test_a_broken_check_is_a_500_without_details_and_the_server_goes_on(
    daemon: Daemon, capfd: pytest.CaptureFixture[str]
) -> None:
    """The client learns nothing, the operator the kind and the place, standard error nothing."""
    daemon.status = break_with_a_prompt
    status, _, body = daemon.ask("/statusz")
    assert (status, body) == (500, "internal error\n")
    ((event, fields),) = daemon.told
    assert (event, fields["path"], fields["error_type"]) == ("http.failed", "/statusz", "KeyError")
    assert daemon.ask("/livez")[0] == 200
    assert capfd.readouterr() == ("", "")


def test_a_status_that_is_no_json_is_a_500(daemon: Daemon) -> None:
    """What cannot be written is an error inside, not half an answer."""
    daemon.status = lambda: {"thing": object()}
    assert daemon.ask("/statusz")[0] == 500


def test_head_has_the_headers_of_get_and_no_body(daemon: Daemon) -> None:
    """Load balancers ask that way."""
    _, get_headers, get_body = daemon.ask("/livez")
    status, headers, body = daemon.ask("/livez", "HEAD")
    assert (status, body) == (200, "")
    assert headers["Content-Length"] == get_headers["Content-Length"] == str(len(get_body))
    with closing(socket.create_connection(("127.0.0.1", daemon.port), timeout=10)) as connection:
        connection.sendall(b"HEAD /livez HTTP/1.0\r\n\r\n")
        with connection.makefile("rb") as answer:
            assert answer.read().endswith(b"\r\n\r\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "BREW"])
def test_nothing_can_be_changed_here(daemon: Daemon, method: str) -> None:
    """Only GET and HEAD exist."""
    status, headers, body = daemon.ask("/statusz", method)
    assert (status, headers["Allow"], body) == (405, "GET, HEAD", "only GET and HEAD\n")


@pytest.mark.parametrize("path", ["/nothing", "/livez/", "/../etc/passwd", "//statusz2", "*"])
def test_anything_else_is_not_found(daemon: Daemon, path: str) -> None:
    """The answer repeats nothing of the request."""
    status, _, body = daemon.ask(path)
    assert (status, body) == (404, "not found\n")


def test_no_answer_is_cached_or_names_its_software(daemon: Daemon) -> None:
    """A proxy that keeps an old readiness would lie."""
    _, headers, _ = daemon.ask("/livez")
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Python" not in headers["Server"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9464", "127.0.0.1.evil.example", "10.0.0.1", "[fe80::1]"]
)
def test_on_loopback_a_page_of_another_host_learns_nothing(daemon: Daemon, host: str) -> None:
    """A rebound name reaches 127.0.0.1, but says its own name."""
    for path in ("/statusz", "/metrics", "/livez", "/"):
        assert daemon.ask(path, Host=host)[0] == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:9464", "127.1.2.3", "[::1]:9464"])
def test_on_loopback_this_machine_may_ask_by_any_of_its_names(daemon: Daemon, host: str) -> None:
    """The port of the header is not compared: a tunnel has another."""
    assert daemon.ask("/statusz", Host=host)[0] == 200


def test_a_request_without_a_host_is_no_browser(daemon: Daemon) -> None:
    """A health check that speaks HTTP/1.0 by hand is answered."""
    with closing(socket.create_connection(("127.0.0.1", daemon.port), timeout=10)) as connection:
        connection.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        with connection.makefile("rb") as answer:
            assert answer.readline() == b"HTTP/1.0 200 OK\r\n"


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        (None, 401),
        ("", 401),
        ("Bearer", 401),
        ("Bearer wrong", 401),
        ("Basic geheim-ß", 401),
        ("Bearer geheim-ß", 200),
        ("bearer  geheim-ß", 200),
    ],
)
def test_where_others_can_reach_it_status_needs_the_token(
    exposed: Daemon, authorization: str | None, expected: int
) -> None:
    """The token itself, as a bearer token; an answer without it says nothing of the lanes."""
    # http.client writes Latin-1; the bytes of a real client are UTF-8.
    sent = {} if authorization is None else {"Authorization": authorization.encode().decode("latin-1")}
    status, headers, body = exposed.ask("/statusz", **sent)
    assert status == expected
    assert ("lanes" in body) is (expected == 200)
    assert headers["WWW-Authenticate"] == ("Bearer" if expected == 401 else None)


def test_on_loopback_the_token_is_not_asked_for() -> None:
    """Whoever is on this machine may look, as the command line does."""
    made = Daemon()
    server = made.serve(token="geheim")
    made.port = server.start()
    assert made.ask("/statusz")[0] == 200
    server.stop()


def test_where_others_can_reach_it_probes_and_scrapes_need_no_token(exposed: Daemon) -> None:
    """Orchestrators send none, and may use any name for us."""
    for path in ("/livez", "/readyz", "/metrics"):
        assert exposed.ask(path, Host="batchmill.svc")[0] == 200


def test_a_slow_check_delays_nobody_else(daemon: Daemon) -> None:
    """Every request has its own thread: a hanging status must not look like a dead daemon."""
    entered, finish = threading.Event(), threading.Event()

    def hang() -> Mapping[str, object]:
        entered.set()
        finish.wait(10)
        return {}

    daemon.status = hang
    statuses: list[int] = []
    slow = threading.Thread(target=lambda: statuses.append(daemon.ask("/statusz")[0]))
    slow.start()
    assert entered.wait(10)
    assert daemon.ask("/livez")[0] == 200
    assert statuses == []
    finish.set()
    slow.join()
    assert statuses == [200]


def test_a_client_that_says_nothing_is_hung_up_on(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a request holds a thread for a while and no longer, and is nobody's error."""
    assert worker.http._Handler.timeout <= 30
    monkeypatch.setattr(worker.http._Handler, "timeout", 0.05)
    with closing(socket.create_connection(("127.0.0.1", daemon.port), timeout=10)) as connection:
        connection.sendall(b"GET /livez")
        assert connection.recv(1) == b""
    assert daemon.told == []


def test_a_client_that_does_not_wait_is_no_error(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe that gave up resets the connection: nothing to tell anybody."""
    asked, gone, over = threading.Event(), threading.Event(), threading.Event()

    def wait() -> Mapping[str, object]:
        asked.set()
        gone.wait(10)
        return {}

    def end(server: worker.http._Server, request: socket.socket) -> None:
        server.close_request(request)
        over.set()

    daemon.status = wait
    monkeypatch.setattr(worker.http._Server, "shutdown_request", end)
    connection = socket.create_connection(("127.0.0.1", daemon.port), timeout=10)
    connection.sendall(b"GET /statusz HTTP/1.0\r\n\r\n")
    assert asked.wait(10)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    gone.set()
    assert over.wait(10)
    assert daemon.told == []


@pytest.mark.parametrize(
    "request_line", [b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"x" * (65_537 - 5)]
)
def test_what_is_no_http_is_refused_without_being_quoted(daemon: Daemon, request_line: bytes) -> None:
    """The standard library's page would repeat the request."""
    with closing(socket.create_connection(("127.0.0.1", daemon.port), timeout=10)) as connection:
        connection.sendall(request_line)
        answer = connection.recv(4_096)
    assert answer.startswith((b"HTTP/1.0 4", b"HTTP/1.0 505"))
    assert b"nonsense" not in answer
    assert b"9.9" not in answer


def test_a_taken_port_is_an_error_that_says_what_to_set(daemon: Daemon) -> None:
    """Which address, why, and the setting."""
    taken = OpsServer(
        bind="127.0.0.1", port=daemon.port, live=dict, ready=dict, status=dict, registry=CollectorRegistry()
    )
    with pytest.raises(BindError, match=rf"127\.0\.0\.1:{daemon.port}: Address already in use; set \[http\] bind"):
        taken.start()
    taken.stop()


@pytest.mark.parametrize(("bind", "port"), [("no-such-host.invalid", 0), ("203.0.113.7", 0), ("127.0.0.1", 70_000)])
def test_an_impossible_address_is_the_same_error(bind: str, port: int) -> None:
    """A name nobody knows, an address of somebody else, a port that does not exist."""
    server = OpsServer(bind=bind, port=port, live=dict, ready=dict, status=dict, registry=CollectorRegistry())
    with pytest.raises(BindError, match=f"cannot listen on {bind}:{port}"):
        server.start()


def test_a_stopped_server_listens_no_more_and_can_be_stopped_again() -> None:
    """The port is free at once."""
    server = Daemon().serve()
    port = server.start()
    server.stop()
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=10)
    assert not [thread for thread in threading.enumerate() if thread.name == "ops-http"]


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine speaks no IPv6")
def test_ipv6_loopback_is_loopback_too() -> None:
    """The host is checked there as well."""
    made = Daemon()
    server = made.serve(bind="::1")
    try:
        port = server.start()
    except BindError:
        pytest.skip("this machine has no ::1")
    with closing(http.client.HTTPConnection("::1", port, timeout=10)) as connection:
        connection.request("GET", "/livez")
        assert connection.getresponse().read()
    with closing(http.client.HTTPConnection("::1", port, timeout=10)) as connection:
        connection.request("GET", "/livez", headers={"Host": "evil.example"})
        assert connection.getresponse().status == 403
    server.stop()


def test_the_endpoints_need_neither_the_sdk_nor_dramatiq() -> None:
    """Importing them must stay cheap."""
    code = "import sys, worker.http; print([m for m in ('anthropic', 'dramatiq', 'redis') if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.strip() == "[]"

import argparse
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cli_rig import Shell, redis_server

from worker.cli.healthcheck import _address
from worker.cli.main import main
from worker.config import load_config
from worker.simulator import Simulator


def _checks(shell: Shell, *words: str) -> tuple[int, dict[str, dict[str, Any]]]:
    ended = shell.run("check", "--json", *words)
    checks = {check["what"]: check for check in ended.json["checks"]}
    assert ended.json["ok"] is (ended.status == 0)
    return ended.status, checks


@pytest.mark.usefixtures("redis", "simulator")
def test_everything_is_tried(shell: Shell, tmp_path: Path) -> None:
    """Redis, key and sinks answer; what is not as it should be is a warning with a hint, and no failure."""
    status, checks = _checks(shell)
    assert status == 0
    assert checks["append-only file"]["verdict"] == "warn"
    assert checks["append-only file"]["hint"]
    assert {checks[what]["verdict"] for what in ("configuration", "Redis", "eviction", "API", "sink results")} == {"ok"}
    assert (tmp_path / "results").is_dir()
    told = shell.run("check").out
    assert "warn" in told
    assert "set appendonly yes" in told


@pytest.mark.usefixtures("simulator")
def test_a_durable_server_gets_no_warning(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an append-only file there is a barrier."""
    with redis_server(tmp_path, "--appendonly", "yes", "--maxmemory", "100mb") as url:
        monkeypatch.setenv("REDIS_URL", url)
        _, checks = _checks(shell, "--set", "intake.max_bytes=60MB")
        assert {check["verdict"] for check in checks.values()} == {"ok"}
        assert checks["barrier"]["detail"].partition(":")[0] in ("appendfsync", "waitaof")
        _, checks = _checks(shell)
        assert checks["memory"]["verdict"] == "warn"


@pytest.mark.usefixtures("simulator")
def test_a_server_that_evicts_fails(shell: Shell, redis: Any) -> None:
    """It would throw prompts away."""
    redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        status, checks = _checks(shell)
    finally:
        redis.config_set("maxmemory-policy", "noeviction")
    assert (status, checks["eviction"]["verdict"]) == (1, "fail")


@pytest.mark.usefixtures("redis")
def test_the_gravest_failure_is_the_status(shell: Shell, simulator: Simulator, tmp_path: Path) -> None:
    """78 before 77 before 69 before 1, and everything else is looked at all the same."""
    (tmp_path / "results").write_text("in the way")
    status, checks = _checks(shell)
    assert (status, checks["sink results"]["verdict"]) == (1, "fail")
    gone = ("--set", "redis.url=redis://:hunter2@127.0.0.1:1/0")
    status, checks = _checks(shell, *gone)
    assert (status, checks["Redis"]["verdict"], checks["API"]["verdict"]) == (69, "fail", "ok")
    assert "hunter2" not in str(checks)
    simulator.control.inject([{"kind": "revoke_key", "key": "sk-ant-canary"}])
    status, checks = _checks(shell, *gone)
    assert (status, checks["API"]["verdict"]) == (77, "fail")
    assert "canary" not in str(checks)
    status, checks = _checks(shell, *gone, "--set", "sinks.results.type=kafka")
    assert (status, checks["sink results"]["verdict"]) == (78, "fail")


@pytest.mark.usefixtures("redis")
def test_an_api_that_is_away_is_69(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a matter of the key."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-canary")
    status, checks = _checks(shell, "--set", "anthropic.base_url=http://127.0.0.1:1")
    assert (status, checks["API"]["verdict"]) == (69, "fail")


def test_offline_reaches_for_nothing(shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Configuration, key and the settings of sinks; no folder is made, and a missing key is told."""
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    status, checks = _checks(shell, "--offline")
    assert (status, set(checks)) == (78, {"configuration", "API key", "sink results"})
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-canary")
    assert _checks(shell, "--offline")[0] == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("simulator")
def test_without_a_url_it_says_what_would_be_started(shell: Shell) -> None:
    """The embedded server is looked for, not started."""
    _, checks = _checks(shell)
    assert "would be started in .batchmill" in checks["Redis"]["detail"]


class Livez(BaseHTTPRequestHandler):
    """Answers as a daemon does that is well, or is not."""

    status = 200

    def do_GET(self) -> None:
        """Answer /livez."""
        body = b'{"ok":true,"problems":{}}\n' if self.status == 200 else b'{"ok":false,"problems":{"ticker":"stuck"}}\n'
        self.send_response(self.status if self.path == "/livez" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def livez() -> Iterator[Callable[[int], int]]:
    """Serve /livez with a status; returns the port."""
    server = HTTPServer(("127.0.0.1", 0), Livez)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()

    def serve(status: int) -> int:
        Livez.status = status
        return int(server.server_address[1])

    yield serve
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_living_daemon_is_healthy(shell: Shell, livez: Callable[[int], int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by flag or by environment, 0."""
    port = str(livez(200))
    assert shell.run("healthcheck", "--port", port).out == "alive\n"
    assert shell.json("healthcheck", "--port", port)["ok"] is True
    assert shell.run("healthcheck", "--set", f"http.port={port}").status == 0
    monkeypatch.setenv("PORT", port)
    assert shell.run("healthcheck").status == 0


def test_a_stuck_or_absent_daemon_is_not(shell: Shell, livez: Callable[[int], int]) -> None:
    """1 both times: what the problem is, or that nobody answers."""
    ended = shell.run("healthcheck", "--port", str(livez(503)))
    assert (ended.status, "stuck" in ended.out) == (1, True)
    ended = shell.run("healthcheck", "--port", "1")
    assert (ended.status, "nobody answers" in ended.err) == (1, True)
    assert shell.run("healthcheck", "--set", "http.port=0").status == 1
    assert shell.run("healthcheck", "--set", "http.port=x").status == 1


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, ()),
        ({"PORT": "1000"}, ()),
        ({"BATCHMILL_HTTP__PORT": "1001"}, ()),
        ({"PORT": "1000", "BATCHMILL_HTTP__PORT": "1001"}, ()),
        ({"BATCHMILL_CONFIG": "other.toml", "BATCHMILL_HTTP__BIND": "::1"}, ()),
        ({"BATCHMILL_CONFIG": "other.toml"}, ("--config", "config/batchmill.toml")),
        ({"PORT": "1000"}, ("--set", "http.port=1002", "--set", "http.bind=127.0.0.2")),
    ],
)
def test_the_healthcheck_reads_settings_as_the_daemon_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], words: tuple[str, ...]
) -> None:
    """It does so without the code for it, which costs more than the check; so the two are compared here."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "batchmill.toml").write_text("[http]\nport = 1003\n")
    (tmp_path / "other.toml").write_text('[http]\nport = 1004\nbind = "127.0.0.3"\n')
    found: list[argparse.Namespace] = []

    def run(args: argparse.Namespace) -> int:
        found.append(args)
        return 0

    monkeypatch.setattr("worker.cli.healthcheck.run", run)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert main(["healthcheck", *words]) == 0
    [args] = found
    overrides = dict(word.split("=") for word in args.set)
    config = load_config(path=args.config, environ=environ, cwd=tmp_path, overrides=overrides)
    assert _address(args) == (config.http.bind, config.http.port)

"""A Redis that is not what batchmill needs: `check` and a starting daemon say what is wrong and what to do."""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from cli_rig import Shell, redis_server
from redis import Redis

USUAL = {
    "maxmemory-policy": "noeviction",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "no-appendfsync-on-rewrite": "no",
    "save": "",
}


@contextmanager
def stub(
    version: str = "7.0.15", errors: Mapping[bytes, bytes] | None = None, default: bytes = b"+OK\r\n"
) -> Iterator[str]:
    """Answer as a server of that version would: INFO, what is in `errors`, and the same to all else. Yields its URL."""
    told = f"# Server\r\nredis_version:{version}\r\nrun_id:abc\r\nrole:master\r\n".encode()
    answers = {
        b"INFO": b"$%d\r\n%s\r\n" % (len(told), told),
        b"HELLO": b"%1\r\n$5\r\nproto\r\n:3\r\n",
        b"CONFIG": b"%0\r\n",
        **(errors or {}),
    }
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(client: socket.socket) -> None:
        with client, client.makefile("rb") as words, suppress(OSError):
            while head := words.readline():
                command = [words.read(int(words.readline()[1:]) + 2)[:-2] for _ in range(int(head[1:]))]
                client.sendall(answers.get(command[0].upper(), default))

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


REFUSED = {
    "old": ({"version": "6.2.0"}, "6.2.0 is too old", "upgrade the server"),
    "older": ({"errors": {b"HELLO": b"-ERR unknown command 'HELLO'\r\n"}}, "refuses a command", "7.0 or later"),
    "no password": (
        {
            "errors": {b"INFO": b"-NOAUTH Authentication required.\r\n"},
            "default": b"-NOAUTH Authentication required.\r\n",
        },
        "let us in",
        "password",
    ),
    "wrong password": ({"errors": {b"HELLO": b"-WRONGPASS invalid username\r\n"}}, "let us in", "password"),
    "no right": (
        {
            "errors": {b"INFO": b"-NOPERM this user has no permissions\r\n"},
            "default": b"-NOPERM this user has no permissions\r\n",
        },
        "refuses a command",
        "user of",
    ),
    "protected": (
        {
            "errors": {b"INFO": b"-DENIED Redis is running in protected mode\r\n"},
            "default": b"-DENIED Redis is running in protected mode\r\n",
        },
        "DENIED",
        "protected mode",
    ),
}


@pytest.mark.usefixtures("simulator")
@pytest.mark.parametrize("server", REFUSED)
def test_a_server_that_cannot_be_worked_on_is_refused_in_words(shell: Shell, server: str) -> None:
    """By `check`, by the daemon and by every other command: 69, what is wrong, what to do."""
    how, told, hint = REFUSED[server]
    with stub(**how) as url:  # type: ignore[arg-type]
        ended = shell.run("check", "--json", "--set", f"redis.url={url}")
        (finding,) = (each for each in ended.json["checks"] if each["what"] == "Redis")
        assert (ended.status, finding["verdict"]) == (69, "fail")
        assert told in finding["detail"]
        assert hint in finding["hint"]
        for words in (("run", "--set", "http.port=0"), ("status",)):
            if words[0] == "status" and server.startswith("old"):
                continue  # it only reads, and is refused by the first script
            ended = shell.run(*words, "--set", f"redis.url={url}")
            assert ended.status == 69
            assert told in ended.err
            assert hint in ended.err


def test_a_password_that_was_refused_is_not_told(shell: Shell) -> None:
    """The address is, without it."""
    with stub(errors={b"HELLO": b"-WRONGPASS invalid username-password pair\r\n"}) as url:
        ended = shell.run("status", "--set", f"redis.url={url.replace('//', '//me:hunter2@')}")
    assert ended.status == 69
    assert "hunter2" not in ended.err


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    """A server of this module's own, whose settings are changed; its URL and a client."""
    with redis_server(tmp_path_factory.mktemp("own"), "--appendonly", "yes") as url, Redis.from_url(url) as client:
        yield url, client


@pytest.fixture
def settings(own: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The client of a server that is as it should be, found by commands."""
    url, client = own
    for name, value in USUAL.items():
        client.config_set(name, value)
    monkeypatch.setenv("REDIS_URL", url)
    return client


WEAK = {
    "maxmemory-policy allkeys-lru": ("eviction", "fail", "noeviction", 1),
    "maxmemory-policy volatile-ttl": ("eviction", "fail", "noeviction", 1),
    "appendonly no": ("append-only file", "warn", "appendonly yes", 0),
    "appendonly no, save 60 1": ("append-only file", "warn", "appendonly yes", 0),
    "appendfsync no": ("fsync", "warn", "everysec", 0),
    "no-appendfsync-on-rewrite yes": ("fsync on rewrite", "warn", "no-appendfsync-on-rewrite no", 0),
}


@pytest.mark.usefixtures("simulator")
@pytest.mark.parametrize("setting", WEAK)
def test_check_says_what_of_a_server_endangers_a_promise(shell: Shell, settings: Any, setting: str) -> None:
    """Each with what to set; only an eviction policy fails."""
    what, verdict, hint, status = WEAK[setting]
    for words in setting.split(", "):
        settings.config_set(*words.split(" ", 1))
    ended = shell.run("check", "--json")
    checks = {check["what"]: check for check in ended.json["checks"]}
    assert (ended.status, checks[what]["verdict"]) == (status, verdict)
    assert hint in checks[what]["hint"]
    assert ("snapshot" in checks[what]["detail"]) is ("save" in setting)
    assert (checks["barrier"]["verdict"] == "warn") is (what in ("append-only file", "fsync on rewrite"))
    for name, value in USUAL.items():
        settings.config_set(name, value)
    assert shell.run("check").status == 0


@pytest.mark.usefixtures("simulator")
def test_a_replica_is_refused(shell: Shell, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By `check` and by the daemon: it can be read and not be worked on."""
    monkeypatch.setenv("BATCHMILL_HTTP__PORT", "0")
    settings.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        for words in (("check",), ("run",)):
            ended = shell.run(*words)
            assert ended.status == 69
            assert "read-only replica" in ended.out + ended.err
            assert "lead to the master" in ended.out + ended.err
    finally:
        settings.execute_command("REPLICAOF", "NO", "ONE")


@pytest.mark.usefixtures("simulator")
def test_a_cluster_is_refused(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its scripts would need keys of several slots."""
    monkeypatch.setenv("BATCHMILL_HTTP__PORT", "0")
    with redis_server(tmp_path, "--cluster-enabled", "yes", "--port", "0", "--cluster-port", "29999") as url:
        monkeypatch.setenv("REDIS_URL", url)
        for words in (("check",), ("run",)):
            ended = shell.run(*words)
            assert ended.status == 69
            assert "cluster mode" in ended.out + ended.err
            assert "redis+cluster://" in ended.out + ended.err

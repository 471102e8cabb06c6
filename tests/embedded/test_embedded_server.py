import os
import re
import signal
import stat
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as LostConnection
from server_rig import MEMORY, NO_LEASH, Hurried, is_free, is_running, other_process, pid_of, start, wait_until

from worker.embedded import EmbeddedFailed, EmbeddedServer
from worker.embedded.probe import connect


def test_a_server_is_set_up_as_promised(tmp_path: Path) -> None:
    """It appends to disk every second, evicts nothing, and is reached by a socket that only its user may open."""
    with start(tmp_path / "own") as server, Redis.from_url(server.url, decode_responses=True) as client:
        wanted = {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory": str(MEMORY),
            "maxmemory-policy": "noeviction",
            "protected-mode": "yes",
            "port": "0",
        }
        assert client.config_get(*wanted) == wanted
        assert (server.owned, server.is_alive()) == (True, True)
        assert stat.S_IMODE((tmp_path / "own").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "own" / "server.sock").stat().st_mode) == 0o600


def test_what_prompts_are_in_is_readable_by_nobody_else(tmp_path: Path) -> None:
    """Even in a folder that was open to all, the append-only file and the password are not."""
    with start(tmp_path) as server, Redis.from_url(server.url) as client:
        client.set("prompt", "private")
        private = [tmp_path / "server.json", tmp_path / "server.conf", *(tmp_path / "appendonlydir").iterdir()]
        assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in private} == {0}


def test_data_survives_a_clean_stop(tmp_path: Path) -> None:
    """The append-only file is complete when `stop` returns."""
    for expected in (1, 2, 3):
        with start(tmp_path) as server, Redis.from_url(server.url) as client:
            assert client.incr("starts") == expected


def test_data_survives_the_death_of_the_server(tmp_path: Path) -> None:
    """A server that was killed is seen to be dead, and the next one has its data."""
    with start(tmp_path) as server:
        with Redis.from_url(server.url) as client:
            client.set("kept", "yes")
        os.kill(pid_of(server), signal.SIGKILL)
        wait_until(lambda: not server.is_alive(), "the death is seen")
    with start(tmp_path) as again, Redis.from_url(again.url) as client:
        assert client.get("kept") == b"yes"


def test_after_a_stop_nothing_is_left_but_the_data(tmp_path: Path) -> None:
    """No process, no lock, no socket and no announcement; stopping again does nothing."""
    server = start(tmp_path)
    pid = pid_of(server)
    server.stop()
    server.stop()
    assert not is_running(pid)
    assert not server.is_alive()
    assert is_free(tmp_path / "server.lock")
    assert is_free(tmp_path / "owner.lock")
    assert not (tmp_path / "server.sock").exists()
    assert not (tmp_path / "server.json").exists()


def test_a_second_process_adopts_the_server_and_leaves_it_alone(tmp_path: Path) -> None:
    """Two processes on one directory share one server; the adopter's stop does not end it."""
    with start(tmp_path) as server, other_process(tmp_path) as other:
        adopted = other.ready().facts
        assert adopted == {"url": server.url, "owned": False, "pid": pid_of(server)}
        other.stop()
        assert server.is_alive()
        assert pid_of(server) == adopted["pid"]


def test_an_adopter_does_not_outlive_a_stopped_server(tmp_path: Path) -> None:
    """When the owner stops the server, whoever adopted it sees it gone and can start another."""
    with other_process(tmp_path) as owner:
        owner.ready()
        adopter = start(tmp_path)
        assert (adopter.owned, adopter.is_alive()) == (False, True)
        owner.stop()
        assert not adopter.is_alive()
        adopter.stop()
    with start(tmp_path) as own:
        assert own.owned


def test_a_killed_owner_takes_the_server_down(tmp_path: Path) -> None:
    """SIGKILL of the parent leaves no orphan, and what was written is there for the next owner."""
    with other_process(tmp_path) as owner:
        facts = owner.ready().facts
        with Redis.from_url(facts["url"]) as client:
            client.set("kept", "yes")
        owner.kill()
        wait_until(lambda: not is_running(facts["pid"]), "the server is gone")
    with start(tmp_path) as server, Redis.from_url(server.url) as client:
        assert client.get("kept") == b"yes"


def test_an_adopter_takes_over_from_a_killed_owner(tmp_path: Path) -> None:
    """The adopter sees the death, starts a server of its own and has the data under the same URL."""
    with other_process(tmp_path) as owner:
        owner.ready()
        adopter = start(tmp_path)
        with Redis.from_url(adopter.url) as client:
            client.set("kept", "yes")
        owner.kill()
        wait_until(lambda: not adopter.is_alive(), "the death is seen")
        adopter.stop()
    with start(tmp_path) as own, Redis.from_url(own.url) as client:
        assert (own.owned, own.url) == (True, adopter.url)
        assert client.get("kept") == b"yes"


def test_the_stop_of_an_adopter_never_ends_a_later_server(tmp_path: Path) -> None:
    """An adopter whose server died long ago leaves the one that replaced it alone."""
    with other_process(tmp_path) as first:
        first.ready()
        late = start(tmp_path)
        first.kill()
        wait_until(lambda: not late.is_alive(), "the first server is gone")
    with start(tmp_path) as second:
        assert not late.is_alive()
        late.stop()
        assert second.is_alive()
        assert pid_of(second)


def test_the_stop_of_an_owner_never_ends_the_server_that_replaced_its_own(tmp_path: Path) -> None:
    """An owner whose server died shares its socket's name with the next one, and still leaves that alone."""
    first = start(tmp_path)
    os.kill(pid_of(first), signal.SIGKILL)
    wait_until(lambda: is_free(tmp_path / "server.lock"), "the first server is gone")
    with other_process(tmp_path) as other:
        second = other.ready().facts
        assert (second["owned"], second["url"]) == (True, first.url)
        first.stop()
        assert is_running(second["pid"])
        other.stop()


def test_an_orphan_is_adopted_and_owned(tmp_path: Path) -> None:
    """Where the server outlives its killed owner, the next start takes it over, data and all, and its stop ends it."""
    with other_process(tmp_path, NO_LEASH) as owner:
        facts = owner.ready().facts
        owner.kill()
    with start(tmp_path) as server:
        assert pid_of(server) == facts["pid"]
        assert server.owned
        assert server.is_alive()
    assert not is_running(facts["pid"])
    assert is_free(tmp_path / "server.lock")


def test_the_stop_of_an_orphan_that_hangs_gives_up_in_time(tmp_path: Path) -> None:
    """A server that is no child is waited for, but not for ever."""
    clock = Hurried()
    with other_process(tmp_path, NO_LEASH) as owner:
        pid = owner.ready().facts["pid"]
        owner.kill()
    try:
        server = start(tmp_path, clock=clock)
        os.kill(pid, signal.SIGSTOP)
        server.stop()
        assert clock.at == 20.0
    finally:
        os.kill(pid, signal.SIGKILL)


def test_the_last_adopter_ends_a_server_whose_owner_died(tmp_path: Path) -> None:
    """An adopter's stop leaves the server alone only as long as its owner lives."""
    with other_process(tmp_path, NO_LEASH) as owner:
        facts = owner.ready().facts
        adopter = start(tmp_path)
        assert not adopter.owned
        owner.kill()
    assert adopter.is_alive()
    adopter.stop()
    assert not is_running(facts["pid"])


def test_of_many_that_start_at_once_one_owns_and_the_others_adopt(tmp_path: Path) -> None:
    """A directory never has two servers, however close the starts."""
    with ExitStack() as stack:
        others = [stack.enter_context(other_process(tmp_path)) for _ in range(3)]
        facts = [other.ready().facts for other in others]
        assert sorted(fact["owned"] for fact in facts) == [False, False, True]
        assert len({fact["pid"] for fact in facts}) == 1
        for other in sorted(others, key=lambda other: bool(other.facts["owned"])):
            other.stop()


def test_a_path_too_long_for_a_socket_gets_a_port_and_a_password(tmp_path: Path) -> None:
    """It listens on loopback only, refuses strangers, and shows its password to no log and no process list."""
    directory = tmp_path / ("x" * 120)
    told: list[str] = []

    def log(event: str, **facts: Any) -> None:
        told.append(f"{event} {facts}")

    with start(directory, log=log) as server:
        address = re.fullmatch(r"redis://:([0-9a-f]{48})@127\.0\.0\.1:(\d+)/0", server.url)
        assert address
        password, port = address[1], int(address[2])
        assert 20_000 <= port < 32_768
        with connect(f"redis://127.0.0.1:{port}") as stranger, pytest.raises(AuthenticationError):
            stranger.ping()
        with other_process(directory) as other:
            assert other.ready().facts["url"] == server.url
            other.stop()
        command_line = Path(f"/proc/{pid_of(server)}/cmdline").read_text()
    assert password not in "".join(told) + command_line + repr(server)
    assert [line.split()[0] for line in told] == ["embedded.started", "embedded.stopped"]


def test_a_path_with_odd_characters_works(tmp_path: Path) -> None:
    """Blanks, quotes, percent signs and umlauts survive the way into a URL and back."""
    with start(tmp_path / "a b\"'%20 ü#?") as server:
        assert pid_of(server)


def test_ctrl_c_does_not_reach_the_server(tmp_path: Path) -> None:
    """The server is in a session of its own: a terminal's interrupt is for the daemon, which stops the server last."""
    with start(tmp_path) as server:
        assert os.getsid(pid_of(server)) != os.getsid(0)


def test_only_the_main_thread_may_start(tmp_path: Path) -> None:
    """The kernel ties the server to the thread that started it, so another thread is refused."""
    refused: list[str] = []

    def try_it() -> None:
        try:
            start(tmp_path).stop()
        except RuntimeError as error:
            refused.append(str(error))

    thread = threading.Thread(target=try_it)
    thread.start()
    thread.join()
    assert len(refused) == 1
    assert "main thread" in refused[0]


def test_a_server_that_cannot_start_says_what_it_logged(tmp_path: Path) -> None:
    """Broken data is an error with the server's own last words, and leaves no process, lock or announcement."""
    with start(tmp_path):
        pass
    for manifest in (tmp_path / "appendonlydir").glob("*.manifest"):
        manifest.write_text("nonsense\n")
    with pytest.raises(EmbeddedFailed, match=r"(?i)manifest"):
        start(tmp_path)
    assert is_free(tmp_path / "server.lock")
    assert is_free(tmp_path / "owner.lock")
    assert not (tmp_path / "server.json").exists()
    assert b"bye" in (tmp_path / "server.log.1").read_bytes()


def test_a_leash_without_a_parent_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parent that dies between fork and leash leaves no server: the child looks once more."""
    monkeypatch.setattr("os.getpid", lambda: 1)
    with pytest.raises(EmbeddedFailed, match="the parent is dead"):
        start(tmp_path)


def test_a_server_that_hangs_is_killed_at_the_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop ends, whatever the server does."""
    monkeypatch.setattr("worker.embedded.server.STOP_SECONDS", 0.1)
    server = start(tmp_path)
    pid = pid_of(server)
    os.kill(pid, signal.SIGSTOP)
    server.stop()
    assert not is_running(pid)
    assert is_free(tmp_path / "server.lock")


def test_a_lost_connection_is_the_only_sign_a_client_gets(tmp_path: Path) -> None:
    """Clients of a stopped server get a connection error, not a hang."""
    server = start(tmp_path)
    with Redis.from_url(server.url, retry=None) as client:
        client.ping()
        server.stop()
        with pytest.raises(LostConnection):
            client.ping()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives the server a leash")
def test_the_url_stays_the_same_over_restarts(tmp_path: Path) -> None:
    """A socket has one name, so clients find the next server without being told."""
    urls = set()
    for _ in range(2):
        with start(tmp_path) as server:
            urls.add(server.url)
    assert len(urls) == 1
    assert isinstance(server, EmbeddedServer)

import fcntl
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from server_rig import Hurried, start

from worker.embedded import EmbeddedFailed
from worker.embedded.locks import is_locked, try_lock, unlock
from worker.embedded.probe import Look, look


@contextmanager
def answering(directory: Path, answers: list[bytes]) -> Iterator[str]:
    """Answer PINGs on a socket of `directory` with each of `answers` in turn, then with the last for ever."""

    class Answer(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while header := self.rfile.readline():
                words = [self.rfile.readline() and self.rfile.readline().strip() for _ in range(int(header[1:]))]
                match words[0]:
                    case b"PING":
                        self.wfile.write(answers.pop(0) if len(answers) > 1 else answers[0])
                    case b"HELLO":
                        self.wfile.write(b"%1\r\n+proto\r\n:3\r\n")
                    case _:
                        self.wfile.write(b"+OK\r\n")

    path = directory / "server.sock"
    with socketserver.ThreadingUnixStreamServer(str(path), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"unix://{path}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def running(directory: Path, url: str) -> Iterator[None]:
    """Pretend that a server runs in `directory`."""
    lock = try_lock(directory / "server.lock")
    assert lock is not None
    owner = try_lock(directory / "owner.lock")
    (directory / "server.json").write_text(json.dumps({"url": url, "pid": 1, "birth": "b"}))
    try:
        yield
    finally:
        unlock(lock)
        unlock(owner)


LOADING = b"-LOADING server is loading the dataset in memory\r\n"


def test_a_server_answers_loads_or_is_silent(tmp_path: Path) -> None:
    """Three answers are told apart; a socket without a server is silence."""
    assert look(f"unix://{tmp_path}/server.sock") is Look.SILENT
    with answering(tmp_path, [LOADING, b"-NOAUTH no\r\n", b"+PONG\r\n"]) as url:
        assert [look(url) for _ in range(3)] == [Look.LOADING, Look.SILENT, Look.READY]


def test_two_who_look_at_a_lock_do_not_see_each_other(tmp_path: Path) -> None:
    """Looking takes a shared lock, so it never makes a dead server look alive to another."""
    path = tmp_path / "server.lock"
    path.touch()
    with path.open("rb") as looker:
        fcntl.flock(looker, fcntl.LOCK_SH)
        assert not is_locked(path)
        fcntl.flock(looker, fcntl.LOCK_EX)
        assert is_locked(path)


def test_a_server_that_loads_is_waited_for_as_long_as_it_takes(tmp_path: Path) -> None:
    """Two gigabytes take a while: only silence runs into the time limit."""
    with answering(tmp_path, [LOADING, LOADING, LOADING, LOADING, b"+PONG\r\n"]) as url, running(tmp_path, url):
        clock = Hurried()
        server = start(tmp_path, clock=clock)
        server.stop()
    assert clock.at == 80.0
    assert not server.owned


def test_a_server_that_is_not_ready_in_time_is_ended(tmp_path: Path) -> None:
    """A start that gives up leaves no server behind that could come up later."""
    with pytest.raises(EmbeddedFailed, match="did not start"):
        start(tmp_path, clock=Hurried())
    lock = try_lock(tmp_path / "server.lock")
    assert lock is not None
    unlock(lock)


def test_a_running_server_that_never_answers_is_an_error(tmp_path: Path) -> None:
    """A start never waits for ever, and never puts a second server beside one that hangs."""
    with running(tmp_path, f"unix://{tmp_path}/server.sock"), pytest.raises(EmbeddedFailed, match="does not answer"):
        start(tmp_path, clock=Hurried())


def test_a_running_server_without_an_announcement_is_waited_for(tmp_path: Path) -> None:
    """Between its lock and its announcement a server is nobody's to adopt, and a torn announcement is none."""
    with running(tmp_path, ""):
        (tmp_path / "server.json").write_text('{"url": ')
        with pytest.raises(EmbeddedFailed, match="does not answer"):
            start(tmp_path, clock=Hurried())

"""A server that stalls at the moment of the barrier: no last byte leaves unless its intent is on disk."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bench import Bench, redis_server, turn, wait_until
from endings import ends_right, enqueue, sizes, states
from mortal import Mortal

from worker.core.model import State
from worker.ledger.barrier import AppendFsyncBarrier, NotDurableError
from worker.ledger.store import LedgerUnavailableError, Store
from worker.simulator import Simulator
from worker.wiring import App

PIDS: dict[str, int] = {}
"""Of each server: a frozen one cannot say."""

CALLS = 10
"""How many times the barrier talks to Redis for one intent, from taking a connection to the end of its turn."""

SUBMIT = 7
"""Which of them records the intent."""


@pytest.fixture
def quick_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command waits half a second for its answer instead of five."""
    monkeypatch.setitem(Store.connect.__func__.__kwdefaults__, "timeout", 0.5)  # type: ignore[attr-defined]


@pytest.fixture
def mortal(tmp_path: Path, simulator: Simulator) -> Iterator[Mortal]:
    """A server of this test's own, with an append-only file."""
    mortal = Mortal(tmp_path, simulator, appendonly=True)
    PIDS[mortal.bench.url] = int(mortal.bench.redis.info("server")["process_id"])
    yield mortal
    thaw(mortal.bench)
    mortal.end()


def freeze(bench: Bench) -> None:
    """Stop the server in its tracks; what is sent to it waits in its socket."""
    os.kill(PIDS[bench.url], signal.SIGSTOP)


def thaw(bench: Bench) -> None:
    """Let it go on: it does, late, everything that it was sent."""
    os.kill(PIDS[bench.url], signal.SIGCONT)


def freeze_in_barrier(app: App, bench: Bench, at: int, *, late: bool) -> list[int]:
    """Freeze the server at the n-th call of the next barrier, before or after it; returns a list of the calls made."""
    store, made = app.ledger.store, list[int]()
    reach, durably = store._reach, app.barrier.durably
    inside = threading.local()

    def counted(ask: Callable[[], Any]) -> Any:
        if not getattr(inside, "barrier", False) or len(made) >= at:
            return reach(ask)
        made.append(len(made) + 1)
        if len(made) == at and not late:
            freeze(bench)
        answer = reach(ask)
        if len(made) == at and late:
            freeze(bench)
        return answer

    def watched(write: Callable[[Any], str]) -> str:
        inside.barrier = True
        try:
            return durably(write)
        finally:
            inside.barrier = False

    store._reach = counted  # type: ignore[method-assign]
    app.barrier.durably = watched  # type: ignore[method-assign]
    return made


STALLS = [(at, late) for at in range(1, CALLS + 1) for late in (False, True)][:-1]
"""All but the last: after it the barrier holds, and the answer is kept until the server is back."""


@pytest.mark.usefixtures("quick_timeouts")
@pytest.mark.parametrize(
    ("at", "late"),
    [stall if stall[0] in (6, SUBMIT) else pytest.param(*stall, marks=pytest.mark.slow) for stall in STALLS],
)
def test_a_server_that_freezes_in_the_barrier_costs_nothing_but_time(mortal: Mortal, at: int, *, late: bool) -> None:
    """At any of its calls: the last byte stays here, or had its intent synced; the batch is tried again, paid once."""
    bench = mortal.bench
    app = bench.start(submit__horizon="1h")
    assert app.barrier.kind == "appendfsync"
    made = freeze_in_barrier(app, bench, at, late=late)
    names = enqueue(bench, 3)
    with pytest.raises((LedgerUnavailableError, NotDurableError)):
        turn(app)
    assert sizes(bench) == []
    thaw(bench)
    assert len(made) == at, "the barrier made fewer calls than this test believes"
    wait_until(bench.redis.ping, description="the server answers again")
    ends_right(bench, app, names)
    assert sizes(bench) == [3]
    assert bench.redis.config_get("appendfsync")["appendfsync"] == "everysec"


@pytest.mark.usefixtures("quick_timeouts")
def test_a_process_that_dies_beside_a_frozen_server_leaves_a_doubt_and_no_batch(mortal: Mortal) -> None:
    """The intent was written late, by a server that thawed; nobody knows that its byte never left: time tells."""
    bench = mortal.bench
    app = bench.start()
    names = enqueue(bench, 2, stem="first")
    ends_right(bench, app, names)  # so that the server knows the script, and runs it when it thaws
    freeze_in_barrier(app, bench, SUBMIT, late=False)
    names += enqueue(bench, 3)
    with pytest.raises(LedgerUnavailableError):
        turn(app)
    thaw(bench)
    wait_until(lambda: states(app) == [State.SUBMITTING], description="the late intent is on record")
    ends_right(bench, bench.start(), names)
    assert sizes(bench) == [2, 3]


def test_a_stall_longer_than_a_turn_proves_nothing(mortal: Mortal) -> None:
    """The answer came, but the turn was over by then: another may have switched back before the write."""
    bench = mortal.bench
    app = bench.start()
    submit = app.ledger.batches.store.say
    stalls = iter([AppendFsyncBarrier.TURN_MS / 1000 + 0.3])

    def stalled(name: str, **named: Any) -> str:
        if name == "submit" and (seconds := next(stalls, None)):
            freeze(bench)
            threading.Timer(seconds, thaw, [bench]).start()
        return submit(name, **named)

    app.ledger.store.say = stalled  # type: ignore[method-assign]
    names = enqueue(bench, 3)
    with pytest.raises(NotDurableError):
        turn(app)
    assert sizes(bench) == []
    ends_right(bench, app, names)
    assert sizes(bench) == [3]


SLOW_DISK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
int fdatasync(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    usleep(150000);
    int answer = real(fd);
    int log = open(getenv("SYNC_LOG"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (log >= 0) { if (write(log, "x", 1) < 0) answer = -1; close(log); }
    return answer;
}
"""


def test_on_a_slow_disk_the_last_byte_waits_for_the_sync(
    tmp_path: Path, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each sync takes 150 ms: between the write of the intent and the last byte one has ended, seen from outside."""
    source, library, log = tmp_path / "slow.c", tmp_path / "slow.so", tmp_path / "syncs"
    source.write_text(SLOW_DISK)
    if subprocess.run(["/usr/bin/env", "cc", "-shared", "-fPIC", "-o", library, source], check=False).returncode:
        pytest.skip("no C compiler")
    monkeypatch.setenv("SYNC_LOG", str(log))
    monkeypatch.setenv("LD_PRELOAD", str(library))
    (tmp_path / "r").mkdir()
    with redis_server(tmp_path / "r") as url:
        monkeypatch.delenv("LD_PRELOAD")
        bench = Bench(url=url, simulator=simulator, directory=tmp_path)
        app = bench.start(submit__horizon="1h")
        synced: list[int] = []
        durably = app.barrier.durably

        def watched(write: Callable[[Any], str]) -> str:
            def timed(connection: Any) -> str:
                synced.append(log.stat().st_size)
                return write(connection)

            answer = durably(timed)
            synced.append(log.stat().st_size)
            return answer

        app.barrier.durably = watched  # type: ignore[method-assign]
        names = enqueue(bench, 3)
        ends_right(bench, app, names)
        bench.close()
    before, after = synced
    assert after > before

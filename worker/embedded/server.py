"""One running server, owned or adopted."""

import os
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from redis.exceptions import RedisError

from worker.clock import Clock
from worker.embedded.locks import is_locked, try_lock, unlock
from worker.embedded.probe import Look, connect, look
from worker.embedded.program import Log
from worker.embedded.spawn import LOOK_SECONDS, READY_SECONDS, EmbeddedFailed, spawn
from worker.embedded.state import Running, clear_state, read_state

STOP_SECONDS = 10.0
SERVER_LOCK = "server.lock"
OWNER_LOCK = "owner.lock"


class EmbeddedServer:
    """A running server. Made by `start`; as a context manager it stops at the end of the block.

    `url` is for redis-py and dramatiq and may hold a password: never log it.
    """

    def __init__(
        self,
        *,
        directory: Path,
        running: Running,
        process: subprocess.Popen[bytes] | None,
        owner: int | None,
        log: Log,
        clock: Clock,
    ) -> None:
        self.url = running.url
        self._directory = directory
        self._running = running
        self._process = process
        self._owner = owner
        self._log = log
        self._clock = clock
        self._stopped = False

    @classmethod
    def start(
        cls, directory: Path, *, max_memory_bytes: int, log: Log | None = None, clock: Clock | None = None
    ) -> Self:
        """Start a server on `directory`, or adopt the one that runs there. Call it from the main thread.

        `log` takes an event name and keywords. Returns once the server answers, however long it loads its data.
        Raises EmbeddedUnavailable, EmbeddedFailed, OSError (the directory cannot be used), RuntimeError (called
        from another thread: the server would die with that thread).
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("start the embedded server from the main thread: it dies with the thread that starts it")
        log, clock = log or _say_nothing, clock or Clock()
        directory = directory.absolute()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        give_up_at = clock.monotonic() + READY_SECONDS
        while (lock := try_lock(directory / SERVER_LOCK)) is None:
            running = read_state(directory)
            seen = look(running.url) if running else Look.SILENT
            if running and seen is Look.READY:
                owner = try_lock(directory / OWNER_LOCK)
                log("embedded.adopted", pid=running.pid)
                return cls(directory=directory, running=running, process=None, owner=owner, log=log, clock=clock)
            if seen is Look.LOADING:
                give_up_at = clock.monotonic() + READY_SECONDS
            if clock.monotonic() > give_up_at:
                raise EmbeddedFailed(f"the server that runs in {directory} does not answer")
            clock.sleep(LOOK_SECONDS)
        owner = try_lock(directory / OWNER_LOCK)
        try:
            running, process = spawn(directory, lock, max_memory_bytes=max_memory_bytes, log=log, clock=clock)
        except BaseException:
            unlock(owner)
            raise
        finally:
            # From here on only the server holds it.
            os.close(lock)
        return cls(directory=directory, running=running, process=process, owner=owner, log=log, clock=clock)

    @property
    def owned(self) -> bool:
        """Whether `stop` ends the server: it was started here, or its owner was dead when it was adopted."""
        return self._process is not None or self._owner is not None

    def is_alive(self) -> bool:
        """Whether this very server still runs. If not, its data waits for `stop` and a new `start`."""
        if self._stopped:
            return False
        if self._process is not None:
            return self._process.poll() is None
        return read_state(self._directory) == self._running and is_locked(self._directory / SERVER_LOCK)

    def stop(self) -> None:
        """End the server cleanly, its append-only file written out, unless another living process owns it."""
        if self._stopped:
            return
        alive = self.is_alive()
        self._stopped = True
        if not self.owned:
            self._owner = try_lock(self._directory / OWNER_LOCK)
        try:
            if alive and self.owned:
                self._end()
        finally:
            if self._process is not None:
                _reap(self._process)
            unlock(self._owner)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _end(self) -> None:
        # First nobody new may adopt it.
        clear_state(self._directory)
        # NOSAVE is about snapshots; the append-only file is written and synced all the same, even under a busy script.
        with suppress(RedisError), connect(self.url) as client:
            client.shutdown(nosave=True)
        if self._process is None:
            self._await_death()
        self._log("embedded.stopped", pid=self._running.pid)

    def _await_death(self) -> None:
        """Wait for a server that is no child of ours; once a new one is announced, ours is gone."""
        give_up_at = self._clock.monotonic() + STOP_SECONDS
        while is_locked(self._directory / SERVER_LOCK) and read_state(self._directory) is None:
            if self._clock.monotonic() > give_up_at:
                return
            self._clock.sleep(LOOK_SECONDS)


def _reap(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _say_nothing(_event: str, **_facts: object) -> None:
    """Log nothing."""

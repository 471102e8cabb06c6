"""What every sink must do. A sink's tests subclass `SinkContract` and give it a `target` fixture."""

import errno
import os
import random
import resource
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from worker.config import SinkSettings
from worker.core.model import Batch, State, Trigger
from worker.sinks import ErrorType, Sink, SinkError

ROWS = [b'{"id":"one"}', b'{"id":"two"}', '{"id":"größer"}'.encode()]

_DIE_BEFORE_COMMIT = """
import sys
sys.path[:0] = sys.argv[4:]
from contract import batch, many_rows
from worker.config import SinkSettings
from worker.sinks import build
delivery = build("s", SinkSettings(*sys.argv[1:4])).open(batch())
delivery.write(many_rows(20_000))
print("written", file=sys.stderr, flush=True)
sys.stdin.read()
"""


class Target(Protocol):
    """One sink under test: how to build it in a folder, and what a reader sees afterwards."""

    settings: SinkSettings
    tells_repeats_apart: bool

    def sink(self) -> Sink:
        """Build a fresh sink that writes to the same place as the one before."""

    def visible(self) -> list[bytes]:
        """Every line that a reader sees, without its end."""

    def inode(self) -> int:
        """Say what must have been synced for the visible rows to be durable."""


def batch(uid: str = "k7m2q9x4t8w1z3b5", *, lane: str = "default", sealed_at: float = 1_795_341_600.0) -> Batch:
    """Return an ended batch, sealed on 2026-11-22."""
    return Batch(uid, lane, State.ENDED, "1-0", "9-0", 9, 9, 900, Trigger.COUNT, sealed_at)


def deliver(sink: Sink, rows: Iterable[bytes], uid: str = "b1") -> None:
    """Deliver one batch."""
    with sink.open(batch(uid)) as delivery:
        delivery.write(rows)
        delivery.commit()


def many_rows(count: int) -> Iterator[bytes]:
    """Yield `count` different rows of about 600 bytes that no compression makes small."""
    chance = random.Random(7)
    for n in range(count):
        yield b'{"id":"%d","text":"%s"}' % (n, chance.randbytes(290).hex().encode())


@contextmanager
def largest_file(limit: int) -> Iterator[None]:
    """Let every file of this process end at `limit` bytes, as a full disk would."""
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))


class SinkContract:
    """The promises of `worker.sinks.protocol`, each as one test."""

    def test_rows_arrive_as_lines_in_the_order_given(self, target: Target) -> None:
        """What is written, by one call or many, is what a reader sees."""
        with target.sink().open(batch()) as delivery:
            delivery.write(ROWS[:1])
            delivery.write(iter(ROWS[1:]))
            delivery.commit()
        assert target.visible() == ROWS

    def test_any_order_of_rows_will_do(self, target: Target) -> None:
        """The API returns results in no particular order, and a sink does not mind."""
        rows = list(many_rows(500))
        random.Random(3).shuffle(rows)
        deliver(target.sink(), rows)
        assert sorted(target.visible()) == sorted(many_rows(500))

    def test_a_line_end_inside_a_row_does_not_cut_it_in_two(self, target: Target) -> None:
        """A producer's pretty-printed metadata stays one row."""
        deliver(target.sink(), [b'{"metadata":{\n"a": 1\n}}'])
        assert target.visible() == [b'{"metadata":{ "a": 1 }}']

    def test_a_delivery_counts_rows_and_bytes(self, target: Target) -> None:
        """`rows` and `nbytes` count what was written, line ends included, before compression."""
        with target.sink().open(batch()) as delivery:
            assert (delivery.rows, delivery.nbytes) == (0, 0)
            delivery.write(ROWS)
            assert (delivery.rows, delivery.nbytes) == (3, sum(len(row) + 1 for row in ROWS))

    def test_nothing_is_visible_before_the_commit(self, target: Target) -> None:
        """However much was written, a reader sees none of it until it is complete."""
        with target.sink().open(batch()) as delivery:
            delivery.write(many_rows(20_000))
            assert target.visible() == []
            delivery.commit()
        assert len(target.visible()) == 20_000

    def test_rows_are_durable_when_the_commit_returns(self, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is visible was synced before `commit` came back."""
        synced: list[int] = []
        fsync = os.fsync

        def watched(fd: int) -> None:
            synced.append(os.fstat(fd).st_ino)
            fsync(fd)

        monkeypatch.setattr(os, "fsync", watched)
        with target.sink().open(batch()) as delivery:
            delivery.write(ROWS)
            delivery.commit()
        assert target.inode() in synced

    def test_a_failed_sync_is_an_error_and_shows_nothing(self, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
        """After EIO the same descriptor is not synced again: the kernel may have dropped the pages."""
        calls: list[int] = []

        def broken(fd: int) -> None:
            calls.append(fd)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with target.sink().open(batch()) as delivery:
            delivery.write(ROWS)
            monkeypatch.setattr(os, "fsync", broken)
            with pytest.raises(SinkError) as failure:
                delivery.commit()
            with pytest.raises(RuntimeError):
                delivery.commit()
        assert (failure.value.error_type, failure.value.retryable) == (ErrorType.IO, True)
        assert len(calls) == 1
        assert target.visible() == []

    def test_a_second_commit_of_a_delivery_does_nothing(self, target: Target) -> None:
        """A commit may be repeated without repeating rows."""
        with target.sink().open(batch()) as delivery:
            delivery.write(ROWS)
            delivery.commit()
            delivery.commit()
            delivery.abort()
        assert target.visible() == ROWS

    def test_the_same_batch_delivered_twice(self, target: Target) -> None:
        """A repeat leaves the same rows once where the target can tell, and whole rows twice where it cannot."""
        for _ in range(2):
            deliver(target.sink(), ROWS)
        assert target.visible() == ROWS * (1 if target.tells_repeats_apart else 2)

    def test_two_batches_do_not_touch_each_other(self, target: Target) -> None:
        """Deliveries of one sink may be open side by side."""
        sink = target.sink()
        with sink.open(batch("one")) as one, sink.open(batch("two")) as two:
            one.write(ROWS[:1])
            two.write(ROWS[1:])
            two.commit()
            one.commit()
        assert sorted(target.visible()) == sorted(ROWS)

    def test_an_aborted_delivery_leaves_nothing(self, target: Target) -> None:
        """Neither an abort nor leaving the `with` early shows a row, and neither ever raises."""
        delivery = target.sink().open(batch())
        delivery.write(many_rows(2_000))
        delivery.abort()
        delivery.abort()
        with target.sink().open(batch()) as unfinished:
            unfinished.write(ROWS)
        with pytest.raises(RuntimeError):
            unfinished.write(ROWS)
        assert target.visible() == []

    def test_an_error_of_the_row_stream_passes_through(self, target: Target) -> None:
        """A download that breaks is not the sink's error, and leaves nothing."""

        def cut_short() -> Iterator[bytes]:
            yield from ROWS
            raise ConnectionResetError

        with pytest.raises(ConnectionResetError), target.sink().open(batch()) as delivery:
            delivery.write(cut_short())
        assert target.visible() == []

    def test_a_killed_process_leaves_nothing_visible(self, target: Target) -> None:
        """SIGKILL in the middle of a delivery shows no row, and the next delivery shows all."""
        settings = target.settings
        paths = [str(Path(__file__).parent), *filter(None, sys.path)]
        command = [sys.executable, "-c", _DIE_BEFORE_COMMIT, settings.type, settings.path, settings.compression, *paths]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
            assert process.stderr
            assert process.stderr.readline() == b"written\n"
            process.kill()
            printed, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert printed == b""
        assert target.visible() == []
        deliver(target.sink(), ROWS)
        assert target.visible() == ROWS

    def test_a_hundred_thousand_rows_need_no_memory(self, target: Target) -> None:
        """60 MB of rows go through in a few megabytes."""
        rows = list(many_rows(50))
        with target.sink().open(batch()) as delivery:
            tracemalloc.start()
            try:
                delivery.write(rows[n % 50] for n in range(100_000))
                delivery.commit()
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert delivery.rows == 100_000
        assert peak < 20_000_000

    def test_a_file_that_may_not_grow_is_an_error_to_retry(self, target: Target) -> None:
        """Where space ends in the middle of a batch, nothing shows, and later it goes through."""
        rows = list(many_rows(20_000))
        with largest_file(1_000_000), pytest.raises(SinkError) as failure:
            deliver(target.sink(), rows)
        assert (failure.value.error_type, failure.value.retryable) == (ErrorType.NO_SPACE, True)
        assert failure.value.hint
        assert target.visible() == []
        deliver(target.sink(), rows)
        assert target.visible() == rows

    def test_a_check_of_a_working_target_leaves_no_trace(self, target: Target) -> None:
        """A check passes where a delivery would, and shows nothing."""
        sink = target.sink()
        sink.check()
        sink.close()
        assert target.visible() == []

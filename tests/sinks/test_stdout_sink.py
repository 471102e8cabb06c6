import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from contract import ROWS, SinkContract, batch, deliver, many_rows
from mounts import read_only, tmpfs

from worker.config import SinkSettings
from worker.sinks import ErrorType, Sink, SinkError, SinkSettingsError, build
from worker.sinks.stdout import IN_MEMORY_BYTES, StdoutSink


class Redirected:
    """Standard output redirected to a file, as by `batchmill run > results.jsonl`."""

    tells_repeats_apart = False
    settings = SinkSettings("stdout")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.output = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)

    def sink(self) -> Sink:
        """Build a fresh sink."""
        return StdoutSink("out", self.settings, output=self.output)

    def visible(self) -> list[bytes]:
        """Every line of the file."""
        return self.path.read_bytes().splitlines()

    def inode(self) -> int:
        """Return the inode of the file."""
        return self.path.stat().st_ino


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Redirected]:
    """Open a file to be the standard output."""
    redirected = Redirected(tmp_path / "results.jsonl")
    yield redirected
    os.close(redirected.output)


class TestStdoutSink(SinkContract):
    """The contract, into a redirected file."""


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe, reading end first."""
    reader, writer = os.pipe()
    yield reader, writer
    for end in (reader, writer):
        try:
            os.close(end)
        except OSError:
            continue


def test_a_reader_that_went_away_is_a_final_error(pipe: tuple[int, int]) -> None:
    """Nobody comes back to a broken pipe: neither the check nor a delivery asks for a retry."""
    reader, writer = pipe
    sink = StdoutSink("out", SinkSettings("stdout"), output=writer)
    sink.check()
    os.close(reader)
    with sink.open(batch()) as delivery:
        delivery.write(ROWS)
        for attempt in (sink.check, delivery.commit):
            with pytest.raises(SinkError) as failure:
                attempt()
            assert (failure.value.error_type, failure.value.retryable) == (ErrorType.REFUSED, False)
            assert "restart" in failure.value.hint


def test_a_slow_reader_of_a_non_blocking_pipe_gets_everything(pipe: tuple[int, int]) -> None:
    """A pipe that another program made non-blocking is waited for, not an error."""
    reader, writer = pipe
    os.set_blocking(writer, False)
    rows = list(many_rows(2_000))
    received: list[bytes] = []

    def read_all() -> None:
        with open(reader, "rb", closefd=False) as lines:
            received.extend(line.rstrip(b"\n") for line in lines)

    thread = threading.Thread(target=read_all)
    thread.start()
    deliver(StdoutSink("out", SinkSettings("stdout"), output=writer), rows)
    os.close(writer)
    thread.join()
    assert received == rows


def test_batches_committed_at_once_do_not_mix(pipe: tuple[int, int]) -> None:
    """Threads that deliver at the same time print one batch after the other."""
    reader, writer = pipe
    sink = StdoutSink("out", SinkSettings("stdout"), output=writer)

    def print_batch(letter: bytes) -> None:
        deliver(sink, [letter * 1_000] * 1_000)

    threads = [threading.Thread(target=print_batch, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    with open(reader, "rb", closefd=False) as lines:
        order = [lines.readline()[:1] for _ in range(3_000)]
    for thread in threads:
        thread.join()
    assert sum(left != right for left, right in itertools.pairwise(order)) == 2


def test_a_redirected_file_on_a_full_disk_keeps_what_was_whole(tmp_path: Path) -> None:
    """Half a batch is cut off again, so that the retry does not continue in the middle of a row."""
    with tmpfs(tmp_path / "disk", "size=512k") as disk:
        target = Redirected(disk / "results.jsonl")
        try:
            deliver(target.sink(), ROWS, "b1")
            with pytest.raises(SinkError) as failure:
                deliver(target.sink(), many_rows(2_000), "b2")
            assert (failure.value.error_type, failure.value.retryable) == (ErrorType.NO_SPACE, True)
            assert target.visible() == ROWS
            deliver(target.sink(), ROWS, "b3")
            assert target.visible() == ROWS * 2
        finally:
            os.close(target.output)


def test_half_a_batch_stays_when_somebody_else_wrote_behind_it(tmp_path: Path) -> None:
    """Rows of others are never cut off to tidy up our own."""
    with tmpfs(tmp_path / "disk", "size=512k") as disk:
        target = Redirected(disk / "results.jsonl")
        try:
            (disk / "results.jsonl").write_bytes(b"not ours\n" * 3)
            with pytest.raises(SinkError):
                deliver(target.sink(), many_rows(2_000))
            assert target.path.stat().st_size > 100_000
        finally:
            os.close(target.output)


@pytest.mark.parametrize("room", [1_000_000, IN_MEMORY_BYTES + 1_000_000])
def test_a_full_spool_is_an_error_to_retry(tmp_path: Path, target: Redirected, room: int) -> None:
    """A batch too large for the spool prints nothing, whether space ends at the roll-over or after it."""
    with tmpfs(tmp_path / "spool", f"size={room}") as spool:
        sink = StdoutSink("out", target.settings, output=target.output, spool=str(spool))
        sink.check()
        with sink.open(batch()) as delivery, pytest.raises(SinkError) as failure:
            delivery.write(many_rows(20_000))
        assert (failure.value.error_type, failure.value.retryable) == (ErrorType.NO_SPACE, True)
    assert target.visible() == []


def test_a_spool_that_may_not_be_written_fails_the_check_and_large_batches(tmp_path: Path, target: Redirected) -> None:
    """The check writes a spool file for real."""
    with read_only(tmp_path / "spool") as spool:
        sink = StdoutSink("out", target.settings, output=target.output, spool=str(spool))
        with pytest.raises(SinkError) as checked:
            sink.check()
        with sink.open(batch()) as delivery, pytest.raises(SinkError) as written:
            delivery.write(many_rows(20_000))
    assert {checked.value.error_type, written.value.error_type} == {ErrorType.PERMISSION}


def test_a_compressed_standard_output_is_refused() -> None:
    """Compression is the business of the next program in the pipe."""
    with pytest.raises(SinkSettingsError, match=r"'out'.*compression"):
        build("out", SinkSettings("stdout", compression="gzip"))

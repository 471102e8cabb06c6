"""Results on standard output, for pipes and first tries.

A batch is gathered in an anonymous file (in memory up to 8 MB) and copied out at commit, so batches never mix.
Delivery is at least once: a batch whose commit was not recorded is printed again, and a reader tells repeats apart by
`custom_id`. A reader that has gone away is a final error: nobody can come back to that pipe, only a restart helps.
"""

import os
import select
import stat
import tempfile
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import IO, Self

from worker.config import SinkSettings
from worker.core.model import Batch
from worker.sinks.durable import sync_where_possible
from worker.sinks.lines import PIECE_BYTES, Lines
from worker.sinks.oserrors import sink_error
from worker.sinks.protocol import ErrorType, SinkError, SinkSettingsError

IN_MEMORY_BYTES = 8 * 1024 * 1024
STDOUT = 1


class StdoutSink:
    """Prints JSONL to the descriptor `output`; `spool` is the folder of large batches (None: the system's).

    Raises SinkSettingsError when compression is asked for.
    """

    def __init__(self, name: str, settings: SinkSettings, *, output: int = STDOUT, spool: str | None = None) -> None:
        if settings.compression != "none":
            raise SinkSettingsError(f"a stdout sink takes no compression, not {settings.compression!r}: pipe it")
        self.name = name
        self._output = output
        self._spool = spool
        self._turn = threading.Lock()

    def open(self, batch: Batch) -> "StdoutDelivery":  # noqa: ARG002 - rows say themselves which batch they are of
        """Begin a delivery."""
        spool = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES, dir=self._spool)  # noqa: SIM115 - the delivery closes it
        return StdoutDelivery(spool=spool, copy_out=self._copy_out)

    def check(self) -> None:
        """Look whether somebody can still read, and write a spool file. Raises SinkError."""
        watch = select.poll()
        watch.register(self._output, select.POLLOUT)
        if any(event & (select.POLLERR | select.POLLNVAL) for _, event in watch.poll(0)):
            raise SinkError(
                "cannot write to standard output: it is closed",
                error_type=ErrorType.REFUSED,
                retryable=False,
                hint="restart batchmill together with the program that reads its output",
            )
        try:
            with tempfile.TemporaryFile(dir=self._spool) as spool:
                spool.write(b"{}\n")
                spool.flush()
        except OSError as error:
            raise sink_error("write a spool file", error) from error

    def close(self) -> None:
        """Leave standard output open: it belongs to the process."""

    def _copy_out(self, spool: IO[bytes]) -> None:
        with self._turn:
            before = os.fstat(self._output)
            done = 0
            try:
                while piece := spool.read(PIECE_BYTES):
                    rest = memoryview(piece)
                    while rest:
                        wrote = _write_some(self._output, rest)
                        done += wrote
                        rest = rest[wrote:]
                sync_where_possible(self._output)
            except OSError:
                _take_back(self._output, before, done)
                raise


class StdoutDelivery:
    """One batch on its way to standard output."""

    def __init__(self, *, spool: IO[bytes], copy_out: Callable[[IO[bytes]], None]) -> None:
        self._spool = spool
        self._copy_out = copy_out
        self._lines = Lines()
        self._committed = False

    @property
    def rows(self) -> int:
        """How many rows were written so far."""
        return self._lines.rows

    @property
    def nbytes(self) -> int:
        """Bytes of these rows and their line ends."""
        return self._lines.nbytes

    def write(self, rows: Iterable[bytes]) -> None:
        """Gather rows. Raises SinkError, after which nothing remains."""
        self._require_open()
        for piece in self._lines.add(rows):
            self._put(piece)

    def commit(self) -> None:
        """Print everything. Raises SinkError."""
        if self._committed:
            return
        self._require_open()
        self._put(self._lines.rest())
        try:
            self._spool.seek(0)
            self._copy_out(self._spool)
        except OSError as error:
            self.abort()
            raise sink_error("write to standard output", error) from error
        self._committed = True
        self.abort()

    def abort(self) -> None:
        """Drop what was gathered."""
        with suppress(OSError):
            self._spool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def _require_open(self) -> None:
        if self._spool.closed:
            raise RuntimeError("this delivery is over: open another")

    def _put(self, piece: bytes | bytearray) -> None:
        try:
            self._spool.write(piece)
            self._spool.flush()
        except OSError as error:
            self.abort()
            raise sink_error("write a spool file", error) from error


def _write_some(output: int, piece: memoryview) -> int:
    try:
        return os.write(output, piece)
    except BlockingIOError:
        # A terminal or pipe that another program made non-blocking: wait until it takes more.
        watch = select.poll()
        watch.register(output, select.POLLOUT)
        watch.poll()
        return 0


def _take_back(output: int, before: os.stat_result, done: int) -> None:
    """Cut half a batch off a redirected file, if nobody else has written to it since."""
    with suppress(OSError):
        if stat.S_ISREG(before.st_mode) and os.fstat(output).st_size == before.st_size + done:
            os.ftruncate(output, before.st_size)
            os.lseek(output, before.st_size, os.SEEK_SET)

"""An account kept on disk: one JSON object a line, appended and written out before anybody sees the change.

Every record is handed to the system in whole before an answer leaves, so an account outlives the SIGKILL of its
process; it does not outlive a power cut, for nothing is synced. A last line that was cut short told nobody anything
and is dropped.
"""

import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec

from worker.simulator.notes import Attempt, Moved, Revoked, Started
from worker.simulator.records import Changed, Late, Made

NAME = "account.jsonl"
Record = Started | Moved | Revoked | Attempt | Made | Changed | Late

_decode = msgspec.json.Decoder(Record).decode
_encode = msgspec.json.Encoder().encode


class Journal:
    """The record of one account in `directory`, which is made if need be. Raises OSError, also while it is in use."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._fd = os.open(directory / NAME, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            raise

    def read(self) -> Iterator[Record]:
        """Yield what was noted, oldest first. Raises msgspec.MsgspecError for a file that is no such record."""
        whole = 0
        with os.fdopen(os.dup(self._fd), "rb") as file:
            file.seek(0)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                yield _decode(line)
                whole += len(line)
        os.ftruncate(self._fd, whole)

    def note(self, change: msgspec.Struct) -> None:
        """Append a record. Raises OSError."""
        line = _encode(change) + b"\n"
        with self._lock:
            written = os.write(self._fd, line)
            while written < len(line):
                written += os.write(self._fd, line[written:])

    def close(self) -> None:
        """Let the file go."""
        os.close(self._fd)

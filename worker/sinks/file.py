"""Results as JSONL files, one per batch: complete or not there at all.

Rows go to `.<batch>.<random>.tmp` beside the final name. A commit syncs that file and links it to its name, which
fails when the name is taken: the first delivery of a batch wins, and since only complete, synced files are ever
linked, what stands there is the whole batch. Files are created with mode 0640 and folders with 0750, both less
the process's umask (with `UMask=0077` only the owner reads them).
"""

import os
import re
import secrets
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from worker.config import SinkSettings
from worker.core.model import Batch
from worker.sinks.compression import SUFFIXES, Compressor, compressor
from worker.sinks.durable import make_folder, publish, sync_folder, write_all
from worker.sinks.lines import Lines
from worker.sinks.oserrors import sink_error
from worker.sinks.path_template import TEMPORARY_SUFFIX, PathTemplate
from worker.sinks.protocol import SinkError

STALE_SECONDS = 3600.0
_TEMPORARY = re.compile(r"\.[A-Za-z0-9._-]+\.[0-9a-f]{16}" + re.escape(TEMPORARY_SUFFIX))
_FILE_MODE = 0o640


def _random_token() -> str:
    return secrets.token_hex(8)


class FileSink:
    """JSONL files by a path template.

    Raises SinkSettingsError for a template or a compression that cannot work. `token` gives 16 hex digits that
    tell temporary files apart.
    """

    def __init__(self, name: str, settings: SinkSettings, *, token: Callable[[], str] = _random_token) -> None:
        compressor(settings.compression)
        self.name = name
        self._compression = settings.compression
        self._template = PathTemplate.parse(settings.path, suffix=SUFFIXES[settings.compression])
        self._token = token
        self._swept: dict[Path, float] = {}
        self._opened: dict[Path, float] = {}

    def open(self, batch: Batch) -> "FileDelivery":
        """Begin the file of `batch`, creating its folder. Raises SinkError."""
        final = self._template.render(batch)
        root = self._template.root
        try:
            make_folder(final.parent)
            temporary, fd = self._temporary(final.parent, batch.uid)
        except OSError as error:
            raise sink_error(f"create a file in {final.parent}", error) from error
        self._sweep_now_and_then(final.parent, os.fstat(fd).st_mtime)
        return FileDelivery(final=final, root=root, temporary=temporary, fd=fd, stream=compressor(self._compression))

    def check(self) -> None:
        """Write, sync, publish and remove a file in the root folder. Raises SinkError."""
        root = self._template.root
        written: list[Path] = []
        try:
            make_folder(root)
            temporary, fd = self._temporary(root, "check")
            written.append(temporary)
            try:
                write_all(fd, b"{}\n")
                os.fsync(fd)
                modified = os.fstat(fd).st_mtime
            finally:
                os.close(fd)
            written.append(root / self._temporary_name("check"))
            publish(temporary, written[1])
            sync_folder(root)
            _sweep(root, modified)
            self._sweep_what_is_left(modified)
        except OSError as error:
            raise sink_error(f"write in {root}", error) from error
        finally:
            for path in written:
                _remove(path)

    def close(self) -> None:
        """Hold nothing, so give nothing back."""

    def _temporary(self, folder: Path, label: str) -> tuple[Path, int]:
        path = folder / self._temporary_name(label)
        return path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_MODE)

    def _temporary_name(self, label: str) -> str:
        return f".{label}.{self._token()}{TEMPORARY_SUFFIX}"

    def _sweep_now_and_then(self, folder: Path, now: float) -> None:
        # `now` is the time the file system gave our new file: its clock is the one that stale files are judged by.
        self._opened[folder] = now
        if now - self._swept.get(folder, 0.0) < STALE_SECONDS:
            return
        self._swept = {path: at for path, at in self._swept.items() if now - at < STALE_SECONDS} | {folder: now}
        _sweep(folder, now)

    def _sweep_what_is_left(self, now: float) -> None:
        """Sweep folders once more when they are an hour old: of a lane that fell quiet, or of yesterday.

        A delivery that died is repeated in its own folder, and its file is too young to be swept at that time.
        """
        for folder, opened_at in list(self._opened.items()):
            if now - opened_at > STALE_SECONDS:
                self._opened.pop(folder, None)
                _sweep(folder, now)


class FileDelivery:
    """One batch on its way into one file."""

    def __init__(self, *, final: Path, root: Path, temporary: Path, fd: int, stream: Compressor) -> None:
        self._final = final
        self._root = root
        self._temporary = temporary
        self._fd: int | None = fd
        self._stream = stream
        self._lines = Lines()
        self._committed = False

    @property
    def rows(self) -> int:
        """How many rows were written so far."""
        return self._lines.rows

    @property
    def nbytes(self) -> int:
        """Bytes of these rows and their line ends, before compression."""
        return self._lines.nbytes

    def write(self, rows: Iterable[bytes]) -> None:
        """Append rows. Raises SinkError, after which nothing remains."""
        fd = self._open_fd()
        for piece in self._lines.add(rows):
            self._put(fd, self._stream.compress(piece))

    def commit(self) -> None:
        """Sync the file, give it its name, sync the folders. Raises SinkError."""
        if self._committed:
            return
        fd = self._open_fd()
        self._put(fd, self._stream.compress(self._lines.rest()))
        self._put(fd, self._stream.flush())
        try:
            os.fsync(fd)
            self._fd = None
            os.close(fd)
            publish(self._temporary, self._final)
            _remove(self._temporary)
            for folder in _folders(self._final.parent, self._root):
                sync_folder(folder)
        except OSError as error:
            raise self._failed(error) from error
        self._committed = True

    def abort(self) -> None:
        """Remove the temporary file, if it is still there."""
        if self._fd is not None:
            with suppress(OSError):
                os.close(self._fd)
            self._fd = None
        if not self._committed:
            _remove(self._temporary)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def _open_fd(self) -> int:
        if self._fd is None:
            raise RuntimeError("this delivery is over: open another")
        return self._fd

    def _put(self, fd: int, piece: bytes | bytearray) -> None:
        try:
            write_all(fd, piece)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> SinkError:
        # The kernel may forget dirty pages after a failed write or sync: this file is never trusted again.
        self.abort()
        return sink_error(f"write {self._final}", error)


def _folders(folder: Path, root: Path) -> list[Path]:
    """From `folder` up to `root`: a crash may have left any of them created but not synced."""
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(root))]


def _sweep(folder: Path, now: float) -> None:
    """Remove what deliveries that died left behind; one that is merely slow will find its file gone and start again."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name) and now - entry.stat(follow_symlinks=False).st_mtime > STALE_SECONDS:
                _remove(Path(entry.path))


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)

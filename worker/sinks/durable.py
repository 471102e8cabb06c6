"""The few file operations whose order decides whether a power cut may lose or show half a batch."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_NO_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS})
_FOLDER_MODE = 0o750


def write_all(fd: int, piece: bytes | bytearray) -> None:
    """Write all of `piece`, however many calls that takes. Raises OSError."""
    with memoryview(piece) as view:
        done = 0
        while done < len(view):
            done += os.write(fd, view[done:])


def publish(temporary: Path, final: Path) -> None:
    """Give a complete and synced file its name, unless a file has it. Raises OSError.

    The caller removes `temporary` and syncs the folder, in both cases: whoever was first may have died in between.
    """
    try:
        os.link(temporary, final)
    except FileExistsError:
        _require_file(final)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # No hard links here (FAT, some network mounts). A rename cannot refuse to replace, but what it would
        # replace is the same batch, complete.
        if os.path.lexists(final):
            _require_file(final)
        else:
            temporary.rename(final)


def _require_file(final: Path) -> None:
    # not what a link leads to: only files are ever given a name here, so a link was put there by somebody else
    if not stat.S_ISREG(final.lstat().st_mode):
        raise OSError(errno.EISDIR, "something that is not a file has that name", str(final))


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents, each durable before the next. Raises OSError."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir(_FOLDER_MODE)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable, where the file system knows how. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_where_possible(fd)
    finally:
        os.close(fd)


def sync_where_possible(fd: int) -> None:
    """Sync what `fd` names, unless it is of a kind that has nothing to sync (a pipe, a terminal). Raises OSError."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise

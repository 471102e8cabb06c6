"""Locks that the kernel gives back, however their holder ends."""

import fcntl
import os
from pathlib import Path


def try_lock(path: Path) -> int | None:
    """Take an exclusive lock for as long as the descriptor is open, or return None when another holds one."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def unlock(lock: int | None) -> None:
    """Let go of what `try_lock` returned."""
    if lock is not None:
        os.close(lock)


def is_locked(path: Path) -> bool:
    """Whether somebody holds the exclusive lock. Raises OSError."""
    # A shared lock, so that two who look at once do not see each other.
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False

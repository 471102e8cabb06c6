"""Power cuts: a Redis that was killed comes back without what its append-only file had not synced.

A SIGKILL alone loses next to nothing, since what was written is with the system. What is synced for sure is known: all
there was when the answer to an intent (or to a settling whose remote batch is deleted next) came by, for that was
written under `appendfsync always`, and what is older than two seconds, as `everysec` promises.
"""

import random
import time
from collections import deque
from pathlib import Path

EVERYSEC_LOSES = 2.0


EXEC = b"*1\r\n$4\r\nEXEC\r\n"


def _whole(file: Path, least: int, most: int) -> int:
    """Where the last transaction up to `most` ends, or `least`, where a write did.

    Redis 7.0 leaves the head of a torn transaction in its file: the next start but one brings it back from the dead.
    """
    with file.open("rb") as opened:
        opened.seek(least)
        tail = opened.read(most - least)
    at = tail.rfind(EXEC)
    return least if at < 0 else least + at + len(EXEC)


class AppendOnlyFile:
    """The growing file of a Redis. Nothing is remembered across a rewrite, which begins another."""

    def __init__(self, directory: Path) -> None:
        self._folder = directory / "appendonlydir"
        self._synced: tuple[Path, int] | None = None
        self._sizes: deque[tuple[float, Path, int]] = deque(maxlen=200)

    def note_synced(self) -> None:
        """Remember that all there is at this moment is on disk."""
        file = self._growing()
        if file is not None:
            self._synced = (file, file.stat().st_size)

    def look(self) -> None:
        """Remember how long the file is; call it a few times a second."""
        file, now = self._growing(), time.monotonic()
        if file is not None and (not self._sizes or now - self._sizes[-1][0] > 0.1):
            self._sizes.append((now, file, file.stat().st_size))

    def lose_tail(self, chance: random.Random) -> int:
        """Cut off what need not have been synced, or a part of it; returns how many bytes. Redis must be dead."""
        file, now = self._growing(), time.monotonic()
        if file is None:
            return 0
        size = file.stat().st_size
        old = [at for seen, path, at in self._sizes if path == file and now - seen > EVERYSEC_LOSES]
        if not old:
            return 0  # it is too young to know
        synced = [self._synced[1]] if self._synced is not None and self._synced[0] == file else []
        kept = max([old[-1], *synced])
        if chance.random() < 0.5:
            kept = _whole(file, kept, chance.randint(kept, size))
        with file.open("r+b") as opened:
            opened.truncate(kept)
        self._sizes.clear()
        return size - kept

    def _growing(self) -> Path | None:
        files = sorted(self._folder.glob("*.incr.aof"), key=lambda file: int(file.name.split(".")[-3]))
        return files[-1] if files else None

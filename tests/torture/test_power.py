import random
import time
from pathlib import Path

import pytest
from power import EVERYSEC_LOSES, AppendOnlyFile


class Disk:
    """An append-only file at a time that the test sets."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (directory / "appendonlydir").mkdir()
        self.file = directory / "appendonlydir" / "appendonly.aof.1.incr.aof"
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        self.watched = AppendOnlyFile(directory)

    def write(self, size: int) -> None:
        """Append and look."""
        with self.file.open("ab") as opened:
            opened.write(b"x" * size)
        self.watched.look()

    @property
    def size(self) -> int:
        """How long it is."""
        return self.file.stat().st_size


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    """An empty one."""
    return Disk(tmp_path, monkeypatch)


@pytest.mark.parametrize("seed", range(6))
def test_what_is_older_than_everysec_allows_survives(disk: Disk, seed: int) -> None:
    """And the rest need not."""
    disk.write(100)
    disk.now += EVERYSEC_LOSES + 0.5
    disk.write(50)
    lost = disk.watched.lose_tail(random.Random(seed))
    assert disk.size + lost == 150
    assert 100 <= disk.size <= 150


@pytest.mark.parametrize("seed", range(6))
def test_what_was_synced_survives(disk: Disk, seed: int) -> None:
    """The barrier's promise is kept, however young the write."""
    disk.write(100)
    disk.now += EVERYSEC_LOSES + 0.5
    disk.write(50)
    disk.watched.note_synced()
    disk.write(7)
    disk.watched.lose_tail(random.Random(seed))
    assert 150 <= disk.size <= 157


def test_nothing_is_lost_where_nothing_is_known(disk: Disk) -> None:
    """A file too young, or none at all."""
    assert disk.watched.lose_tail(random.Random(1)) == 0
    disk.write(100)
    assert disk.watched.lose_tail(random.Random(1)) == 0
    assert disk.size == 100


def test_the_growing_file_is_the_last_one(disk: Disk) -> None:
    """A rewrite begins another, whose marks are its own."""
    disk.write(100)
    disk.watched.note_synced()
    later = disk.file.with_name("appendonly.aof.10.incr.aof")
    disk.file.with_name("appendonly.aof.9.incr.aof").write_bytes(b"y")
    later.write_bytes(b"x" * 20)
    disk.watched.look()
    disk.now += 5
    later.write_bytes(b"x" * 30)
    disk.watched.lose_tail(random.Random(2))
    assert disk.size == 100
    assert 20 <= later.stat().st_size <= 30

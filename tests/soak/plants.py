"""Leaks to plant in a replica, so that the judgement is seen to fail: each strikes when a batch has been settled."""

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

from worker import drainer
from worker.core.model import Batch

KEPT: list[object] = []
"""What is never given back."""


def plant(names: Iterable[str]) -> None:
    """Plant leaks by name in the drainer of this process."""
    leaks = [LEAKS[name] for name in names]
    tell: Any = drainer.Drainer._tell

    def wrapped(self: Any, batch: Batch, *rest: Any) -> None:
        tell(self, batch, *rest)
        for leak in leaks:
            leak(self, batch)

    cast("Any", drainer.Drainer)._tell = wrapped


def _keys(role: Any, batch: Batch) -> None:
    role._ledger.store.read("set", f"batchmill:{{{batch.lane}}}:note:{batch.uid}", "1")


def _ends(role: Any, batch: Batch) -> None:
    """Take the end of life from a key that has one."""
    role._ledger.store.read("persist", role._ledger.store.keys.batch(batch.lane, batch.uid))


def _memory(_role: Any, _batch: Batch) -> None:
    KEPT.append(bytearray(os.urandom(1)) * 1_000_000)


def _threads(_role: Any, _batch: Batch) -> None:
    threading.Thread(target=threading.Event().wait, daemon=True).start()


def _fds(_role: Any, _batch: Batch) -> None:
    KEPT.append(Path(os.devnull).open("rb"))  # noqa: SIM115 - never closed, on purpose


def _files(_role: Any, batch: Batch) -> None:
    folder = Path("results", batch.lane)
    (folder / f".{batch.uid}.0123456789abcdef.tmp").write_text("left behind")


def _series(role: Any, batch: Batch) -> None:
    for number in range(20):
        role._telemetry._metrics.role_last_tick.labels(f"{batch.uid}-{number}").set(1)


LEAKS: dict[str, Callable[[Any, Batch], None]] = {
    "keys": _keys,
    "ends": _ends,
    "memory": _memory,
    "threads": _threads,
    "fds": _fds,
    "files": _files,
    "series": _series,
}

"""A sink in this world: atomic per batch like the file sink, and as fallible."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import msgspec
from server import disturb
from storm import SINK, Weather
from world import Process, World

from worker.core.model import Batch
from worker.sinks import ErrorType, SinkError


@dataclass
class Shelf:
    """What has been delivered to one sink, whoever did it: batch → rows."""

    name: str
    world: World
    weather: Weather
    batches: dict[str, list[bytes]] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)

    def publish(self, uid: str, rows: list[bytes]) -> None:
        """Make rows visible: who comes first wins. A prompt may stand in one batch only."""
        if uid in self.batches:
            return
        self.batches[uid] = rows
        for row in rows:
            name = str(msgspec.json.decode(row)["id"])
            if name in self.owners:
                self.world.violated(f"{self.name} has two rows of {name}")
            self.owners[name] = uid
        self.world.tell(f"{self.name} has {uid}: {len(rows)} rows")

    def rows(self) -> list[bytes]:
        """Return all rows."""
        return [row for rows in self.batches.values() for row in rows]


@dataclass
class WorldSink:
    """One process's way to a shelf."""

    shelf: Shelf
    process: Process

    @property
    def name(self) -> str:
        """The name in the configuration."""
        return self.shelf.name

    def open(self, batch: Batch) -> "WorldDelivery":
        """Begin a delivery."""
        return WorldDelivery(self, batch.uid)

    def check(self) -> None:
        """Find nothing wrong."""

    def close(self) -> None:
        """Hold nothing."""

    def disturb(self) -> None:
        """Let the world do something."""
        disturb(self.shelf.world, self.shelf.weather, self.process)


class WorldDelivery:
    """The rows of one batch on their way."""

    def __init__(self, sink: WorldSink, uid: str) -> None:
        self._sink = sink
        self._uid = uid
        self._held: list[bytes] = []
        self.nbytes = 0

    @property
    def rows(self) -> int:
        """How many rows there are so far."""
        return len(self._held)

    def write(self, rows: Iterable[bytes]) -> None:
        """Take rows."""
        self._sink.disturb()
        self._held += rows

    def commit(self) -> None:
        """Make them visible; the word that it was done may be lost."""
        self._sink.disturb()
        fault = self._sink.shelf.weather.strikes("sink", SINK)
        if fault != "before":
            self._sink.shelf.publish(self._uid, self._held)
        self._sink.disturb()
        if fault is not None:
            self._sink.shelf.world.tell(f"{self._sink.name} fails ({fault})")
            raise SinkError("a bad day", error_type=ErrorType.UNREACHABLE, retryable=True)

    def abort(self) -> None:
        """Forget them."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

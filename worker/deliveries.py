"""The deliveries of one batch to all of its sinks: a sink that fails falls out, the others go on."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from worker.clock import Clock
from worker.core.model import Batch
from worker.sinks import Delivery, Sink, SinkError


class NoSinkLeftError(Exception):
    """Every sink that still waits for this batch has failed: reading on would be for nobody."""


class Deliveries:
    """Writes the same rows to several sinks. `errors` holds what failed, `seconds` how long each commit took."""

    def __init__(self, *, sinks: Mapping[str, Sink], batch: Batch, clock: Clock) -> None:
        self._clock = clock
        self._open: dict[str, Delivery] = {}
        self.errors: dict[str, SinkError] = {}
        self.seconds: dict[str, float] = {}
        for name, sink in sinks.items():
            try:
                self._open[name] = sink.open(batch)
            except SinkError as error:
                self.errors[name] = error

    def __enter__(self) -> Self:
        """Start; nothing is visible until `commit`."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Abort what was not committed."""
        for delivery in self._open.values():
            delivery.abort()

    def write(self, rows: Sequence[bytes]) -> None:
        """Write rows to every sink that still stands. Raises NoSinkLeftError when none does."""
        for name, delivery in list(self._open.items()):
            try:
                delivery.write(rows)
            except SinkError as error:
                self._drop(name, error)
        if not self._open:
            raise NoSinkLeftError

    def commit(self) -> dict[str, Delivery]:
        """Commit everywhere; returns the deliveries that are durable now."""
        committed: dict[str, Delivery] = {}
        for name, delivery in list(self._open.items()):
            began = self._clock.monotonic()
            try:
                delivery.commit()
            except SinkError as error:
                self._drop(name, error)
            else:
                committed[name] = delivery
                self.seconds[name] = self._clock.monotonic() - began
        return committed

    def _drop(self, name: str, error: SinkError) -> None:
        self.errors[name] = error
        self._open.pop(name).abort()

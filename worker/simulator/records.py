"""What is noted of batches: enough to bring each back as it was."""

import math
from typing import Self

import msgspec

from worker.simulator.batch import NEVER, Batch
from worker.simulator.faults import Fault
from worker.simulator.rows import Order, Rows


class Late(msgspec.Struct, frozen=True, kw_only=True, tag="late"):
    """A batch that will be committed at `due`, whoever runs by then."""

    id: str
    due: float
    workspace: str
    rows: Rows
    body_bytes: int
    shapes: list[Fault]


class Made(msgspec.Struct, frozen=True, kw_only=True, tag="made"):
    """A committed batch; `takes` is None for one that never ends, `late` names the promise it fulfils."""

    id: str
    workspace: str
    created_at: float
    born_at: float
    takes: float | None
    lifetime: float
    retention: float
    stride: int
    start: int
    rows: Rows
    body_bytes: int
    foreign: bool
    listed_at: float
    cancel_takes: float
    forced_at: float | None
    late: str | None

    @classmethod
    def of(cls, batch: Batch, rows: Rows, *, late: str | None) -> Self:
        """Describe a new batch."""
        return cls(
            id=batch.id,
            workspace=batch.workspace,
            created_at=batch.created_at,
            born_at=batch.born_at,
            takes=_finite(batch.takes),
            lifetime=batch.lifetime,
            retention=batch.retention,
            stride=batch.order.stride,
            start=batch.order.start,
            rows=rows,
            body_bytes=batch.body_bytes,
            foreign=batch.foreign,
            listed_at=batch.listed_at,
            cancel_takes=batch.cancel_takes,
            forced_at=batch.forced_at,
            late=late,
        )

    def batch(self, *, number: int, place: tuple[int, int]) -> Batch:
        """Bring it back as the `number`-th of its account, with its rows at `place` of the spool."""
        return Batch(
            id=self.id,
            workspace=self.workspace,
            number=number,
            created_at=self.created_at,
            born_at=self.born_at,
            takes=NEVER if self.takes is None else self.takes,
            lifetime=self.lifetime,
            retention=self.retention,
            order=Order(len(self.rows.ids), self.stride, self.start),
            place=place,
            models=self.rows.models,
            verdicts=self.rows.verdicts,
            body_bytes=self.body_bytes,
            foreign=self.foreign,
            listed_at=self.listed_at,
            cancel_takes=self.cancel_takes,
            forced_at=self.forced_at,
        )


class Changed(msgspec.Struct, frozen=True, kw_only=True, tag="changed"):
    """Everything of a batch that may change after its creation, as it is now."""

    id: str
    takes: float | None
    cancel_at: float | None
    forced_at: float | None
    deleted_at: float | None

    @classmethod
    def of(cls, batch: Batch) -> Self:
        """Describe a batch that was changed."""
        return cls(
            id=batch.id,
            takes=_finite(batch.takes),
            cancel_at=batch.cancel_at,
            forced_at=batch.forced_at,
            deleted_at=batch.deleted_at,
        )

    def apply(self, batch: Batch) -> None:
        """Change a batch so."""
        batch.takes = NEVER if self.takes is None else self.takes
        batch.cancel_at, batch.forced_at, batch.deleted_at = self.cancel_at, self.forced_at, self.deleted_at


def _finite(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) else None

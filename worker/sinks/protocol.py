"""What every sink promises, and the one error it may raise.

A delivery carries all rows of one batch. Nothing of it is visible before `commit`, everything is durable once
`commit` has returned, and a target that can tell repeats apart shows a batch that is delivered twice only once.
"""

from collections.abc import Iterable
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self

from worker.core.model import Batch


class ErrorType(StrEnum):
    """Why a sink failed; a metric label, so the set is closed."""

    NO_SPACE = "no_space"
    PERMISSION = "permission"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    INVALID = "invalid"
    IO = "io"


class SinkError(Exception):
    """A delivery or a check failed, and nothing of an unfinished delivery is visible.

    `retryable` says whether the same delivery may succeed later in this process without a new configuration,
    `hint` what an operator can do. Neither ever holds a row.
    """

    def __init__(self, message: str, *, error_type: ErrorType, retryable: bool, hint: str = "") -> None:
        super().__init__(message)
        self.error_type = error_type
        self.retryable = retryable
        self.hint = hint


class SinkSettingsError(ValueError):
    """The settings of a sink cannot work; the text says which and what would."""


class Delivery(Protocol):
    """The rows of one batch on their way. Used as a context manager it aborts unless it was committed."""

    @property
    def rows(self) -> int:
        """How many rows were written so far."""

    @property
    def nbytes(self) -> int:
        """Bytes of these rows and their line ends, before compression."""

    def write(self, rows: Iterable[bytes]) -> None:
        """Take rows, each one JSON object. May be called often; what `rows` itself raises passes through.

        Raises SinkError, after which the delivery is aborted.
        """

    def commit(self) -> None:
        """Make every row visible and durable, or raise SinkError. A second call does nothing."""

    def abort(self) -> None:
        """Forget what was written. Never raises; does nothing after a commit."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Sink(Protocol):
    """Where results go. One sink may have several deliveries open, each in its own thread."""

    @property
    def name(self) -> str:
        """The name it has in the configuration."""

    def open(self, batch: Batch) -> Delivery:
        """Begin a delivery. Raises SinkError."""

    def check(self) -> None:
        """Do what a delivery does, leaving no trace. Raises SinkError."""

    def close(self) -> None:
        """Give back what the sink itself holds; open deliveries are not its business."""

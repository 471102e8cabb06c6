"""What becomes of prompts that are enqueued, and the errors that end it early."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from worker.ledger.store import LedgerFullError, LedgerUnavailableError


class Fate(StrEnum):
    """What became of one prompt of many."""

    ENQUEUED = "enqueued"
    DUPLICATE = "duplicate"
    REFUSED = "refused"  # it could never be used; nothing was sent
    FULL = "full"  # there was no room; it is not in
    IN_DOUBT = "in_doubt"  # the reply was lost: it may be in or not


@dataclass(frozen=True, slots=True)
class Outcome:
    """The fate of the prompt at `position` (from 0) of what was given; `reason` says why it was refused."""

    position: int
    fate: Fate
    entry_id: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """How many prompts had which fate."""

    enqueued: int = 0
    duplicate: int = 0
    refused: int = 0
    full: int = 0
    in_doubt: int = 0

    @classmethod
    def of(cls, counts: Mapping[Fate, int]) -> Self:
        """Make one of counts per fate."""
        return cls(**{fate.value: counts.get(fate, 0) for fate in Fate})


class QueueFull(LedgerFullError):  # noqa: N818 - said as it is
    """There is no room: too many bytes wait, or Redis is at maxmemory. What did not go in is the producer's to keep.

    `summary` counts what `enqueue_many` had done before.
    """

    def __init__(self, text: str, summary: Summary | None = None) -> None:
        super().__init__(text)
        self.summary = summary or Summary()


class Unreachable(LedgerUnavailableError):  # noqa: N818 - said as it is
    """Redis did not answer. With `in_doubt` the prompt may be in its lane all the same.

    A prompt with an id may always be enqueued again, nothing is doubled. Without an id only the producer can know
    whether to lose it or to have it twice. `summary` counts what `enqueue_many` had done before.
    """

    def __init__(self, text: str, *, in_doubt: bool, summary: Summary | None = None) -> None:
        super().__init__(text)
        self.in_doubt = in_doubt
        self.summary = summary or Summary()

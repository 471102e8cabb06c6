"""What the small parts of an account note when they change, and whom they tell: nobody, unless the account is kept."""

from collections.abc import Callable

import msgspec


class Started(msgspec.Struct, frozen=True, tag="started"):
    """A process took the account up."""

    at: float


class Moved(msgspec.Struct, frozen=True, tag="moved"):
    """Time was moved; `offset` is how far it is ahead of the clock by now."""

    offset: float


class Revoked(msgspec.Struct, frozen=True, tag="revoked"):
    """Which keys are refused, as SHA-256 digests."""

    everything: bool
    digests: list[str]


class Attempt(msgspec.Struct, tag="post"):
    """One POST to create. `outcome` says how it ended; `batch` is set when it was committed."""

    at: float
    content_length: int | None
    received: int = 0
    complete: bool = False
    outcome: str = "arriving"
    count: int | None = None
    first_custom_id: str | None = None
    batch: str | None = None


Note = Callable[[msgspec.Struct], object]
"""Hears of a change under the lock of whoever changed, before anybody can see it."""


def forget(_change: msgspec.Struct) -> None:
    """Keep nothing: the account lives as long as its process."""

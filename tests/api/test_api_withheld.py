from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import cast

import pytest
from api_fakes import FakeClock

from worker.batches_api import InDoubt, NotSent
from worker.batches_api.conclusions import give_up
from worker.batches_api.withheld import Aborted, WithheldBody


@dataclass
class Steps:
    """Records when the record was made."""

    taken: list[str] = field(default_factory=list)

    def record(self) -> None:
        """Make the record."""
        self.taken.append("recorded")


class Twenty:
    """A body of twenty bytes in two pieces."""

    nbytes = 20

    def __iter__(self) -> Iterator[bytes]:
        """Start over."""
        yield from (b"x" * 10, b"y" * 10)


def withheld(steps: Steps, clock: FakeClock) -> WithheldBody:
    """Hold back the last of the twenty bytes."""
    return WithheldBody(Twenty(), before_last_byte=steps.record, clock=clock)


def sending(body: WithheldBody) -> Generator[bytes, None, None]:
    """Begin to send, as a transport does."""
    return cast("Generator[bytes, None, None]", iter(body))


def test_the_record_is_made_when_the_transport_asks_for_the_last_byte(clock: FakeClock) -> None:
    """Asking for it means that all before it is in the socket."""
    steps = Steps()
    body = withheld(steps, clock)
    pieces = sending(body)
    assert [next(pieces), next(pieces)] == [b"x" * 10, b"y" * 9]
    assert (steps.taken, body.last_byte_sent) == ([], False)
    assert next(pieces) == b"y"
    assert (steps.taken, body.last_byte_sent) == (["recorded"], True)


def test_a_last_byte_that_could_not_be_written_is_in_doubt(clock: FakeClock) -> None:
    """It was handed over; whether it left is unknown."""
    body = withheld(Steps(), clock)
    pieces = sending(body)
    for _ in range(3):
        next(pieces)
    pieces.close()
    with pytest.raises(InDoubt):
        give_up(body, "WriteTimeout")


def test_a_transport_that_stops_early_has_sent_nothing(clock: FakeClock) -> None:
    """Nobody recorded anything, and the body did not fail."""
    steps = Steps()
    body = withheld(steps, clock)
    pieces = sending(body)
    next(pieces)
    pieces.close()
    assert (steps.taken, body.failure) == ([], None)
    with pytest.raises(NotSent, match="WriteError"):
        give_up(body, "WriteError")


def test_no_library_gets_the_body_twice(clock: FakeClock) -> None:
    """A hidden retry ends before its first byte, and what the first attempt left in doubt stays in doubt."""
    steps = Steps()
    body = withheld(steps, clock)
    assert b"".join(body) == b"x" * 10 + b"y" * 10
    with pytest.raises(Aborted):
        next(iter(body))
    assert steps.taken == ["recorded"]
    with pytest.raises(InDoubt):
        give_up(body, "Aborted")


def test_a_second_attempt_after_an_unfinished_first_sends_nothing(clock: FakeClock) -> None:
    """The first attempt broke off before the last byte: nothing was created, and nothing will be."""
    steps = Steps()
    body = withheld(steps, clock)
    next(iter(body))
    with pytest.raises(Aborted):
        next(iter(body))
    assert steps.taken == []
    with pytest.raises(NotSent, match="twice"):
        give_up(body, "Aborted")

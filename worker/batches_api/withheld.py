"""A request body whose last byte is held back until the intent to send it is on record.

An HTTP/1.1 body shorter than its Content-Length creates nothing. So whatever dies before the last byte has provably
created nothing, and only what dies after it is in doubt.
"""

from collections.abc import Callable, Generator, Iterator
from typing import Protocol

from worker.batches_api.budget import Clock
from worker.batches_api.errors import Complaint, NotSent

# A process frozen between the record and the byte must not send it: by then others may have drawn their conclusions.
_STALE_AFTER = 20.0


class Body(Protocol):
    """A whole request body. Iterating starts over at byte 0 and gives pieces of, best, 256 KB or more."""

    @property
    def nbytes(self) -> int:
        """The exact size of the body, envelope included."""
        ...

    def __iter__(self) -> Iterator[bytes]:
        """Give the body piece by piece."""
        ...


class Aborted(Exception):  # noqa: N818 - says what happened to the sending; never leaves this package
    """Tears down a half-sent request; the reason is in `WithheldBody.failure`."""


class WithheldBody:
    """One sending of a body, for one attempt only.

    `last_byte_sent` is true from the moment the last byte is handed to the transport. `failure` is what stopped
    the sending from our side: the very exception of `before_last_byte` or of the body, or NotSent.
    """

    def __init__(self, body: Body, *, before_last_byte: Callable[[], None], clock: Clock) -> None:
        self._body = body
        self._before_last_byte = before_last_byte
        self._clock = clock
        self._begun = False
        self.last_byte_sent = False
        self.failure: BaseException | None = None

    def __iter__(self) -> Iterator[bytes]:
        """Give all but the last byte, call `before_last_byte`, give the last byte."""
        # A second sending could create a second batch: no retry of any library gets a body out of us.
        if self._begun:
            self.failure = self.failure or _not_sent("body asked for twice")
            raise Aborted
        self._begun = True
        try:
            last_byte = yield from self._all_but_the_last_byte()
            self._commit()
        except GeneratorExit:
            raise
        except BaseException as err:  # noqa: BLE001 - kept whole and raised again by create(), past the SDK's wrapping
            self.failure = err
            raise Aborted from None
        self.last_byte_sent = True
        yield last_byte

    def _all_but_the_last_byte(self) -> Generator[bytes, None, bytes]:
        # The transport asks for the next piece only when the one before is in the socket.
        left = self._body.nbytes - 1
        last_byte = b""
        for piece in self._body:
            if len(piece) <= left:
                left -= len(piece)
                if piece:
                    yield piece
            elif piece:
                if last_byte or len(piece) != left + 1:
                    raise _not_sent("body longer than announced")
                if left:
                    yield piece[:-1]
                left = 0
                last_byte = piece[-1:]
        if not last_byte:
            raise _not_sent("body shorter than announced")
        return last_byte

    def _commit(self) -> None:
        started = self._clock.monotonic()
        self._before_last_byte()
        if self._clock.monotonic() - started > _STALE_AFTER:
            raise _not_sent("stale before the last byte")


def _not_sent(cause: str) -> NotSent:
    return NotSent(Complaint(cause))

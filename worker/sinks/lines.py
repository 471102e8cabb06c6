"""Rows into large pieces of lines, so that a hundred thousand rows are a few hundred writes."""

from collections.abc import Iterable, Iterator
from itertools import islice

PIECE_BYTES = 256 * 1024
PAGE_ROWS = 500


class Lines:
    """The rows of one delivery, gathered into pieces of at least `PIECE_BYTES`."""

    __slots__ = ("_piece", "nbytes", "rows")

    def __init__(self) -> None:
        self._piece = bytearray()
        self.rows = 0
        self.nbytes = 0

    def add(self, rows: Iterable[bytes]) -> Iterator[bytes | bytearray]:
        """Yield a piece when one is full; what is left waits for the next call or for `rest`."""
        waiting = iter(rows)
        while page := list(islice(waiting, PAGE_ROWS)):
            lines = b"\n".join([*page, b""])
            if lines.count(b"\n") > len(page):
                # Inside JSON a raw line end can only be white space (a producer's pretty metadata): a space
                # means the same and does not cut the row in two.
                lines = b"".join(row.replace(b"\n", b" ") + b"\n" for row in page)
            self.rows += len(page)
            self.nbytes += len(lines)
            if not self._piece and len(lines) >= PIECE_BYTES:
                yield lines
                continue
            self._piece += lines
            if len(self._piece) >= PIECE_BYTES:
                yield self.rest()

    def rest(self) -> bytearray:
        """Hand over what has been gathered, possibly nothing."""
        piece, self._piece = self._piece, bytearray()
        return piece

"""Rows into large pieces of lines, so that a hundred thousand rows are a few hundred writes."""

from collections.abc import Iterable, Iterator

PIECE_BYTES = 256 * 1024


class Lines:
    """The rows of one delivery, gathered into pieces of `PIECE_BYTES` or a little more."""

    __slots__ = ("_piece", "nbytes", "rows")

    def __init__(self) -> None:
        self._piece = bytearray()
        self.rows = 0
        self.nbytes = 0

    def add(self, rows: Iterable[bytes]) -> Iterator[bytearray]:
        """Yield a piece each time one is full; what is left waits for the next call or for `rest`."""
        for row in rows:
            # Inside JSON a raw line end can only be white space (a producer's pretty metadata): a space
            # means the same and does not cut the row in two.
            line = row.replace(b"\n", b" ") if b"\n" in row else row
            self._piece += line
            self._piece += b"\n"
            self.rows += 1
            self.nbytes += len(line) + 1
            if len(self._piece) >= PIECE_BYTES:
                yield self.rest()

    def rest(self) -> bytearray:
        """Hand over what has been gathered, possibly nothing."""
        piece, self._piece = self._piece, bytearray()
        return piece

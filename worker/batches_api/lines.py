"""Result lines out of a stream of bytes, in linear time and bounded memory."""

from collections.abc import Iterable, Iterator

import msgspec

from worker.batches_api.errors import Complaint, Truncated

LONGEST_LINE = 64 * 1024 * 1024
MOST_BLANKS = 100_000
"""Blank lines, which end by themselves; an endless stream of them would be read for ever."""


def split_lines(chunks: Iterable[bytes], *, longest: int = LONGEST_LINE) -> Iterator[bytes]:
    """Give every line that is not blank, without its newline, wherever the chunks are cut.

    Raises Truncated at a line longer than `longest` bytes, where blank lines have no end, and where a last line
    without newline is no whole JSON.
    """
    held = bytearray()  # pieces in a list would cost a line that comes byte by byte a hundred times its size
    blanks = 0
    for chunk in chunks:
        first, *more = chunk.split(b"\n")
        held += first
        if len(held) > longest:
            raise Truncated(Complaint("result line too long"))
        if not more:
            continue
        last = more.pop()
        for line in (bytes(held), *more):
            if line and not line.isspace():
                yield line
                continue
            blanks += 1
            if blanks > MOST_BLANKS:
                raise Truncated(Complaint("blank lines without end"))
        held = bytearray(last)
    tail = bytes(held)
    if tail and not tail.isspace():
        _require_whole(tail)
        yield tail


def _require_whole(line: bytes) -> None:
    try:
        msgspec.json.decode(line, type=msgspec.Raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise Truncated(Complaint("results end within a line")) from None

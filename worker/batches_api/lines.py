"""Result lines out of a stream of bytes, in linear time and bounded memory."""

from collections.abc import Iterable, Iterator

import msgspec

from worker.batches_api.errors import Complaint, Truncated

LONGEST_LINE = 64 * 1024 * 1024


def split_lines(chunks: Iterable[bytes], *, longest: int = LONGEST_LINE) -> Iterator[bytes]:
    """Give every line that is not blank, without its newline, wherever the chunks are cut.

    Raises Truncated at a line longer than `longest` bytes, and where a last line without newline is no whole JSON.
    """
    held: list[bytes] = []
    size = 0
    for chunk in chunks:
        first, *more = chunk.split(b"\n")
        held.append(first)
        size += len(first)
        if size > longest:
            raise Truncated(Complaint("result line too long"))
        if not more:
            continue
        line = b"".join(held)
        if line and not line.isspace():
            yield line
        held = [more.pop()]
        size = len(held[0])
        for line in more:
            if line and not line.isspace():
                yield line
    tail = b"".join(held)
    if tail and not tail.isspace():
        _require_whole(tail)
        yield tail


def _require_whole(line: bytes) -> None:
    try:
        msgspec.json.decode(line)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise Truncated(Complaint("results end within a line")) from None

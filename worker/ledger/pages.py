"""Walking a stream in pages of so many bytes: one prompt may weigh a hundred bytes or a hundred megabytes."""

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from worker.core.entry_ids import entry_id_of
from worker.ledger.store import Store

FIRST = 8
GROWTH = 4
PAGE_BYTES = 2 * 1024 * 1024

BEHIND_ALL = f"({entry_id_of((1 << 128) - 1)}"
"""Behind the last entry id there can be, where Redis takes the question for an error."""

Entry: TypeAlias = tuple[bytes, Mapping[bytes, bytes]]


def pages(store: Store, stream: str, *, start: str, end: str, most: int) -> Iterator[list[Entry]]:
    """Yield a stream's entries from `start` to `end`, as XRANGE spells them, up to `most` a page.

    How many come next is judged by what the last ones weighed, and never more than four times as many.
    """
    count = FIRST
    while start != BEHIND_ALL:
        page: list[Entry] = store.read("xrange", stream, start, end, count)
        if page:
            yield page
        if len(page) < count:
            return
        start = "(" + page[-1][0].decode()
        weight = sum(sum(map(len, fields.values())) for _, fields in page if fields)
        count = max(1, min(most, GROWTH * count, PAGE_BYTES * len(page) // max(1, weight)))

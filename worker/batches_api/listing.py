"""Lists of remote batches, and the walks that make one complete list out of pages.

A walk is the ground on which a batch is declared absent and sent again, so it ends complete or with an error.
"""

from dataclasses import dataclass
from typing import Protocol

from worker.batches_api.errors import Complaint, Unavailable
from worker.core.model import RemoteBatch

PAGE_SIZE = 1000
MOST_PAGES = 300
"""An API that always has one more page of batches nobody knew is not followed for ever."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Remote batches, newest first, of one workspace.

    `server_date` is the API's clock when the listing began, in Unix seconds; `complete` means that nothing of what
    was asked for is missing.
    """

    batches: tuple[RemoteBatch, ...]
    workspace_id: str | None
    server_date: float | None
    complete: bool


class Pages(Protocol):
    """Fetches one page: next to a cursor, or the newest; `complete` says that there is none behind it."""

    def __call__(self, *, before_id: str | None = None, after_id: str | None = None) -> Listing:
        """Raise an ApiError where the page cannot be had."""
        ...


def walk_up(pages: Pages, head: str) -> Listing:
    """List everything newer than `head`, page by page towards the newest."""
    found = [pages(before_id=head)]
    while not found[-1].complete:
        found.append(pages(before_id=_edge(found, 0)))
    return _joined(found, newest_first=found[::-1])


def walk_down(pages: Pages, not_before: float) -> Listing:
    """List everything created at `not_before` (Unix seconds) or later, page by page from the newest."""
    found = [pages()]
    while not found[-1].complete and found[-1].batches and found[-1].batches[-1].created_at >= not_before:
        found.append(pages(after_id=_edge(found, -1)))
    if not found[-1].complete and not found[-1].batches:
        raise Unavailable(Complaint("list does not advance"))
    joined = _joined(found, newest_first=found)
    recent = tuple(batch for batch in joined.batches if batch.created_at >= not_before)
    return Listing(recent, joined.workspace_id, joined.server_date, complete=True)


def _edge(found: list[Listing], end: int) -> str:
    """Return the cursor of the next page. Raises Unavailable if it would lead to where the walk has been before."""
    *earlier, last = found
    if len(found) >= MOST_PAGES:
        raise Unavailable(Complaint("list without end"))
    if not last.batches or any(last.batches[end].id == batch.id for page in earlier for batch in page.batches):
        raise Unavailable(Complaint("list does not advance"))
    return last.batches[end].id


def _joined(found: list[Listing], *, newest_first: list[Listing]) -> Listing:
    if len({page.workspace_id for page in found}) > 1:
        raise Unavailable(Complaint("workspace changed between pages"))
    batches = tuple(batch for page in newest_first for batch in page.batches)
    return Listing(batches, found[0].workspace_id, found[0].server_date, complete=True)

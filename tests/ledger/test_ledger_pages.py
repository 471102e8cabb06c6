from itertools import chain

import pytest
from ledger_rig import LANE, Rig

from worker.ledger.pages import FIRST, GROWTH, PAGE_BYTES, pages


def read(rig: Rig, *, most: int, start: str = "-", end: str = "+") -> list[list[str]]:
    """Return the entry ids of each page of the lane."""
    found = pages(rig.store, rig.keys.prompts(LANE), start=start, end=end, most=most)
    return [[entry_id.decode() for entry_id, _ in page] for page in found]


@pytest.mark.parametrize("count", [0, 1, FIRST - 1, FIRST, FIRST + 1, 5 * FIRST, 5 * FIRST + 1, 300])
def test_every_entry_is_on_one_page(rig: Rig, count: int) -> None:
    """In order, also where a page is exactly full; and no page is empty."""
    entries = rig.fill(count)
    found = read(rig, most=100)
    assert [entry_id for page in found for entry_id in page] == entries
    assert all(found)


def test_pages_of_light_entries_grow_up_to_the_most(rig: Rig) -> None:
    """A few at first, since nobody knows what they weigh."""
    rig.fill(300)
    grown = [FIRST, FIRST * GROWTH, 100, 100]
    assert [len(page) for page in read(rig, most=100)][:4] == grown


def test_a_page_of_heavy_entries_is_short(rig: Rig) -> None:
    """Two megabytes or one entry, whichever is more, as far as the last page foretells the next."""
    half = b"x" * (PAGE_BYTES // 2)
    entries = [rig.add(params=half) for _ in range(FIRST + 6)]
    found = read(rig, most=500)
    assert [len(page) for page in found] == [FIRST, 2, 2, 2]
    assert [entry_id for page in found for entry_id in page] == entries
    rig.store.write("delete", rig.keys.prompts(LANE))
    for _ in range(FIRST + 3):
        rig.add(params=half * 3)
    assert [len(page) for page in read(rig, most=500)] == [FIRST, 1, 1, 1]


def test_a_range_is_read_to_its_end_and_no_further(rig: Rig) -> None:
    """Both ends as XRANGE spells them."""
    entries = rig.fill(60)
    spans = [(f"({entries[0]}", entries[50]), (entries[3], f"({entries[4]}")]
    found = [chain.from_iterable(read(rig, most=500, start=start, end=end)) for start, end in spans]
    assert [list(span) for span in found] == [entries[1:51], entries[3:4]]


def test_the_last_entry_id_there_can_be_is_the_end(rig: Rig) -> None:
    """Redis takes the question for what is behind it for an error, and its lane would stand still."""
    last = f"{2**64 - 1}-{2**64 - 1}"
    entries = [*rig.fill(FIRST - 1), rig.store.write("xadd", rig.keys.prompts(LANE), {"params": "x"}, id=last).decode()]
    assert read(rig, most=100) == [entries]
    assert read(rig, most=100, start=f"({last}") == []

"""A page of result lines is decoded in one go; what comes of it is what the lines say one by one."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.rulings import (
    MOST_AT_ONCE,
    Line,
    UnreadableLineError,
    read_line,
    read_lines,
    read_result,
    read_results,
)

SEAM = b',"batchmill: between two lines",'


def good(name: bytes, text: bytes = b"hello") -> bytes:
    """Make a result line."""
    return b'{"custom_id":"%b","result":{"type":"succeeded","message":{"stop_reason":"%b"}}}' % (name, text)


def told(lines: list[Line]) -> list[tuple[str, bytes]]:
    """Return what lines say."""
    return [(line.custom_id, bytes(line.result)) for line in lines]


def one_by_one(page: list[bytes]) -> list[tuple[str, bytes]] | None:
    """Read each line by itself; None if one is unreadable."""
    try:
        return told([read_line(raw) for raw in page])
    except UnreadableLineError:
        return None


def together(page: list[bytes]) -> list[tuple[str, bytes]] | None:
    """Read a page; None if a line is unreadable."""
    try:
        return told(read_lines(page))
    except UnreadableLineError:
        return None


@pytest.mark.parametrize(
    "page",
    [
        [],
        [good(b"a")],
        [good(b"a"), good(b"b"), good(b"c")],
        [good(b"a"), b' {"more":[1,2], "result":null , "custom_id":"b"}\r'],
        [good(b"a"), good(b"b", SEAM.replace(b'"', b'\\"'))],
        [good(b"a"), b'{"custom_id":"b","result":["x"%b"y"]}' % SEAM],
        [good(b"a" * MOST_AT_ONCE), good(b"b")],
    ],
)
def test_a_page_of_lines_says_what_its_lines_say(page: list[bytes]) -> None:
    """However they are spelled."""
    assert together(page) == one_by_one(page) is not None


@pytest.mark.parametrize(
    "page",
    [
        [good(b"a") + b"," + good(b"b"), b'{"custom_id":"c","result":{"type":"errored"', b'"x":1}}'],
        [good(b"a") + b"," + good(b"b"), b'{"custom_id":"c","result":"ab', b'cd"}'],
        [good(b"a") + SEAM + good(b"b"), b'{"custom_id":"c","result":[{}', b"{}]}"],
        [good(b"a") + SEAM + good(b"b"), b'{"custom_id":"c","result":"ab', b'cd"}'],
        [good(b"a") + b"," + good(b"b"), b'"batchmill: between two lines"'],
        [good(b"a"), b'"batchmill: between two lines"', good(b"b")],
        [good(b"a"), good(b"\xff")],
        [good(b"a"), b'{"custom_id":"b"}'],
        [good(b"a"), b""],
        [good(b"a"), b"[]"],
    ],
)
def test_lines_that_are_none_do_not_make_up_for_each_other(page: list[bytes]) -> None:
    """Two that are torn and one that holds two are three, and garbled all the same."""
    assert together(page) is one_by_one(page) is None


@given(
    st.lists(
        st.sampled_from([good(b"a"), good(b"b"), SEAM, b",", b'"', b"{", b"}", b"[", b"]", b"1", b" "]), max_size=12
    ),
    st.lists(st.integers(0, 12), max_size=4),
)
def test_wherever_a_stream_is_torn_a_page_says_no_more_than_its_lines(pieces: list[bytes], cuts: list[int]) -> None:
    """Whatever stands together on a line, and whatever does not."""
    edges = [0, *sorted(cuts), len(pieces)]
    page = [b"".join(pieces[start:end]) for start, end in pairwise(edges)]
    assert together(page) == one_by_one(page)


@pytest.mark.parametrize(
    "odd", [b'{"type":"succeeded","message":{"usage":{"input_tokens":-1}}}', b"7", b'{"type":1}', b"[]", b"null"]
)
def test_an_odd_result_among_others_changes_none_of_them(odd: bytes) -> None:
    """They are read one by one then."""
    plain = b'{"type":"succeeded"}'
    raws = [msgspec.Raw(raw) for raw in (plain, odd, plain)]
    assert read_results(raws) == [read_result(plain), read_result(odd), read_result(plain)]


def test_results_of_a_large_page_are_read_one_by_one() -> None:
    """Together they would be copied."""
    large = b'{"type":"succeeded","message":{"stop_reason":"%b"}}' % (b"x" * MOST_AT_ONCE)
    assert [result.type for result in read_results([msgspec.Raw(large), msgspec.Raw(b'{"type":"errored"}')])] == [
        "succeeded",
        "errored",
    ]

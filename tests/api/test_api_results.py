import gzip
import itertools
import json
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise

import pytest
from api_fakes import Heard
from hypothesis import given
from hypothesis import strategies as st
from scripted_server import Exchange, Play, Server, answers, failure

from worker.batches_api import BatchesApi, NotFound, Truncated, Unavailable
from worker.batches_api.lines import split_lines

LINES = [json.dumps({"custom_id": f"id{n}", "text": "é" * n}).encode() for n in range(5)]
BODY = b"".join(line + b"\n" for line in LINES)


def chunks(raw: bytes, cuts: list[int]) -> Iterator[bytes]:
    """Cut bytes at the given places."""
    edges = [0, *sorted(cuts), len(raw)]
    for start, end in pairwise(edges):
        yield raw[start:end]


@given(st.lists(st.integers(0, len(BODY)), max_size=12))
def test_lines_are_the_same_wherever_the_chunks_are_cut(cuts: list[int]) -> None:
    """Within a line, within a character, at a newline, several times at the same place."""
    assert list(split_lines(chunks(BODY, cuts))) == LINES


@given(
    st.lists(st.binary(min_size=1, max_size=40).filter(lambda line: b"\n" not in line and not line.isspace())),
    st.lists(st.integers(0, 500)),
)
def test_any_lines_come_back_as_they_were(lines: list[bytes], cuts: list[int]) -> None:
    """The splitter looks at newlines and at nothing else."""
    raw = b"".join(line + b"\n" for line in lines)
    assert list(split_lines(chunks(raw, [min(cut, len(raw)) for cut in cuts]))) == lines


@pytest.mark.parametrize("last", [b"1e400", b'{"a":1e400}', b"9" * 5000])
def test_a_last_line_is_whole_when_its_brackets_are(last: bytes) -> None:
    """Without a newline behind it as with one: what numbers it may hold is not for the splitter to judge."""
    assert list(split_lines([b"1\n" + last])) == list(split_lines([b"1\n" + last + b"\n"]))


@pytest.mark.parametrize("cut", range(len(BODY)))
def test_a_stream_cut_within_a_line_is_truncated(cut: int) -> None:
    """A cut at a line's end cannot be seen here and leaves whole lines only; any other cut is told."""
    whole = BODY[:cut].count(b"\n")
    got: list[bytes] = []
    if BODY[:cut].endswith((b"\n", b"}")) or not cut:
        got.extend(split_lines([BODY[:cut]]))
        assert got == LINES[: len(got)]
    else:
        with pytest.raises(Truncated, match="within a line"):
            got.extend(split_lines([BODY[:cut]]))
        assert got == LINES[:whole] or got == []


def test_blank_lines_are_no_lines() -> None:
    """Neither an empty line nor one of spaces, wherever it is cut."""
    assert list(split_lines([b"\n \n1", b"\n\n", b"\r\n2\n", b"  "])) == [b"1", b"2"]


def test_a_line_without_end_is_given_up() -> None:
    """An endless line must not fill the memory."""
    with pytest.raises(Truncated, match="too long"):
        list(split_lines(iter(lambda: b"x" * 1000, b""), longest=10_000))
    assert list(split_lines([b"x" * 10, b"\n"], longest=10)) == [b"x" * 10]


def test_blank_lines_without_end_are_given_up() -> None:
    """Each of them ends, all of them never do."""
    with pytest.raises(Truncated, match="blank lines"):
        list(split_lines(iter(lambda: b"\n" * 1000, b"")))
    assert list(split_lines([b"\n" * 1000, b"1\n"])) == [b"1"]


def test_a_line_that_comes_byte_by_byte_costs_what_it_weighs() -> None:
    """As pieces in a list it would cost a hundred times that."""
    tracemalloc.start()
    try:
        lines = list(split_lines(itertools.chain(itertools.repeat(b"xy", 500_000), [b"\n"])))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [len(line) for line in lines] == [1_000_000]
    assert peak < 4_000_000


def test_a_long_line_is_joined_once() -> None:
    """A line of 40,000 chunks takes no quadratic time; it would take minutes if each chunk copied what is held."""
    assert [len(line) for line in split_lines([*[b"x" * 1000] * 40_000, b"\n"])] == [40_000_000]


def test_results_are_streamed_from_the_path_uncompressed(api: BatchesApi, server: Server, heard: Heard) -> None:
    """The path is ours and the coding none; `results_url` is never asked for."""
    server.plays(answers(200, BODY))
    with api.results("msgbatch_1") as lines:
        assert list(lines) == LINES
    exchange = server.exchanges[0]
    assert exchange.target == "/v1/messages/batches/msgbatch_1/results"
    assert exchange.headers["accept-encoding"] == "identity"
    assert heard.calls == [("results", "ok")]


def chunked(exchange: Exchange) -> None:
    """Answer in chunks of three bytes."""
    exchange.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    for start in range(0, len(BODY), 3):
        piece = BODY[start : start + 3]
        exchange.send(b"%x\r\n%s\r\n" % (len(piece), piece))
    exchange.send(b"0\r\n\r\n")


def until_close(exchange: Exchange) -> None:
    """Answer with a body that ends with the connection."""
    exchange.send(b"HTTP/1.1 200 OK\r\n\r\n" + BODY)
    exchange.close()


@pytest.mark.parametrize(
    "play", [chunked, until_close, answers(200, gzip.compress(BODY), content_encoding="gzip"), answers(200, BODY[:-1])]
)
def test_any_framing_gives_the_same_lines(api: BatchesApi, server: Server, play: Play) -> None:
    """Chunks, a closing connection, gzip although nobody asked, a last line without newline."""
    server.plays(play)
    with api.results("msgbatch_1") as lines:
        assert list(lines) == LINES


def short(exchange: Exchange) -> None:
    """Announce more than comes."""
    exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n" + BODY)
    exchange.close()


def unfinished_chunks(exchange: Exchange) -> None:
    """Leave out the last chunk."""
    exchange.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(BODY), BODY))
    exchange.close()


def within_a_line(exchange: Exchange) -> None:
    """End the connection in the middle of a line, without any length."""
    exchange.send(b"HTTP/1.1 200 OK\r\n\r\n" + BODY[:-9])
    exchange.close()


def no_gzip(exchange: Exchange) -> None:
    """Claim a coding that is not there."""
    exchange.answer(200, BODY, content_encoding="gzip")


@pytest.mark.parametrize("play", [short, unfinished_chunks, within_a_line, no_gzip])
def test_a_stream_that_ends_before_its_end_is_truncated(
    api: BatchesApi, server: Server, heard: Heard, play: Play
) -> None:
    """No exception of the HTTP library, no silent end."""
    server.plays(play)
    with pytest.raises(Truncated), api.results("msgbatch_1") as lines:
        list(lines)
    assert heard.calls == [("results", "truncated")]


def test_results_that_are_not_there_are_not_found(api: BatchesApi, server: Server, heard: Heard) -> None:
    """Not ended yet, or unknown: the message tells which, for those who must know."""
    server.plays(answers(404, failure("not_found_error", "msgbatch_1 has no available results.")))
    with pytest.raises(NotFound) as caught, api.results("msgbatch_1"):
        pass
    assert caught.value.message == "msgbatch_1 has no available results."
    assert heard.calls == [("results", "not_found")]


@pytest.mark.parametrize("play", [answers(503, b""), answers(302, b"", location="/elsewhere"), Exchange.reset])
def test_results_that_cannot_be_had_now_are_unavailable(api: BatchesApi, server: Server, play: Play) -> None:
    """And nothing is followed or repeated."""
    server.plays(play, answers(200, BODY))
    with pytest.raises(Unavailable), api.results("msgbatch_1"):
        pass
    assert len(server.exchanges) == 1


def test_a_reader_that_gives_up_lets_go_of_the_connection(api: BatchesApi, server: Server, heard: Heard) -> None:
    """A sink that fails in the middle leaves no half-read stream behind, and its exception is its own."""

    def play(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n" + BODY)
        exchange.read(1)

    kept: list[Iterator[bytes]] = []

    def deliver() -> None:
        with api.results("msgbatch_1") as lines:
            kept.append(lines)  # or the end of the generator would do what closing must do
            next(lines)
            raise OSError("disk full")

    server.plays(play)
    with pytest.raises(OSError, match="disk full"):
        deliver()
    server.wait_until(server.hung_up)
    assert heard.calls == [("results", "ok")]

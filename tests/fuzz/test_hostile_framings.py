import gzip
import json
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from api_rig import CALLS, Call, Clock, SmallBody, open_api
from hostile_server import HostileServer, Play, answer, endless, slowly

from worker.batches_api import ApiError, BatchesApi, InDoubt, Refused, Truncated, Unavailable
from worker.batches_api.bounds import LARGEST_ANSWER, LARGEST_COMPLAINT

MOST_MEMORY = 3 * LARGEST_ANSWER
MB = 1_000_000
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
BATCH: dict[str, Any] = {
    "id": "msgbatch_1",
    "processing_status": "in_progress",
    "request_counts": {"processing": 1},
    "created_at": "2026-11-22T10:00:00Z",
}
SMALL = {name: call for name, call in CALLS.items() if name != "results"}


@pytest.fixture
def server() -> Iterator[HostileServer]:
    """Serve what the test says."""
    server = HostileServer()
    yield server
    server.close()


@pytest.fixture
def clock() -> Clock:
    """Give time that nobody has to wait for."""
    return Clock()


@pytest.fixture
def api(server: HostileServer, clock: Clock) -> Iterator[BatchesApi]:
    """Connect to the server."""
    with open_api(server.url, clock) as api:
        yield api


def bomb(megabytes: int) -> bytes:
    """Compress so many megabytes of blanks a thousandfold."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join([*(packer.compress(b" " * MB) for _ in range(megabytes)), packer.flush()])


@pytest.fixture(scope="module")
def bombs() -> dict[str, Play]:
    """Pack what unfolds to many times its size, once."""
    packed, gz = bomb(300), b"content-encoding: gzip"
    return {
        "gzip": answer(packed, gz),
        "gzip twice": answer(gzip.compress(packed), b"content-encoding: gzip, gzip"),
        "gzip of six layers": answer(packed, b"content-encoding: gzip" + b", gzip" * 5),
        "gzip in chunks": answer(b"%x\r\n%b\r\n0\r\n\r\n" % (len(packed), packed), gz, CHUNKED.strip()),
        "gzip that refuses": answer(packed, gz, status=b"400 Bad"),
        "gzip that fails": answer(packed, gz, status=b"500 Bad"),
    }


ENDLESS: dict[str, Play] = {
    "body in chunks": endless(OK + CHUNKED + b"\r\n", b"10000\r\n" + b" " * 65_536 + b"\r\n"),
    "body until the end": endless(OK + b"\r\n", b" " * 65_536),
    "body of a wrong length": endless(OK + b"content-length: 99999999999\r\n\r\n", b"[" * 65_536),
    "failure": endless(b"HTTP/1.1 500 Bad\r\n\r\n", b"{" * 65_536),
    "refusal": endless(b"HTTP/1.1 400 Bad\r\n" + CHUNKED + b"\r\n", b'10000\r\n"' + b"x" * 65_535 + b"\r\n"),
    "redirect": endless(b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\n\r\n", b"x" * 65_536),
    "headers": endless(OK, b"x-header: " + b"x" * 1000 + b"\r\n"),
    "header": endless(OK + b"x-header: ", b"x" * 65_536),
    "status": endless(b"HTTP/1.1 200 ", b"O" * 65_536),
    "trailers": endless(OK + CHUNKED + b"\r\n0\r\n", b"x-trailer: 1\r\n"),
    "size of a chunk": endless(OK + CHUNKED + b"\r\n", b"0" * 65_536),
    "chunk extensions": endless(OK + CHUNKED + b"\r\n1;", b"x" * 65_536),
    "nothing like HTTP": endless(b"", b"\x00\xff" * 32_768),
}


def kinds_of(call: str) -> type[ApiError] | tuple[type[ApiError], ...]:
    """Return what may come of a call that was answered so."""
    return (InDoubt, Refused) if call == "create" else (Truncated, Unavailable, Refused)


def peak_of(call: Call, api: BatchesApi, kinds: Any) -> int:
    """Call, expecting one of the kinds of errors; returns the most memory that was held meanwhile."""
    tracemalloc.start()
    try:
        with pytest.raises(kinds):
            call(api)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["gzip", "gzip twice", "gzip of six layers", "gzip in chunks", "gzip that refuses",
                                  "gzip that fails"])  # fmt: skip
@pytest.mark.parametrize("call", ["retrieve", "newest", "create"])
def test_a_bomb_does_not_go_off(
    api: BatchesApi, server: HostileServer, bombs: dict[str, Play], *, call: str, name: str
) -> None:
    """What unfolds to more than any answer has is not unfolded to its end."""
    server.play = bombs[name]
    assert peak_of(CALLS[call], api, kinds_of(call)) < MOST_MEMORY


@pytest.mark.parametrize("name", ["gzip", "gzip twice", "gzip in chunks", "gzip that refuses", "gzip that fails"])
def test_a_bomb_among_results_does_not_go_off(
    api: BatchesApi, server: HostileServer, bombs: dict[str, Play], name: str
) -> None:
    """A line has an end, or the reading has."""
    server.play = bombs[name]
    assert peak_of(CALLS["results"], api, (Truncated, Unavailable, Refused)) < 80 * MB


@pytest.mark.parametrize("name", ENDLESS)
@pytest.mark.parametrize("call", CALLS)
def test_what_has_no_end_is_given_up(api: BatchesApi, server: HostileServer, *, call: str, name: str) -> None:
    """Whatever it is that does not end, and long before the memory does."""
    server.play = ENDLESS[name]
    most = 5 * LARGEST_ANSWER if call == "results" else MOST_MEMORY
    assert peak_of(CALLS[call], api, kinds_of(call)) < most


GZIP_WITH_A_COMMENT = b"\x1f\x8b\x08\x10\x00\x00\x00\x00\x00\x03"
HINTS = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
LINE = b'{"custom_id":"a","result":{}}\n'
DRIBBLES: dict[str, Play] = {
    "hints": endless(b"", HINTS),
    "100 and 102": endless(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "headers": endless(OK, b"a: b\r\n"),
    "a header": endless(OK + b"a: ", b"b"),
    "a body": endless(OK + b"\r\n", b" "),
    "chunks": endless(OK + CHUNKED + b"\r\n", b"1\r\n \r\n"),
    "trailers": endless(OK + CHUNKED + b"\r\n0\r\n", b"a: b\r\n"),
    "a failure": endless(b"HTTP/1.1 500 Bad\r\n\r\n", b" "),
    "gzip without content": endless(OK + b"content-encoding: gzip\r\n\r\n" + GZIP_WITH_A_COMMENT, b"c"),
}


@pytest.mark.parametrize("name", DRIBBLES)
@pytest.mark.parametrize("call", CALLS)
def test_an_answer_that_dribbles_is_given_up(
    api: BatchesApi, server: HostileServer, clock: Clock, *, call: str, name: str
) -> None:
    """A byte every ten seconds keeps each read alive and the call for years; a lease would be renewed as long."""

    def passes() -> None:
        clock.at += 10

    server.play = slowly(DRIBBLES[name], passes)
    with pytest.raises(kinds_of(call)):
        CALLS[call](api)


def test_results_that_come_too_slowly_are_given_up(api: BatchesApi, server: HostileServer, clock: Clock) -> None:
    """Lines that come for ever, one a minute, are not read for ever."""

    def passes() -> None:
        clock.at += 60

    server.play = slowly(endless(OK + b"\r\n", LINE), passes)
    with pytest.raises(Truncated, match="slowly") as caught, api.results("msgbatch_1") as lines:
        list(lines)
    assert caught.value.broken_off


def test_whoever_reads_slowly_is_given_all(api: BatchesApi, server: HostileServer, clock: Clock) -> None:
    """Only waiting for the API counts, not what a sink takes its time for."""
    server.play = answer(LINE * 50_000)
    count = 0
    with api.results("msgbatch_1") as lines:
        for _ in lines:
            clock.at += 60
            count += 1
    assert count == 50_000


def test_a_long_upload_and_a_long_wait_for_its_answer_are_fine(
    server: HostileServer, clock: Clock, api: BatchesApi
) -> None:
    """The answer's time begins when the body is out, and an answer at the last moment is an answer."""
    server.play = slowly(answer(json.dumps(BATCH).encode()), lambda: setattr(clock, "at", clock.at + 299))

    def before_last_byte() -> None:
        clock.at += 15

    assert api.create(SmallBody(), before_last_byte=before_last_byte).remote.id == "msgbatch_1"


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_the_largest_answer_is_still_read(api: BatchesApi, server: HostileServer, *, coding: str, extra: int) -> None:
    """The limit is where it says, counted in what is unfolded."""
    body = json.dumps(BATCH).encode().ljust(LARGEST_ANSWER + extra)
    packed = gzip.compress(body, 1) if coding == "gzip" else body
    server.play = answer(packed, b"content-encoding: " + coding.encode())
    if not extra:
        assert api.retrieve("msgbatch_1").remote.id == "msgbatch_1"
        return
    with pytest.raises(Unavailable, match="AnswerTooLargeError"):
        api.retrieve("msgbatch_1")


def test_the_status_of_an_endless_refusal_counts(api: BatchesApi, server: HostileServer) -> None:
    """What was refused is refused, however long the reasons; its beginning is not taken for the whole."""
    body = b'{"type":"error","error":{"type":"invalid_request_error","message":"' + b"x" * LARGEST_COMPLAINT + b'"}}'
    server.play = answer(body, status=b"400 Bad Request")
    with pytest.raises(Refused) as caught:
        CALLS["create"](api)
    assert (caught.value.status, caught.value.error_type) == (400, None)


@pytest.mark.parametrize("charset", ["bz2", "zlib", "hex", "base64", "rot13", "utf-7", "idna", "undefined", "x" * 999])
@pytest.mark.parametrize("call", CALLS)
def test_no_answer_chooses_how_it_is_decoded(
    api: BatchesApi, server: HostileServer, *, call: str, charset: str
) -> None:
    """Python's codecs unpack archives too, and raise what they like."""
    failure = b'{"type":"error","error":{"type":"invalid_request_error","message":"no"}}'
    server.play = answer(failure, b"content-type: text/html; charset=" + charset.encode(), status=b"400 Bad Request")
    with pytest.raises(Refused) as caught:
        CALLS[call](api)
    assert caught.value.error_type == "invalid_request_error"


def test_nothing_that_an_answer_wants_remembered_is_remembered(api: BatchesApi, server: HostileServer) -> None:
    """Cookies would pile up in the memory and in the headers of every request."""
    cookies = [b"set-cookie: name%d=value; Max-Age=999999; Path=/" % number for number in range(20)]
    server.play = answer(json.dumps(BATCH).encode(), *cookies)
    for call in ("retrieve", "create", "retrieve", "create"):
        SMALL[call](api)
    assert not any(b"cookie" in head.lower() for head in server.heads)


def test_a_watch_is_for_one_call(api: BatchesApi, server: HostileServer, clock: Clock) -> None:
    """The time that one call took is not taken from the next."""
    server.play = slowly(answer(json.dumps(BATCH).encode()), lambda: setattr(clock, "at", clock.at + 100))
    for _ in range(5):
        assert api.retrieve("msgbatch_1").remote.id == "msgbatch_1"

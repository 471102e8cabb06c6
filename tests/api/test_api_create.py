import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from api_fakes import KEY, FakeClock, Heard, nothing
from scripted_server import Exchange, Play, Server, answers, batch, failure

from worker.batches_api import ApiError, BatchesApi, InDoubt, NotSent, Refused
from worker.core.errors import Doubt

PROMPT = b'{"requests":[{"custom_id":"a","params":{"canary":"prompt"}}]}'
WHOLE = len(PROMPT)


@dataclass
class Pieces:
    """A body in given pieces, of an announced size that may be a lie."""

    pieces: tuple[bytes, ...] = (PROMPT[:7], b"", PROMPT[7:])
    nbytes: int = WHOLE

    def __iter__(self) -> Iterator[bytes]:
        """Start over."""
        yield from self.pieces


def bad(exception: BaseException) -> Callable[[], None]:
    """Build a record that fails."""

    def record() -> None:
        raise exception

    return record


def test_a_created_batch_comes_back_with_its_workspace(api: BatchesApi, server: Server, heard: Heard) -> None:
    """Id, counts, instants, workspace and request id are what the ledger needs."""
    server.plays(answers(200, batch(), request_id="req_1", anthropic_workspace_id="wrkspc_1"))
    created = api.create(Pieces(), before_last_byte=nothing)
    assert created.remote.id == "msgbatch_1"
    assert created.remote.counts.total == 3
    assert created.remote.expires_at - created.remote.created_at == 86_400
    assert (created.workspace_id, created.request_id) == ("wrkspc_1", "req_1")
    assert heard.calls == [("create", "ok")]


def test_the_request_is_exactly_the_body_and_nothing_is_negotiated(api: BatchesApi, server: Server) -> None:
    """Length, version, betas and key are sent; no idempotency key, no chunks, no second use of the connection."""
    server.plays(answers(200, batch()), answers(200, batch()))
    api.create(Pieces(), before_last_byte=nothing)
    api.create(Pieces(), before_last_byte=nothing)
    exchange = server.exchanges[0]
    assert (exchange.method, exchange.target) == ("POST", "/v1/messages/batches")
    assert bytes(exchange.kept) == PROMPT
    assert exchange.headers["content-length"] == str(WHOLE)
    assert "transfer-encoding" not in exchange.headers
    assert exchange.headers["anthropic-version"] == "2026-10-21"
    assert exchange.headers["anthropic-beta"] == "output-300k-2026-03-24,another-beta"
    assert exchange.headers["authorization"] == f"Bearer {KEY}"
    assert exchange.headers["connection"] == "close"
    assert not [name for name in exchange.headers if "idempotency" in name or name == "traceparent"]
    assert server.connections == 2


def test_a_create_never_rides_on_a_used_connection(api: BatchesApi, server: Server) -> None:
    """A kept connection may be dead already, and a body lost in it would be in doubt for nothing."""
    server.plays(answers(200, {"data": [], "has_more": False}), answers(200, batch()))
    api.newest()
    api.create(Pieces(), before_last_byte=nothing)
    assert server.connections == 2


def test_the_last_byte_is_withheld_until_the_record_is_made(api: BatchesApi, server: Server) -> None:
    """While the record is being made all but one byte have arrived, and not that one."""
    seen: list[int] = []

    def record() -> None:
        server.wait_until(lambda: server.received() == WHOLE - 1)
        seen.append(server.received())

    server.plays(answers(200, batch()))
    api.create(Pieces(), before_last_byte=record)
    assert seen == [WHOLE - 1]
    assert server.exchanges[0].received == WHOLE


@pytest.mark.parametrize("cut", [1, 2, WHOLE - 2, WHOLE - 1])
def test_the_last_byte_is_withheld_however_the_body_is_cut(api: BatchesApi, server: Server, cut: int) -> None:
    """A last piece of one byte, or of all but one, changes nothing."""
    seen: list[int] = []

    def record() -> None:
        server.wait_until(lambda: server.received() == WHOLE - 1)
        seen.append(server.received())

    server.plays(answers(200, batch()))
    api.create(Pieces((PROMPT[:cut], PROMPT[cut:], b"")), before_last_byte=record)
    assert seen == [WHOLE - 1]
    assert bytes(server.exchanges[0].kept) == PROMPT


@pytest.mark.parametrize("exception", [RuntimeError("stale"), ConnectionError("redis"), KeyboardInterrupt()])
def test_a_record_that_fails_creates_nothing_and_its_exception_comes_out(
    api: BatchesApi, server: Server, heard: Heard, exception: BaseException
) -> None:
    """The very same exception, unwrapped; the server sees the connection end one byte short."""
    server.plays(answers(200, batch()))
    with pytest.raises(type(exception)) as caught:
        api.create(Pieces(), before_last_byte=bad(exception))
    assert caught.value is exception
    assert exception.__context__ is None
    assert exception.__cause__ is None
    server.wait_until(server.hung_up)
    assert server.exchanges[0].received == WHOLE - 1
    assert len(server.exchanges) == 1
    assert heard.calls == [("create", "not_sent")]


def test_a_record_that_took_too_long_is_not_followed_by_the_byte(
    api: BatchesApi, server: Server, clock: FakeClock
) -> None:
    """A process frozen in between must not post what others may have given up on."""

    def freeze() -> None:
        clock.at += 20.1

    server.plays(answers(200, batch()))
    with pytest.raises(NotSent, match="stale"):
        api.create(Pieces(), before_last_byte=freeze)
    server.wait_until(server.hung_up)
    assert server.exchanges[0].received == WHOLE - 1


def test_a_record_that_took_long_but_not_too_long_is_followed(
    api: BatchesApi, server: Server, clock: FakeClock
) -> None:
    """Up to twenty seconds a durable write may take."""

    def slow() -> None:
        clock.at += 20.0

    server.plays(answers(200, batch()))
    assert api.create(Pieces(), before_last_byte=slow).remote.id == "msgbatch_1"


@pytest.mark.parametrize(
    "body",
    [
        Pieces((PROMPT[:-1],)),
        Pieces(()),
        Pieces((PROMPT, b"x")),
        Pieces((PROMPT + b"x",)),
        Pieces((PROMPT[:-1], b"xy")),
        Pieces((PROMPT,), nbytes=0),
    ],
)
def test_a_body_of_another_size_is_never_completed(api: BatchesApi, server: Server, body: Pieces) -> None:
    """One byte too few or too many, and nothing is recorded nor created."""
    records: list[bool] = []
    server.plays(answers(200, batch()))
    with pytest.raises(NotSent, match="than announced"):
        api.create(body, before_last_byte=lambda: records.append(True))
    assert records == []
    if body.nbytes:
        server.wait_until(lambda: not server.exchanges or server.exchanges[0].hung_up)
        assert all(exchange.received < WHOLE for exchange in server.exchanges)


def test_a_body_that_breaks_creates_nothing_and_its_exception_comes_out(api: BatchesApi, server: Server) -> None:
    """Redis may go away in the middle of a body."""
    lost = ConnectionError("redis went away")

    class Broken(Pieces):
        def __iter__(self) -> Iterator[bytes]:
            yield PROMPT[:20]
            raise lost

    server.plays(answers(200, batch()))
    with pytest.raises(ConnectionError) as caught:
        api.create(Broken(), before_last_byte=nothing)
    assert caught.value is lost
    server.wait_until(server.hung_up)
    assert server.exchanges[0].received == 20


def test_nobody_listening_is_not_sent(connect: Callable[..., BatchesApi], server: Server, heard: Heard) -> None:
    """A refused connection created nothing, and says why."""
    url = server.url
    server.close()
    with pytest.raises(NotSent, match=r"ConnectError: .*refused"):
        connect(url).create(Pieces(), before_last_byte=nothing)
    assert heard.calls == [("create", "not_sent")]


def test_a_reset_before_the_last_byte_is_not_sent(api: BatchesApi, server: Server) -> None:
    """The body died half way: nothing was created."""

    def play(exchange: Exchange) -> None:
        exchange.read(1)
        exchange.reset()

    body = Pieces((PROMPT[:1], *(b"x" * 1_000_000,) * 50, b"}"), nbytes=50_000_002)
    server.plays(play)
    with pytest.raises(NotSent):
        api.create(body, before_last_byte=bad(AssertionError("the body cannot have been taken")))


def early(status: int, body: object) -> Play:
    """Answer after the first byte and read no more."""

    def play(exchange: Exchange) -> None:
        exchange.read(1)
        exchange.answer(status, body, connection="close")
        exchange.close()

    return play


@pytest.mark.parametrize(
    ("status", "expected"),
    [(413, Refused), (401, Refused), (408, NotSent), (500, NotSent), (529, NotSent), (200, NotSent)],
)
def test_an_answer_that_comes_before_the_last_byte_is_definite(
    api: BatchesApi, server: Server, status: int, expected: type[ApiError]
) -> None:
    """Whatever it says, an unfinished body created nothing."""
    body = Pieces((b"{", *(b"x" * 1_000_000,) * 50, b"}"), nbytes=50_000_002)
    server.plays(early(status, failure("api_error")))
    with pytest.raises(expected) as caught:
        api.create(body, before_last_byte=bad(AssertionError("the body cannot have been taken")))
    assert isinstance(caught.value, Refused | NotSent)
    assert caught.value.status == status
    assert caught.value.last_byte_sent is False


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 422, 429])
def test_a_definite_answer_is_a_refusal_with_its_facts(
    api: BatchesApi, server: Server, heard: Heard, status: int
) -> None:
    """Type, code, message, request id and retry-after are there to be judged."""
    server.plays(answers(status, failure("some_error", "requests.3.custom_id: bad", "some_code"), retry_after="7"))
    with pytest.raises(Refused) as caught:
        api.create(Pieces(), before_last_byte=nothing)
    err = caught.value
    assert (err.status, err.error_type, err.error_code) == (status, "some_error", "some_code")
    assert (err.message, err.request_id, err.retry_after) == ("requests.3.custom_id: bad", "r1", 7.0)
    assert err.last_byte_sent is True
    assert heard.calls == [("create", "rate_limited" if status == 429 else "refused")]


@pytest.mark.parametrize(
    ("answer", "doubt"),
    [
        (answers(408, failure("timeout_error")), Doubt.LOST),
        (answers(409, failure("conflict_error")), Doubt.LOST),
        (answers(499, b""), Doubt.LOST),
        (answers(500, failure("api_error")), Doubt.LOST),
        (answers(502, b"<html>bad gateway</html>"), Doubt.LOST),
        (answers(503, failure("overloaded_error")), Doubt.OVERLOADED),
        (answers(503, b"<html>no upstream</html>"), Doubt.LOST),
        (answers(504, failure("timeout_error")), Doubt.LOST),
        (answers(529, failure("overloaded_error")), Doubt.OVERLOADED),
        (answers(529, {"error": {"type": "overloaded_error"}}), Doubt.LOST),
        (answers(200, b"<html>welcome to the airport</html>"), Doubt.LOST),
        (answers(200, b""), Doubt.LOST),
        (answers(200, batch(created_at="yesterday")), Doubt.LOST),
        (answers(200, batch("../../etc")), Doubt.LOST),
        (answers(200, {"id": "msgbatch_1"}), Doubt.LOST),
        (answers(304, b""), Doubt.LOST),
    ],
)
def test_everything_else_after_the_last_byte_is_in_doubt(
    api: BatchesApi, server: Server, heard: Heard, answer: Play, doubt: Doubt
) -> None:
    """Only the API's own overload answer is a lighter doubt."""
    server.plays(answer)
    with pytest.raises(InDoubt) as caught:
        api.create(Pieces(), before_last_byte=nothing)
    assert caught.value.status is not None
    assert caught.value.doubt == doubt
    assert heard.calls == [("create", "in_doubt")]


@pytest.mark.parametrize("ending", ["reset", "close"])
def test_a_connection_that_dies_after_the_last_byte_is_in_doubt(
    api: BatchesApi, server: Server, heard: Heard, ending: str
) -> None:
    """The answer was lost; whether the batch was created cannot be known from here."""

    def play(exchange: Exchange) -> None:
        exchange.read()
        getattr(exchange, ending)()

    server.plays(play)
    with pytest.raises(InDoubt) as caught:
        api.create(Pieces(), before_last_byte=nothing)
    assert (caught.value.status, caught.value.doubt) == (None, Doubt.LOST)
    assert heard.calls == [("create", "in_doubt")]


def test_an_answer_that_never_comes_is_in_doubt(connect: Callable[..., BatchesApi], server: Server) -> None:
    """The wait for the answer is bounded by its own timeout."""

    def play(exchange: Exchange) -> None:
        exchange.read()
        exchange.read(exchange.announced + 1)

    server.plays(play)
    with pytest.raises(InDoubt, match="ReadTimeout"):
        connect(server.url, answer_timeout=0.2).create(Pieces(), before_last_byte=nothing)


def test_an_answer_cut_short_is_in_doubt(api: BatchesApi, server: Server) -> None:
    """Half a description of a batch is not one, even when its status says 200."""

    def play(exchange: Exchange) -> None:
        exchange.read()
        exchange.send(b'HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{"id":"msgbatch_1"')
        exchange.close()

    server.plays(play)
    with pytest.raises(InDoubt):
        api.create(Pieces(), before_last_byte=nothing)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed(api: BatchesApi, server: Server, status: int) -> None:
    """A 307 would post the whole batch a second time, perhaps to somebody else."""
    server.plays(answers(status, b"", location=f"{server.url}/elsewhere"), answers(200, batch()))
    with pytest.raises(InDoubt):
        api.create(Pieces(), before_last_byte=nothing)
    assert [exchange.path for exchange in server.exchanges] == ["/v1/messages/batches"]


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_nothing_is_ever_sent_twice(api: BatchesApi, server: Server, status: int) -> None:
    """Not even when the answer asks for it: one create, one request."""
    server.plays(answers(status, failure("api_error"), x_should_retry="true", retry_after="0"))
    with pytest.raises(ApiError):
        api.create(Pieces(), before_last_byte=nothing)
    assert len(server.exchanges) == 1
    assert server.connections == 1


def test_an_exception_from_elsewhere_after_the_last_byte_counts_as_doubt(
    api: BatchesApi, server: Server, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that is interrupted while it waits for the answer knows nothing; its exception is not dressed up."""
    ask = api._connection.create

    def interrupted(*args: Any) -> None:
        ask(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(api._connection, "create", interrupted)
    server.plays(answers(200, batch()))
    with pytest.raises(KeyboardInterrupt):
        api.create(Pieces(), before_last_byte=nothing)
    assert heard.calls == [("create", "in_doubt")]


def test_a_large_body_flows_through_in_flat_memory(api: BatchesApi, server: Server) -> None:
    """A hundred megabytes leave a few in memory at most."""
    piece = b"x" * 1_000_000
    body = Pieces((piece,) * 100, nbytes=100_000_000)
    server.plays(answers(200, batch()), answers(200, batch()))
    api.create(Pieces(), before_last_byte=nothing)
    tracemalloc.start()
    try:
        api.create(body, before_last_byte=nothing)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert server.exchanges[1].received == 100_000_000
    assert peak < 8_000_000

import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from api_fakes import Heard
from scripted_server import Exchange, Play, Server, answers, batch, failure

from worker.batches_api import ApiError, BatchesApi, NotFound, Refused, Unavailable
from worker.batches_api.listing import Listing

DATE = "Sun, 22 Nov 2026 10:00:05 GMT"
BATCHES = "/v1/messages/batches"
TEN = 1_795_341_600.0  # 2026-11-22 10:00:00 UTC


def page(*ids: str, has_more: bool = False, **headers: str) -> Play:
    """Answer with a page of batches, all created at 10:00."""
    return answers(200, {"data": [batch(one) for one in ids], "has_more": has_more}, **headers)


def dated(remote_id: str, minutes: int) -> dict[str, Any]:
    """Describe a batch created some minutes before 10:00."""
    return batch(remote_id, created_at=f"2026-11-22T09:{60 - minutes:02}:00Z")


def targets(server: Server) -> list[str]:
    """Tell what was asked for, without the folder."""
    return [exchange.target.removeprefix(BATCHES) for exchange in server.exchanges]


def ids(listing: Listing) -> list[str]:
    """Tell which batches are listed, in order."""
    return [remote.id for remote in listing.batches]


def test_a_batch_is_read_with_the_apis_wish_for_the_next_look(api: BatchesApi, server: Server, heard: Heard) -> None:
    """Status, counts and instants as the API has them; an unknown status stays what it is."""
    counts = {"processing": 0, "succeeded": 5, "errored": 2, "canceled": 1, "expired": 1}
    ended = batch(
        processing_status="resting",
        request_counts=counts,
        ended_at="2026-11-22T11:00:00Z",
        archived_at="2026-12-22T12:00:00+01:00",
        brand_new_field=[1],
    )
    server.plays(answers(200, ended, retry_after="10"))
    retrieved = api.retrieve("msgbatch_1")
    assert retrieved.retry_after == 10
    assert retrieved.remote.status == "resting"
    assert retrieved.remote.counts.finished == 9
    assert retrieved.remote.created_at == TEN + 0.25
    assert retrieved.remote.ended_at == TEN + 3600
    assert retrieved.remote.cancel_initiated_at is None
    assert (targets(server), heard.calls) == (["/msgbatch_1"], [("retrieve", "ok")])


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("2.5", 2.5),
        ("-3", 0.0),
        ("nan", None),
        ("soon", None),
        ("Sun, 22 Nov 2026 10:00:35 GMT", 30.0),
        ("Sun, 22 Nov 2026 09:00:00 GMT", 0.0),
        ("1e300", 3600.0),
        ("1e400", None),
        ("Sun, 22 Nov 9999 10:00:35 GMT", 3600.0),
        ("Sun, 22 Nov 99999999999999999999 10:00:35 GMT", None),
        ("Sun, 22 Nov 2026 10:00:35 +99999999999999999999", None),
    ],
)
def test_a_wait_may_be_asked_for_in_seconds_or_as_a_date(
    api: BatchesApi, server: Server, header: str, expected: float | None
) -> None:
    """A date is held against the API's own clock, never against ours; nobody is told to wait for years."""
    server.plays(answers(200, batch(), retry_after=header, date=DATE))
    assert api.retrieve("msgbatch_1").retry_after == expected


@pytest.mark.parametrize("year", ["99999999999999999999", "99999", "-1", "x"])
def test_a_date_that_is_none_is_no_date(api: BatchesApi, server: Server, year: str) -> None:
    """A header cannot end a step with an error that nobody expects."""
    date = f"Sun, 22 Nov {year} 10:00:05 GMT"
    server.plays(page(date=date, anthropic_ratelimit_requests_limit="1", anthropic_ratelimit_requests_remaining="0"))
    assert api.newest().server_date is None


def test_what_can_be_known_otherwise_may_be_missing(api: BatchesApi, server: Server) -> None:
    """A batch lives for 24 hours whoever says so, and an instant without a zone is UTC: one odd batch ends no walk."""
    server.plays(
        answers(200, batch(expires_at=None, created_at="2026-11-22T10:00:00", request_counts={"processing": 3}))
    )
    remote = api.retrieve("msgbatch_1").remote
    assert (remote.created_at, remote.expires_at - remote.created_at, remote.counts.total) == (TEN, 86_400, 3)


def test_the_newest_page_says_whether_it_is_all(api: BatchesApi, server: Server) -> None:
    """One call lists up to a thousand, with the workspace and the API's clock."""
    server.plays(page("b2", "b1", has_more=True, date=DATE, anthropic_workspace_id="wrkspc_1"), page())
    listing = api.newest()
    assert ids(listing) == ["b2", "b1"]
    assert (listing.workspace_id, listing.server_date, listing.complete) == ("wrkspc_1", TEN + 5, False)
    assert api.newest() == Listing((), None, None, complete=True)
    assert targets(server) == ["?limit=1000", "?limit=1000"]


@pytest.mark.parametrize(
    ("answer", "expected", "outcome"),
    [
        (answers(404, failure("not_found_error")), NotFound, "not_found"),
        (answers(401, failure("authentication_error")), Refused, "refused"),
        (answers(400, failure("invalid_request_error")), Refused, "refused"),
        (answers(429, failure("rate_limit_error"), retry_after="9"), Unavailable, "rate_limited"),
        (answers(408, b""), Unavailable, "unavailable"),
        (answers(500, b"<html>"), Unavailable, "unavailable"),
        (answers(529, failure("overloaded_error")), Unavailable, "unavailable"),
        (answers(307, b"", location="/elsewhere"), Unavailable, "unavailable"),
        (answers(200, b"<html>welcome to the airport</html>"), Unavailable, "unavailable"),
        (answers(200, b"\xff\xfe"), Unavailable, "unavailable"),
        (answers(200, batch(created_at=None)), Unavailable, "unavailable"),
        (answers(200, batch(created_at="soon")), Unavailable, "unavailable"),
        (answers(200, batch("msgbatch_2")), Unavailable, "unavailable"),
        (Exchange.reset, Unavailable, "unavailable"),
        (Exchange.close, Unavailable, "unavailable"),
    ],
)
def test_a_failed_read_is_one_of_three_kinds_and_is_not_repeated(
    api: BatchesApi, server: Server, heard: Heard, answer: Play, *, expected: type[ApiError], outcome: str
) -> None:
    """Gone, refused, or not answerable now; an answer that cannot be read is no answer."""
    server.plays(answer)
    with pytest.raises(expected) as caught:
        api.retrieve("msgbatch_1")
    assert type(caught.value) is expected
    assert caught.value.retry_after == (9 if outcome == "rate_limited" else None)
    assert len(server.exchanges) == 1
    assert heard.calls == [("retrieve", outcome)]


def test_an_error_of_any_shape_is_read_as_far_as_it_goes(api: BatchesApi, server: Server) -> None:
    """A wrong type somewhere in the error object does not hide the rest of it."""
    server.plays(answers(400, {"error": {"type": "odd_error", "message": 7, "details": [], "x": {}}}))
    with pytest.raises(Refused) as caught:
        api.retrieve("msgbatch_1")
    assert (caught.value.error_type, caught.value.error_code, caught.value.message) == ("odd_error", None, None)


@pytest.mark.parametrize("remote_id", ["", "a/b", "..", "a?limit=1", "a b", "ä", "x" * 129])
def test_an_id_that_is_none_reaches_no_url(api: BatchesApi, server: Server, remote_id: str) -> None:
    """A slash in an id would address another endpoint."""
    calls: list[Callable[[str], object]] = [
        api.retrieve,
        api.cancel,
        api.delete,
        lambda one: api.results(one).__enter__(),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="not a remote batch id"):
            call(remote_id)
    assert server.connections == 0


def test_cancel_and_delete_ask_once(api: BatchesApi, server: Server, heard: Heard) -> None:
    """Cancel answers with the batch, delete with nothing we need."""
    gone = {"id": "msgbatch_1", "type": "message_batch_deleted"}
    server.plays(answers(200, batch(processing_status="canceling")), answers(200, gone))
    assert api.cancel("msgbatch_1").status == "canceling"
    api.delete("msgbatch_1")
    asked = [(exchange.method, exchange.target.removeprefix(BATCHES)) for exchange in server.exchanges]
    assert asked == [("POST", "/msgbatch_1/cancel"), ("DELETE", "/msgbatch_1")]
    assert heard.calls == [("cancel", "ok"), ("delete", "ok")]


@pytest.mark.parametrize("order", ["cancel", "delete"])
def test_an_order_that_fails_is_not_repeated(api: BatchesApi, server: Server, order: str) -> None:
    """Whoever ordered decides whether to order again."""
    server.plays(answers(500, b""), answers(200, batch()))
    with pytest.raises(Unavailable):
        getattr(api, order)("msgbatch_1")
    assert len(server.exchanges) == 1


def test_everything_newer_than_the_head_is_listed_over_all_pages(api: BatchesApi, server: Server) -> None:
    """The walk goes from the head to the newest; the list is newest first; the clock is that of its beginning."""
    server.plays(
        page("b3", "b2", has_more=True, date=DATE),
        page("b5", "b4", has_more=True),
        page("b6"),
        answers(200, batch("b1")),
    )
    listing = api.newer_than("b1", not_before=TEN)
    assert ids(listing) == ["b6", "b5", "b4", "b3", "b2"]
    assert (listing.complete, listing.server_date) == (True, TEN + 5)
    assert targets(server) == [
        "?limit=1000&before_id=b1",
        "?limit=1000&before_id=b3",
        "?limit=1000&before_id=b5",
        "/b1",
    ]


@pytest.mark.parametrize("status", [400, 404])
def test_a_deleted_head_makes_the_walk_go_by_time(api: BatchesApi, server: Server, status: int) -> None:
    """From the newest down to ten minutes before the head was taken, and nothing older."""
    first = {"data": [dated("b9", 0 + 1), dated("b8", 9)], "has_more": True}
    second = {"data": [dated("b7", 10), dated("b6", 11)], "has_more": True}
    server.plays(answers(status, failure("any_error")), answers(200, first), answers(200, second))
    listing = api.newer_than("b1", not_before=TEN)
    assert ids(listing) == ["b9", "b8", "b7"]
    assert listing.complete
    assert targets(server) == ["?limit=1000&before_id=b1", "?limit=1000", "?limit=1000&after_id=b8"]


def test_an_api_that_ignores_a_deleted_head_does_not_make_batches_absent(api: BatchesApi, server: Server) -> None:
    """An empty page after an unknown cursor looks like "nothing newer" and is not: the head itself is looked at."""
    server.plays(page(), answers(404, failure("not_found_error")), page("b2"))
    assert ids(api.newer_than("b1", not_before=TEN)) == ["b2"]


def test_without_a_head_the_walk_goes_by_time(api: BatchesApi, server: Server) -> None:
    """The account had no batch when the cursor was taken."""
    server.plays(page("b2", "b1"))
    assert ids(api.newer_than(None, not_before=TEN)) == ["b2", "b1"]
    assert targets(server) == ["?limit=1000"]


HEAD = answers(200, batch("b1"))
EMPTY_BUT_MORE = page(has_more=True)


@pytest.mark.parametrize(
    "plays",
    [
        [page("b2", has_more=True), answers(500, b"")],
        [page("b2", has_more=True), Exchange.reset],
        [page("b2", has_more=True), answers(200, b'{"data":[]}')],
        [page("b2", has_more=True), page("b2", has_more=True)],
        [EMPTY_BUT_MORE],
        [page("b2", has_more=True, anthropic_workspace_id="w1"), page("b3", anthropic_workspace_id="w2"), HEAD],
        [page("b2"), answers(500, b"")],
        [answers(404, b""), answers(500, b"")],
        [answers(404, b""), EMPTY_BUT_MORE],
        [answers(404, b""), page("b2", has_more=True), answers(500, b"")],
        [answers(404, b""), page("b2", has_more=True), EMPTY_BUT_MORE],
        [answers(404, b""), page("b2", has_more=True), page("b2", has_more=True)],
        [answers(200, {"data": [batch(), {"id": "b1"}], "has_more": False})],
    ],
)
def test_a_walk_that_is_not_finished_concludes_nothing(api: BatchesApi, server: Server, plays: list[Play]) -> None:
    """A page missing, repeated, of another workspace or half readable: no list at all, rather than a short one."""
    server.plays(*plays)
    with pytest.raises(Unavailable):
        api.newer_than("b1", not_before=TEN)


@pytest.mark.parametrize("head", ["b1", None])
def test_a_walk_that_comes_back_to_where_it_was_ends(api: BatchesApi, server: Server, head: str | None) -> None:
    """An API that serves the same page for ever does not keep us walking."""
    server.plays(*[page("b2", has_more=True)] * 5)
    with pytest.raises(Unavailable, match="does not advance"):
        api.newer_than(head, not_before=TEN)
    assert len(server.exchanges) == 2


def test_a_refused_walk_is_not_taken_for_a_deleted_head(api: BatchesApi, server: Server) -> None:
    """A key that was revoked says nothing about batches."""
    server.plays(answers(401, failure("authentication_error")), page())
    with pytest.raises(Refused):
        api.newer_than("b1", not_before=TEN)


def test_the_sdk_stays_silent_whatever_the_environment_asks(
    api: BatchesApi, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """At DEBUG the SDK writes headers and bodies into the log."""
    server.plays(answers(200, batch()))
    with caplog.at_level(logging.DEBUG):
        api.retrieve("msgbatch_1")
    assert [
        record for record in caplog.records if record.name.split(".")[0] in {"anthropic", "httpx2", "httpcore2"}
    ] == []


def test_importing_the_package_does_not_import_the_sdk() -> None:
    """Eighty megabytes and seconds are for those who build an api, not for those who catch its errors."""
    script = "import sys, worker.batches_api; sys.exit('anthropic' in sys.modules or 'httpx2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0

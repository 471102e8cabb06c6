import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from api_rig import CALLS, Clock, open_api
from fuzzing import chance, many
from hostile_json import NASTY, damage
from hostile_server import HostileServer
from strict_json import NotStrict, parse

from worker.batches_api import ApiError, BatchesApi, Created, InDoubt, NotFound, NotSent, Refused, Unavailable
from worker.batches_api.conclusions import about, conclude_create, conclude_read, listing
from worker.batches_api.listing import MOST_PAGES, Listing, walk_down, walk_up
from worker.batches_api.wire import Answer
from worker.core.model import RemoteBatch, RequestCounts

BATCH: dict[str, Any] = {
    "id": "msgbatch_1",
    "type": "message_batch",
    "processing_status": "ended",
    "request_counts": {"processing": 0, "succeeded": 3, "errored": 0, "canceled": 0, "expired": 0},
    "created_at": "2026-11-22T10:00:00.250000Z",
    "expires_at": "2026-11-23T10:00:00.250000Z",
    "ended_at": "2026-11-22T11:00:00+00:00",
    "archived_at": None,
    "cancel_initiated_at": None,
    "results_url": "https://elsewhere.invalid/",
}
FAILURE: dict[str, Any] = {
    "type": "error",
    "error": {"type": "invalid_request_error", "message": "requests.3: no", "details": {"error_code": "on_hold"}},
    "request_id": "req_1",
}
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**40, 1.5, 1e308, -0.0, "", "x", "null", [], {}),
    *("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"),
    *("2026-02-30T00:00:00Z", "2026-11-22T24:00:00Z", "2026-11-22T10:00:60Z", "2026-11-22", "10000-01-01T00:00:00Z"),
    *(
        "2026-11-22T10:00:00",
        "2026-11-22 10:00:00Z",
        "2026-11-22T10:00:00.123456789123Z",
        "1795348800",
        "../../x",
        "a b",
    ),
    *("msgbatch_2", "x" * 128, "x" * 129, "é", "\ud800", "\x00", "a\r\nb: c", [[[[]]]], {"a": {"b": {}}}, "x" * 5000),
)
HEADERS = (
    *("retry-after", "date", "request-id", "anthropic-workspace-id", "content-type"),
    *(f"anthropic-ratelimit-requests-{part}" for part in ("limit", "remaining", "reset")),
)
ODD_HEADERS = (
    *("", "0", "-1", "1", "1e400", "1e300", "nan", "inf", "9" * 5000, "0x10", "soon", "x" * 5000, "é", "\u0663", "a,b"),
    *(
        "Sun, 22 Nov 2026 10:00:05 GMT",
        "Sun, 22 Nov 99999999999999999999 10:00:05 GMT",
        "Sun, 31 Feb 2026 10:00:05 GMT",
    ),
    *("Sun, 22 Nov 2026 99:99:99 GMT", "Sun, 22 Nov 0001 00:00:00 +2359", "Sun, 22 Nov 9999 23:59:59 -2359", "1 1 1 1"),
    *(
        "Sun, 22 Nov 2026 10:00:05 +99999999999999",
        "2026-11-22T10:00:00Z",
        "0001-01-01T00:00:00",
        "9999-12-31T23:59:59",
    ),
    *("2026-11-22T10:00:00+99:99", "wrkspc_1", "a b", "req\x00", ";;;=", "text/html; charset=bz2", "22 Nov 26 10:00 Z"),
)
STATUSES = (
    200,
    200,
    200,
    200,
    201,
    204,
    302,
    304,
    400,
    400,
    401,
    404,
    408,
    409,
    413,
    422,
    429,
    499,
    500,
    503,
    529,
    599,
)


def mutate(luck: random.Random, document: dict[str, Any]) -> dict[str, Any]:
    """Change, add or leave out a few members, here or further down."""
    changed = dict(document)
    for _ in range(luck.choice((0, 1, 1, 2))):
        name = luck.choice((*changed, "new_member")) if changed else "new_member"
        below = changed.get(name)
        if isinstance(below, dict) and luck.random() < 0.7:
            changed[name] = mutate(luck, below)
        elif luck.random() < 0.2:
            changed.pop(name, None)
        else:
            changed[name] = luck.choice(ODD_VALUES)
    return changed


def spell(luck: random.Random, document: object) -> bytes:
    """Write a document, one in three with damage."""
    raw = json.dumps(document).encode()
    kind = luck.random()
    if kind < 0.33:
        return damage(luck, raw)
    return luck.choice((*NASTY, b"<html>welcome</html>", b"[" * 100_000)) if kind < 0.36 else raw


def body_of(luck: random.Random) -> bytes:
    """Make the body of an answer: a batch, a page, a failure, or what no API says."""
    kind = luck.random()
    if kind < 0.4:
        return spell(luck, mutate(luck, BATCH))
    if kind < 0.7:
        page = {"data": [mutate(luck, BATCH) for _ in range(luck.choice((0, 1, 3)))], "has_more": luck.random() < 0.5}
        return spell(luck, mutate(luck, page) if luck.random() < 0.5 else page)
    return spell(luck, mutate(luck, FAILURE))


def answer_of(luck: random.Random) -> Answer:
    """Make a complete answer."""
    headers = {name: luck.choice(ODD_HEADERS) for name in luck.sample(HEADERS, k=luck.choice((0, 1, 2, 8)))}
    return Answer(luck.choice(STATUSES), headers, body_of(luck))


def check_remote(remote: RemoteBatch, document: Any) -> None:
    """Hold a remote batch that was believed against the document it came from."""
    assert remote.id == document["id"]
    assert remote.status == document["processing_status"]
    counts = {name: count for name, count in document["request_counts"].items() if name in RequestCounts.__slots__}
    assert all(type(count) is int and count >= 0 for count in counts.values())
    assert remote.counts == RequestCounts(**counts)
    instants = (remote.created_at, remote.expires_at, remote.ended_at, remote.archived_at, remote.cancel_initiated_at)
    assert all(instant is None or math.isfinite(instant) for instant in instants)
    assert (remote.archived_at is None) == (document.get("archived_at") is None)
    assert (remote.ended_at is None) == (document.get("ended_at") is None)


def test_thousands_of_answers_end_in_what_is_documented() -> None:
    """A value that is what the answer says, or one of the kinds of errors; never anything else, never a guess."""
    luck = chance()
    ends: Counter[str] = Counter()
    for _ in range(many(5000)):
        answer = answer_of(luck)
        assert answer.allowance is None or answer.allowance.reset_in >= 0
        assert answer.retry_after is None or 0 <= answer.retry_after <= 3600
        ends[create(answer)] += 1
        ends[read(answer, lambda one: about("msgbatch_1", one))] += 1
        ends[read(answer, listing)] += 1
    assert set(ends) == {
        "Created",
        "InDoubt",
        "Refused",
        "NotSent",
        "RemoteBatch",
        "Listing",
        "Unavailable",
        "NotFound",
    }


def create(answer: Answer) -> str:
    """Conclude a create; a doubt is only ended by a batch or by a definite refusal."""
    try:
        created = conclude_create(answer, last_byte_sent=True)
    except InDoubt:
        assert answer.status not in range(400, 500) or answer.status in {408, 409, 499}
    except Refused:
        assert 400 <= answer.status < 500
        return "Refused"
    else:
        assert isinstance(created, Created)
        check_remote(created.remote, parse_leniently(answer.body))
        return "Created"
    with pytest.raises(NotSent):
        conclude_create(answer, last_byte_sent=False)
    return "NotSent" if answer.status == 200 else "InDoubt"


def read(answer: Answer, what: Callable[[Answer], RemoteBatch | Listing]) -> str:
    """Conclude a read."""
    try:
        value = conclude_read(answer, what)
    except NotFound:
        return "NotFound" if answer.status == 404 else "never"
    except (Refused, Unavailable) as error:
        return type(error).__name__ if answer.status != 404 else "never"
    document = parse_leniently(answer.body)
    if isinstance(value, RemoteBatch):
        assert value.id == "msgbatch_1"
        check_remote(value, document)
    else:
        assert value.complete is not document["has_more"]
        for remote, described in zip(value.batches, document["data"], strict=True):
            check_remote(remote, described)
    return type(value).__name__


def parse_leniently(body: bytes) -> Any:
    """Parse what was believed; members that nobody looks at may hold what a strict parser refuses."""
    try:
        return parse(body)
    except NotStrict:
        return json.loads(body.decode("utf-8", "replace"))


def test_walks_through_any_pages_end() -> None:
    """Complete or with an error, whatever an API makes of its cursors: pages in circles, empty ones, ever new ones."""
    luck = chance()
    ends: Counter[str] = Counter()
    for _ in range(max(1000, many(0) // 10)):
        pages = Maze(luck)
        try:
            found = walk_up(pages, "b0") if luck.random() < 0.5 else walk_down(pages, luck.choice((0.0, 5.0, 1e9)))
        except Unavailable as error:
            ends[error.cause] += 1
            continue
        assert found.complete
        assert len({page.workspace_id for page in pages.shown}) == 1
        ends["whole"] += 1
    assert ends["whole"]
    assert ends["list does not advance"]
    assert ends["workspace changed between pages"]


class Maze:
    """Pages in no order: a few that lead to each other, or new ones for ever."""

    def __init__(self, luck: random.Random) -> None:
        self.shown: list[Listing] = []
        self._luck = luck
        self._pages = [self._page(number) for number in range(luck.choice((1, 3, 10)))]

    def __call__(self, *, before_id: str | None = None, after_id: str | None = None) -> Listing:
        """Show some page."""
        assert before_id is None or after_id is None
        assert len(self.shown) <= MOST_PAGES
        self.shown.append(self._luck.choice(self._pages))
        return self.shown[-1]

    def _page(self, number: int) -> Listing:
        luck = self._luck
        names = [f"b{number * 10 + each}" for each in range(luck.choice((0, 1, 1, 3)))]
        batches = tuple(remote(name, luck.choice((0.0, 5.0, 10.0))) for name in names)
        return Listing(batches, luck.choice(("w1", "w1", "w1", "w2")), 1.0, complete=luck.random() < 0.3)


def remote(name: str, created_at: float) -> RemoteBatch:
    """Describe a remote batch."""
    return RemoteBatch(name, "ended", RequestCounts(succeeded=1), created_at, created_at + 86_400)


@pytest.mark.parametrize("walk", [lambda pages: walk_up(pages, "b0"), lambda pages: walk_down(pages, 0.0)])
def test_a_list_that_always_has_more_is_given_up(walk: Callable[[Any], Listing]) -> None:
    """New batches on every page, for ever: the walk would fill the memory."""
    shown = 0

    def pages(**_cursor: str) -> Listing:
        nonlocal shown
        shown += 1
        return Listing((remote(f"b{shown}", 1.0),), None, None, complete=False)

    with pytest.raises(Unavailable, match="without end"):
        walk(pages)
    assert shown == MOST_PAGES


@pytest.fixture
def server() -> Iterator[HostileServer]:
    """Serve what the test says."""
    server = HostileServer()
    yield server
    server.close()


@pytest.fixture
def api(server: HostileServer) -> Iterator[BatchesApi]:
    """Connect to the server."""
    with open_api(server.url, Clock()) as api:
        yield api


HEAD_LINES = (
    *(b"content-encoding: gzip", b"content-encoding: br, zstd, x", b"content-encoding: \xff", b"content-length: -1"),
    *(b"content-length: 99", b"content-length: 3", b"content-length: 1, 2", b"content-length: x", b"connection: close"),
    *(
        b"transfer-encoding: chunked",
        b"transfer-encoding: gzip, chunked",
        b"transfer-encoding: x",
        b"connection: upgrade",
    ),
    *(
        b"upgrade: h2c",
        b"location: //[",
        b"location: http://\xff/",
        b"location: \x00",
        b"location: /x",
        b"set-cookie: \xff",
    ),
    *(
        b"set-cookie: a=b; expires=99999999999999999999",
        b"content-type: a/b; charset=\x00",
        b"link: <",
        b"no colon",
        b": x",
    ),
    *(b" folded", b"x" * 9000 + b": y", b"name: \x00", b"name: \xff\xfe", b"na\xffme: x", b"www-authenticate: Digest"),
)


def test_thousands_of_raw_answers_end_in_what_is_documented(api: BatchesApi, server: HostileServer) -> None:
    """The same through the real SDK: heads and framings that are none, and damage anywhere."""
    luck = chance()
    raw = b""
    server.play = lambda: [raw]
    ends: Counter[str] = Counter()
    for _ in range(many(3000) // 10):
        name = luck.choice(tuple(CALLS))
        raw = raw_answer(luck)
        try:
            CALLS[name](api)
            ends[name] += 1
        except ApiError as error:
            ends[type(error).__name__] += 1
        except BaseException:
            print(name, raw)
            raise
    assert len(ends) >= 5, ends


def raw_answer(luck: random.Random) -> bytes:
    """Make the bytes of an answer."""
    body = body_of(luck)
    headers = [b"%b: %b" % (name.encode(), luck.choice(ODD_HEADERS).encode()) for name in luck.sample(HEADERS, k=2)]
    headers += luck.choices(HEAD_LINES, k=luck.choice((0, 0, 1, 2)))
    if luck.random() < 0.7:
        headers.append(b"content-length: %d" % len(body))
    status = luck.choice(
        (b"HTTP/1.1 %d OK" % luck.choice(STATUSES), b"HTTP/1.1 200", b"HTTP/1.0 200 OK", b"HTTP/2 200 OK")
    )
    answer = status + b"\r\n" + b"\r\n".join(headers) + b"\r\n\r\n" + body
    return damage(luck, answer) if luck.random() < 0.3 else answer

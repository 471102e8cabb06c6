"""The API's JSON and headers, parsed at the edge. Words we do not know stay strings, shapes we do not know fail."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated, TypeVar

import msgspec

from worker.batches_api.errors import Complaint
from worker.core.model import RemoteBatch, RequestCounts

REMOTE_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")

_MESSAGE_LENGTH = 500
_UNDECODABLE = (msgspec.MsgspecError, ValueError, RecursionError)
_WORD = re.compile(r"[a-z0-9_]{1,64}")
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")

_T = TypeVar("_T")
_LIFETIME = 86_400.0  # expires_at is created_at + 24 h exactly, says the documentation
_LONGEST_HINT = 3600.0  # whoever is told to wait for years would never look again
_Count = Annotated[int, msgspec.Meta(ge=0)]


class NoAnswer(Exception):  # noqa: N818 - says what happened
    """A call ended without a complete answer; the text says how and holds no secret."""


class Unreadable(ValueError):  # noqa: N818 - says what the answer is
    """An answer that is not of the shape we know."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What the account has left of its requests: `remaining` of `limit`, full again in `reset_in` seconds."""

    limit: int
    remaining: int
    reset_in: float


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP answer, whatever its status; header names in any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the call did what it was asked to."""
        return 200 <= self.status < 300  # noqa: PLR2004 - HTTP's own numbers

    @property
    def workspace_id(self) -> str | None:
        """The workspace the key belongs to, where the API says so."""
        return _matching(_ID, self.headers.get("anthropic-workspace-id"))

    @property
    def request_id(self) -> str | None:
        """The API's name for this call."""
        return _matching(_ID, self.headers.get("request-id"))

    @property
    def server_date(self) -> float | None:
        """The API's clock, in Unix seconds."""
        return _http_date(self.headers.get("date"))

    @property
    def allowance(self) -> Allowance | None:
        """The account's requests per minute as the API counts them, over all who use it; None where it does not say."""
        stem = "anthropic-ratelimit-requests-"
        try:
            limit, remaining = int(self.headers[stem + "limit"]), int(self.headers[stem + "remaining"])
            reset_at = datetime.fromisoformat(self.headers[stem + "reset"]).timestamp()
        except (KeyError, ValueError, OverflowError):
            return None
        now = self.server_date
        return None if now is None else Allowance(limit, remaining, max(0.0, reset_at - now))

    @property
    def retry_after(self) -> float | None:
        """How long the API asks us to wait: in seconds, or as a date against its own clock; an hour at most."""
        text = self.headers.get("retry-after")
        if text is None:
            return None
        try:
            seconds = float(text)
        except ValueError:
            until, now = _http_date(text), self.server_date
            seconds = math.nan if until is None or now is None else until - now
        return min(max(0.0, seconds), _LONGEST_HINT) if math.isfinite(seconds) else None


class _Counts(msgspec.Struct, frozen=True):
    processing: _Count = 0
    succeeded: _Count = 0
    errored: _Count = 0
    canceled: _Count = 0
    expired: _Count = 0


class _Batch(msgspec.Struct, frozen=True):
    id: Annotated[str, msgspec.Meta(pattern=f"^{REMOTE_ID.pattern}$")]
    processing_status: str
    request_counts: _Counts
    created_at: datetime
    expires_at: datetime | None = None
    ended_at: datetime | None = None
    archived_at: datetime | None = None
    cancel_initiated_at: datetime | None = None

    def remote(self) -> RemoteBatch:
        counts = self.request_counts
        return RemoteBatch(
            id=self.id,
            status=self.processing_status,
            counts=RequestCounts(
                processing=counts.processing,
                succeeded=counts.succeeded,
                errored=counts.errored,
                canceled=counts.canceled,
                expired=counts.expired,
            ),
            created_at=_unix(self.created_at),
            expires_at=_unix(self.expires_at) if self.expires_at else _unix(self.created_at) + _LIFETIME,
            ended_at=_timestamp(self.ended_at),
            archived_at=_timestamp(self.archived_at),
            cancel_initiated_at=_timestamp(self.cancel_initiated_at),
        )


class _Page(msgspec.Struct, frozen=True):
    data: list[_Batch]
    has_more: bool


def parse_batch(body: bytes) -> RemoteBatch:
    """Parse one remote batch. Raises Unreadable."""
    return _decode(body, _Batch).remote()


def parse_page(body: bytes) -> tuple[tuple[RemoteBatch, ...], bool]:
    """Parse one page of a list, newest first, and whether there is more. Raises Unreadable, also for one bad batch."""
    page = _decode(body, _Page)
    return tuple(batch.remote() for batch in page.data), page.has_more


def parse_complaint(answer: Answer) -> Complaint:
    """Parse an error answer as far as it can be: a proxy in between may answer anything at all."""
    failure = _fields(_plain(answer.body))
    error = _fields(failure.get("error"))
    message = error.get("message")
    return Complaint(
        "answered",
        status=answer.status,
        error_type=_matching(_WORD, error.get("type")),
        error_code=_matching(_WORD, _fields(error.get("details")).get("error_code")),
        message=message[:_MESSAGE_LENGTH] if isinstance(message, str) else None,
        request_id=answer.request_id or _matching(_ID, failure.get("request_id")),
        retry_after=answer.retry_after,
        well_formed=failure.get("type") == "error" and isinstance(error.get("type"), str),
    )


def _plain(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)
    except _UNDECODABLE:
        return None


def _fields(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _decode(body: bytes, shape: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=shape)
    except _UNDECODABLE:
        raise Unreadable("unreadable answer") from None


def _timestamp(instant: datetime | None) -> float | None:
    return None if instant is None else _unix(instant)


def _unix(instant: datetime) -> float:
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()


def _matching(pattern: re.Pattern[str], text: object) -> str | None:
    return text if isinstance(text, str) and pattern.fullmatch(text) else None


def _http_date(text: str | None) -> float | None:
    try:
        return _unix(parsedate_to_datetime(text or ""))
    except (ValueError, OverflowError):
        return None

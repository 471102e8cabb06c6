"""How a call of the API can fail. Which class it is says what is known; the attributes say the rest.

`str()` and `repr()` of an error are safe to log: they never hold what the API wrote in prose, since that may quote a
prompt. The prose, shortened, is in `.message`, for judging and for dead letters only.
"""

# ruff: noqa: N818 - each error is named after what is known about the call

from dataclasses import dataclass

from worker.core.errors import Doubt

_RATE_LIMITED = 429


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is known about a failure; `cause` is in our own words and `retry_after` in seconds."""

    cause: str
    status: int | None = None
    error_type: str | None = None
    error_code: str | None = None
    message: str | None = None
    request_id: str | None = None
    retry_after: float | None = None
    well_formed: bool = False


class ApiError(Exception):
    """The root of all failed calls; raised only as one of its kinds below."""

    label = "unavailable"

    def __init__(self, complaint: Complaint) -> None:
        self.cause = complaint.cause
        self.status = complaint.status
        self.error_type = complaint.error_type
        self.error_code = complaint.error_code
        self.message = complaint.message
        self.request_id = complaint.request_id
        self.retry_after = complaint.retry_after
        words = [complaint.cause, complaint.status, complaint.error_type, complaint.error_code, complaint.request_id]
        super().__init__(" ".join(str(word) for word in words if word is not None))

    @property
    def outcome(self) -> str:
        """The label under which the call is counted, of a closed set."""
        return "rate_limited" if self.status == _RATE_LIMITED else self.label


class NotSent(ApiError):
    """The create made nothing: it failed before the last byte of its body was handed over."""

    label = "not_sent"
    last_byte_sent = False


class Refused(ApiError):
    """The API said no, and that is definite: nothing was created or changed."""

    label = "refused"

    def __init__(self, complaint: Complaint, *, last_byte_sent: bool = True) -> None:
        super().__init__(complaint)
        self.last_byte_sent = last_byte_sent


class InDoubt(ApiError):
    """The last byte of a create was handed over and no definite answer came: there may be a remote batch or not."""

    label = "in_doubt"
    last_byte_sent = True

    def __init__(self, complaint: Complaint, doubt: Doubt) -> None:
        super().__init__(complaint)
        self.doubt = doubt


class NotFound(ApiError):
    """No such remote batch in this workspace, or it has no results (yet)."""

    label = "not_found"


class Unavailable(ApiError):
    """A call could not be answered now; nothing may be concluded from it, and it may be tried again."""

    label = "unavailable"


class Truncated(ApiError):
    """The results ended before their end, or have none; what was read of them proves nothing.

    Where the connection was `broken_off`, the next reading may be whole; else it may well be the same again.
    """

    label = "truncated"

    def __init__(self, complaint: Complaint, *, broken_off: bool = False) -> None:
        super().__init__(complaint)
        self.broken_off = broken_off

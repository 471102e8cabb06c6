"""What may be concluded from the end of a call: an answer of any status, or none at all."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from worker.batches_api.errors import ApiError, Complaint, InDoubt, NotFound, NotSent, Refused, Unavailable
from worker.batches_api.listing import Listing
from worker.batches_api.wire import Answer, Unreadable, parse_batch, parse_complaint, parse_page
from worker.batches_api.withheld import WithheldBody
from worker.core.errors import Doubt, is_definite, judge_doubt
from worker.core.model import RemoteBatch

_T = TypeVar("_T")

_NOT_FOUND = 404
_RATE_LIMITED = 429


@dataclass(frozen=True, slots=True)
class Created:
    """A create that was answered."""

    remote: RemoteBatch
    workspace_id: str | None
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Retrieved:
    """A remote batch, and in how many seconds the API would like to be asked again."""

    remote: RemoteBatch
    retry_after: float | None


def conclude_create(answer: Answer, *, last_byte_sent: bool) -> Created:
    """Judge the answer to a create. Raises NotSent, Refused, InDoubt."""
    if answer.ok and last_byte_sent:
        try:
            return Created(parse_batch(answer.body), answer.workspace_id, answer.request_id)
        except Unreadable as err:
            raise InDoubt(_unreadable(answer, err), Doubt.LOST) from None
    complaint = parse_complaint(answer)
    if is_definite(answer.status):
        raise Refused(complaint, last_byte_sent=last_byte_sent)
    if not last_byte_sent:
        raise NotSent(complaint)
    raise InDoubt(complaint, judge_doubt(answer.status, well_formed=complaint.well_formed))


def give_up(withheld: WithheldBody, cause: str) -> NoReturn:
    """Raise what a create without an answer amounts to: InDoubt, NotSent, or our own side's exception, unchanged.

    Call it outside of any handler, or that exception gets a context it never had.
    """
    if withheld.last_byte_sent:
        raise InDoubt(Complaint(cause), judge_doubt(None, well_formed=False))
    failure, withheld.failure = withheld.failure, None
    if failure is None:
        raise NotSent(Complaint(cause))
    try:
        raise failure
    finally:
        del failure  # or exception and frame keep each other, and a piece of the body, alive


def conclude_read(answer: Answer, parse: Callable[[Answer], _T]) -> _T:
    """Parse the answer of any other call. Raises NotFound, Refused, Unavailable."""
    if not answer.ok:
        raise declined(answer)
    try:
        return parse(answer)
    except Unreadable as err:
        raise Unavailable(_unreadable(answer, err)) from None


def declined(answer: Answer) -> ApiError:
    """Name the error that an answer stands for which is none of the good ones, to any call but a create."""
    complaint = parse_complaint(answer)
    if answer.status == _NOT_FOUND:
        return NotFound(complaint)
    if is_definite(answer.status) and answer.status != _RATE_LIMITED:
        return Refused(complaint)
    return Unavailable(complaint)


def about(remote_id: str, answer: Answer) -> RemoteBatch:
    """Parse an answer about that remote batch. Raises Unreadable, also if it is about another one."""
    remote = parse_batch(answer.body)
    if remote.id != remote_id:
        raise Unreadable("answer about another batch")
    return remote


def listing(answer: Answer) -> Listing:
    """Parse one page of a list. Raises Unreadable."""
    batches, has_more = parse_page(answer.body)
    return Listing(batches, answer.workspace_id, answer.server_date, complete=not has_more)


def _unreadable(answer: Answer, err: Unreadable) -> Complaint:
    return Complaint(str(err), status=answer.status, request_id=answer.request_id)

"""The calls of the Message Batches API that batchmill makes, and what may be concluded from each of their ends."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from worker.batches_api.budget import Budget, Clock
from worker.batches_api.conclusions import (
    Created,
    Retrieved,
    about,
    conclude_create,
    conclude_read,
    declined,
    give_up,
    listing,
)
from worker.batches_api.errors import ApiError, Complaint, NotFound, Refused, Truncated, Unavailable
from worker.batches_api.lines import split_lines
from worker.batches_api.listing import PAGE_SIZE, Listing, walk_down, walk_up
from worker.batches_api.wire import REMOTE_ID, Answer, NoAnswer
from worker.batches_api.withheld import Body, WithheldBody
from worker.core.model import RemoteBatch

if TYPE_CHECKING:
    from worker.batches_api.connection import Download

_T = TypeVar("_T")

_ANTHROPIC = "https://api.anthropic.com"
_KEY = re.compile(r"[!-~]+")
_BAD_REQUEST = 400
CLOCK_DOUBT = 600.0
"""The clocks of whoever dated the cursor and of whoever dated the batches may differ by so much, in seconds."""


class BatchesApi:
    """One account of the Message Batches API; all methods may be called from any thread.

    No call is ever repeated in here. `observe(operation, outcome, seconds)` hears of every call, `waited(seconds)` of
    every wait for the shared `requests_per_minute`. Timeouts are in seconds; `answer_timeout` is for the answer to a
    create. An empty `base_url` is Anthropic's own. Remote ids that are no such ids raise ValueError.
    """

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str,
        api_version: str,
        betas: tuple[str, ...],
        requests_per_minute: int,
        answer_timeout: float,
        clock: Clock,
        observe: Callable[[str, str, float], None],
        waited: Callable[[float], None],
    ) -> None:
        # Importing the SDK costs seconds and 80 MB: only a process that really calls the API pays that.
        from worker.batches_api.connection import Connection  # noqa: PLC0415 - seconds and 80 MB, see above

        # What no header can carry would come back in the text of the HTTP library's exception.
        if not _KEY.fullmatch(api_key):
            raise ValueError("the API key is empty or has characters no key has")
        self._clock = clock
        self._observe = observe
        self._budget = Budget(requests_per_minute=requests_per_minute, clock=clock, waited=waited)
        self._connection = Connection(
            api_key=api_key,
            base_url=base_url or _ANTHROPIC,
            api_version=api_version,
            betas=betas,
            answer_timeout=answer_timeout,
            clock=clock,
        )

    def create(self, body: Body, *, before_last_byte: Callable[[], None]) -> Created:
        """Post a batch; once all but the last byte is with the system, call `before_last_byte`, then send that byte.

        Raises NotSent or Refused where nothing was created, InDoubt where that is unknown. What `before_last_byte` or
        `body` raise comes out unchanged, and nothing was created. Anything else (an exception from another thread,
        say) says nothing: after `before_last_byte` has returned it leaves the batch in doubt.
        """
        self._budget.take()
        withheld = WithheldBody(body, before_last_byte=before_last_byte, clock=self._clock)
        with self._observed("create", lambda: "in_doubt" if withheld.last_byte_sent else "not_sent"):
            answer, cause = None, ""
            try:
                answer = self._connection.create(withheld, body.nbytes)
            except NoAnswer as err:
                cause = str(err)
            if answer is None:
                give_up(withheld, cause)
            self._budget.heed(answer.allowance)
            return conclude_create(answer, last_byte_sent=withheld.last_byte_sent)

    def retrieve(self, remote_id: str) -> Retrieved:
        """Look at one remote batch. Raises NotFound, Refused, Unavailable."""
        path = _path(remote_id)
        return self._call(
            "retrieve",
            lambda: self._connection.get(path, {}),
            lambda answer: Retrieved(about(remote_id, answer), answer.retry_after),
        )

    def newest(self) -> Listing:
        """List the newest remote batches, one page of up to 1,000. Raises NotFound, Refused, Unavailable."""
        return self._page()

    def newer_than(self, head: str | None, *, not_before: float) -> Listing:
        """List every batch newer than the batch `head`, which was the newest at `not_before` (Unix seconds).

        Without a head, or if it was deleted since: everything created since `not_before`, less ten minutes.
        Raises NotFound, Refused, Unavailable; a walk that was not finished concludes nothing.
        """
        if head is not None:
            try:
                newer = walk_up(self._page, head)
                # An API that takes an unknown cursor for an empty rest would make every batch look absent.
                self.retrieve(head)
            except NotFound:
                pass
            except Refused as err:
                if err.status != _BAD_REQUEST:
                    raise
            else:
                return newer
        return walk_down(self._page, not_before - CLOCK_DOUBT)

    def cancel(self, remote_id: str) -> RemoteBatch:
        """Ask for the end of a batch; what already runs completes. Raises NotFound, Refused, Unavailable."""
        path = _path(remote_id, "/cancel")
        return self._call("cancel", lambda: self._connection.post(path), lambda answer: about(remote_id, answer))

    def delete(self, remote_id: str) -> None:
        """Delete an ended batch and its results for good. Raises NotFound, Refused, Unavailable."""
        path = _path(remote_id)
        self._call("delete", lambda: self._connection.delete(path), lambda _: None)

    @contextmanager
    def results(self, remote_id: str) -> Iterator[Iterator[bytes]]:
        """Stream the result lines of an ended batch, raw, without newlines, in no order.

        Entering raises NotFound, Refused, Unavailable; iterating raises Truncated. Whether all lines came is for the
        caller to prove: a stream cut between two lines may end like a whole one.
        """
        path = _path(remote_id, "/results")
        self._budget.take()
        otherwise = "unavailable"
        with self._observed("results", lambda: otherwise):
            try:
                opened = self._connection.download(path)
            except NoAnswer as err:
                raise Unavailable(Complaint(str(err))) from None
            if isinstance(opened, Answer):
                raise declined(opened)
            otherwise = "ok"
            try:
                yield _lines(opened)
            finally:
                opened.close()

    def set_requests_per_minute(self, requests_per_minute: int) -> None:
        """Change the shared budget from now on. Raises ValueError below 1."""
        self._budget.set_requests_per_minute(requests_per_minute)

    def close(self) -> None:
        """Close every connection."""
        self._connection.close()

    def _page(self, *, before_id: str | None = None, after_id: str | None = None) -> Listing:
        cursors = {"before_id": before_id, "after_id": after_id}
        params = {"limit": PAGE_SIZE, **{name: cursor for name, cursor in cursors.items() if cursor is not None}}
        return self._call("list", lambda: self._connection.get("", params), listing)

    def _call(self, operation: str, ask: Callable[[], Answer], conclude: Callable[[Answer], _T]) -> _T:
        self._budget.take()
        with self._observed(operation, lambda: "unavailable"):
            try:
                answer = ask()
            except NoAnswer as err:
                raise Unavailable(Complaint(str(err))) from None
            self._budget.heed(answer.allowance)
            return conclude_read(answer, conclude)

    @contextmanager
    def _observed(self, operation: str, otherwise: Callable[[], str]) -> Iterator[None]:
        """Time a call; `otherwise` is its outcome when it ends in something that is no ApiError."""
        started = self._clock.monotonic()
        outcome = "ok"
        try:
            yield
        except ApiError as err:
            outcome = err.outcome
            if outcome == "rate_limited" and err.retry_after is not None:
                self._budget.pause(err.retry_after)
            raise
        except BaseException:
            outcome = otherwise()
            raise
        finally:
            self._observe(operation, outcome, self._clock.monotonic() - started)


def _lines(opened: "Download") -> Iterator[bytes]:
    try:
        yield from split_lines(opened.chunks())
    except NoAnswer as err:
        raise Truncated(Complaint(str(err)), broken_off=True) from None


def _path(remote_id: str, tail: str = "") -> str:
    # An id is a part of a URL here: one with a slash or a dot in it would reach another endpoint.
    if not REMOTE_ID.fullmatch(remote_id):
        raise ValueError("not a remote batch id")
    return f"/{remote_id}{tail}"

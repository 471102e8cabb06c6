"""Planted bugs: each is one mistake that somebody could make in the real code. The simulation has to find them all.

A mutation is a list of exchanges (of attributes of the shipped code, or of lines of its scripts) that hold for a run.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import connection
import server

from worker import drainer, reconciler, submitter
from worker.batches_api import (
    ApiError,
    BatchesApi,
    Complaint,
    InDoubt,
    Listing,
    NotSent,
    api,
    conclusions,
    withheld,
)
from worker.batches_api.listing import walk_down
from worker.batches_api.wire import NoAnswer
from worker.core import errors, reconcile
from worker.core.account import Account
from worker.core.lifecycle import Event
from worker.ledger.barrier import WaitAofBarrier
from worker.ledger.batches import NEVER, Batches
from worker.ledger.scripts import Script

Exchange = tuple[Any, str, Any]


@dataclass(frozen=True)
class Mutation:
    """A planted bug: its name, what is exchanged in Python, and what (script, text, other text) in Lua."""

    name: str
    exchanges: Sequence[Exchange] = ()
    lua: Sequence[tuple[str, str, str]] = ()
    first: int = 0
    """Where to begin the search, so that a rare one is found soon; it has to be found within some hundred seeds."""

    @contextlib.contextmanager
    def planted(self) -> Iterator[None]:
        """Let the bug be there for a while."""
        kept = [(place, name, place.__dict__[name]) for place, name, _ in self.exchanges]
        for place, name, other in self.exchanges:
            setattr(place, name, other)
        scripts = server.scripts_of_the_world
        if self.lua:
            server.scripts_of_the_world = lambda *, flags=True: self._rewrite(scripts(flags=flags))  # type: ignore[assignment]
        try:
            yield
        finally:
            server.scripts_of_the_world = scripts
            for place, name, shipped in kept:
                setattr(place, name, shipped)

    def _rewrite(self, scripts: dict[str, Script]) -> dict[str, Script]:
        rewritten = dict(scripts)
        for name, text, other in self.lua:
            script = rewritten[name]
            if text not in script.text:
                raise LookupError(f"{self.name}: {name}.lua no longer says {text!r}")
            rewritten[name] = Script(name, script.text.replace(text, other), script.keys, script.args)
        return rewritten


def _post_blindly(self: Any, posted: Any, *_others: Any) -> None:
    self._ledger.batches.advance(posted, Event.REFUSE, delay=1.0, unposted=posted.count)


_create = BatchesApi.create


def _write_behind(self: Any, body: Any, *, before_last_byte: Callable[[], None]) -> Any:
    try:
        created = _create(self, body, before_last_byte=lambda: None)
    except InDoubt:
        before_last_byte()
        raise
    before_last_byte()
    return created


_newer_than = BatchesApi.newer_than


def _errors_are_emptiness(self: Any, head: Any, *, not_before: float) -> Listing:
    try:
        return _newer_than(self, head, not_before=not_before)
    except ApiError:
        return Listing((), None, None, complete=True)


def _by_our_own_clock(self: Any, _head: Any, *, not_before: float) -> Listing:
    return walk_down(self._page, not_before)


_reconcile = reconciler.Reconciler._reconcile


def _since_our_own_time(self: Any, batch: Any, claim: Any) -> None:
    _reconcile(self, replace(batch, head_at=batch.posted_at), claim)


def _count_from_sealing(self: Any, batch: Any, claim: Any) -> None:
    _reconcile(self, replace(batch, doubt_at=batch.sealed_at), claim)


_conclude = reconcile.conclude


def _as_if_exclusive(batch: Any, listed: Any, **named: Any) -> Any:
    return _conclude(batch, listed, **named | {"exclusive": True})


def _keep_the_wrong_one(self: Any, batch: Any, claim: Any, _account: Any) -> None:
    self._ledger.batches.advance(batch, Event.HOLD, fence=claim.fence, delay=NEVER, reason="foreign")


def _note_first(self: Any, batch: Any, claim: Any, opened: Any) -> None:
    for name in list(opened._open):
        self._ledger.batches.commit(batch, name, fence=claim.fence)
    opened.commit()


_connect = connection.WorldConnection.create


def _client_retries(self: Any, body: Any, nbytes: int) -> Any:
    received: list[Any] = []
    receive = self._receive

    def remember(*sent: Any) -> Any:
        received.append(receive(*sent))
        return received[-1]

    self._receive = remember
    try:
        return _connect(self, body, nbytes)
    except NoAnswer:
        if received:
            self._account.commit(received[-1])
        raise
    finally:
        self._receive = receive


def _no_delivery_failed(self: Any, batch: Any, claim: Any, _deliveries: Any) -> None:
    if self._ledger.batches.advance(batch, Event.DELIVER, fence=claim.fence, delay=None) == "OK":
        self._ledger.batches.advance(replace(batch, state="delivered"), None, fence=claim.fence)


def _unreadable_is_no(self: Any, body: Any, *, before_last_byte: Callable[[], None]) -> Any:
    try:
        return _create(self, body, before_last_byte=before_last_byte)
    except InDoubt as error:
        if error.cause == "unreadable answer":
            raise NotSent(Complaint("unreadable answer")) from None
        raise


_settle = drainer.Drainer._settle


def _delete_first(self: Any, batch: Any, *others: Any) -> None:
    if self._config.poll.delete_when_settled and batch.remote_id is not None:
        self._delete_remote(batch)
    _settle(self, batch, *others)


class _Patient(submitter.Intent):
    def __init__(self, **named: Any) -> None:
        super().__init__(**named | {"good_for": inf})


ALL_COMPLETE = property(lambda _: True)

MUTATIONS = (
    Mutation("a lost answer is sent again at once", [(submitter.Submitter, "_doubt", _post_blindly)]),
    Mutation("the intent is written after the last byte", [(BatchesApi, "create", _write_behind)]),
    Mutation("absence needs no horizon", [(reconciler.Reconciler, "_horizon", lambda *_: 0.0)]),
    Mutation("the horizon counts from the seal", [(reconciler.Reconciler, "_reconcile", _count_from_sealing)]),
    Mutation(
        "listings go by our own clock",
        [
            (BatchesApi, "newer_than", _by_our_own_clock),
            (reconciler.Reconciler, "_reconcile", _since_our_own_time),
            (api, "CLOCK_DOUBT", 0.0),
        ],
    ),
    Mutation(
        "a failed listing counts as an empty one", [(BatchesApi, "newer_than", _errors_are_emptiness)], first=1320
    ),
    Mutation(
        "a shared workspace adopts by count",
        [(reconciler, "conclude", _as_if_exclusive), (drainer.Drainer, "_not_added_up", _keep_the_wrong_one)],
    ),
    Mutation("the client library retries", [(connection.WorldConnection, "create", _client_retries)]),
    Mutation("the intent is not durable", [(WaitAofBarrier, "durably", lambda _, write: write(None))]),
    Mutation(
        "a frozen process sends its last byte",
        [(withheld, "_STALE_AFTER", inf), (submitter, "Intent", _Patient)],
    ),
    Mutation("a commit is noted before it is made", [(drainer.Drainer, "_commit", _note_first)]),
    Mutation("delivered although a sink failed", [(drainer.Drainer, "_sinks_failed", _no_delivery_failed)]),
    Mutation("results need not be complete", [(Account, "complete", ALL_COMPLETE)]),
    Mutation(
        "known batches are candidates",
        [(Batches, "owners", lambda *_: set())],
        [("adopt", 'return "OWNED"', "")],
        first=600,
    ),
    Mutation("a 500 is a definite no", [(conclusions, "is_definite", lambda status: 400 <= (status or 0) < 600)]),
    Mutation("a 409 is a definite no", [(errors, "_UNDECIDED_STATUSES", frozenset())]),
    Mutation("an unreadable answer is a no", [(BatchesApi, "create", _unreadable_is_no)]),
    Mutation("a seal does not compare the cursor", lua=[("seal", '(marks[1] or "0-0") ~= seen', "false")]),
    Mutation("an intent does not ask for the incarnation", lua=[("submit", "marks[1] ~= run_id", "false")], first=300),
    Mutation(
        "closed although prompts are left",
        lua=[("finish", '> 0 then return "LEFT"', '< 0 then return "LEFT"')],
        first=2000,
    ),
    Mutation(
        "the remote batch is deleted before all is settled", [(drainer.Drainer, "_settle", _delete_first)], first=180
    ),
    Mutation(
        "an intent overwrites whatever is on record, however late",
        [(withheld, "_STALE_AFTER", inf), (submitter, "Intent", _Patient)],
        [
            ("submit", 'held[1] ~= "sealed" or held[2] ~= seen_attempt', "false"),
            ("submit", 'redis.call("HGET", fences, uid) ~= fence', "false"),
        ],
    ),
)

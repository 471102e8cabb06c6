"""Rulings: what one result line means for its prompt.

A ruling depends on the line, the prompt and what the batch fixed when it ended, never on the time of day: a batch
that is drained twice is ruled twice the same.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any

import msgspec

from worker.core.errors import Fate, judge_row
from worker.core.model import Batch, Prompt, ResultType

MOST_AT_ONCE = 8 * 1024 * 1024
"""Bytes of lines that are decoded together: together they are copied, and one may have 64 MB."""

_SEAM = b',"batchmill: between two lines",'

UNKNOWN_ATTEMPTS = 2
"""How often an error nobody knows is tried: its cause may be the prompt itself."""


Tokens = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""A number of tokens; what is below nothing, or beyond what a double counts, is none."""


class CacheCreation(msgspec.Struct, frozen=True, gc=False):
    """Tokens written to the cache, by how long they live."""

    ephemeral_5m_input_tokens: Tokens = 0
    ephemeral_1h_input_tokens: Tokens = 0


class TokenUsage(msgspec.Struct, frozen=True, gc=False):
    """The `usage` object of a message, as far as money depends on it."""

    input_tokens: Tokens | None = 0
    output_tokens: Tokens | None = 0
    cache_read_input_tokens: Tokens | None = 0
    cache_creation_input_tokens: Tokens | None = 0
    cache_creation: CacheCreation | None = None


class Message(msgspec.Struct, frozen=True, gc=False):
    """The part of an answer that is not passed through unread."""

    model: str = "unknown"
    stop_reason: str | None = None
    usage: TokenUsage | None = None


class InnerError(msgspec.Struct, frozen=True, gc=False):
    """`result.error.error`: the error itself, doubly nested by the API; an odd message does not hide its type."""

    type: Any = None
    message: Any = None


class OuterError(msgspec.Struct, frozen=True, gc=False):
    """`result.error`: an envelope whose own type is always `error`."""

    error: InnerError | None = None


class Result(msgspec.Struct, frozen=True, gc=False):
    """One result, as far as it is looked at."""

    type: str
    message: Message | None = None
    error: OuterError | None = None


class Line(msgspec.Struct, frozen=True, gc=False):
    """One line of the results: whose it is, and the result as raw bytes."""

    custom_id: str
    result: msgspec.Raw


class Ruling(msgspec.Struct, frozen=True, gc=False):
    """What becomes of a prompt: `fate` is `""`, `retry` or `bury`; a retried one gets no row and `attempt`."""

    fate: str = ""
    reason: str = ""
    attempt: int = 1
    parks: bool = False


SETTLED = Ruling()

_RESULT_TYPES = frozenset(ResultType)

_WORD = re.compile(r"[a-z0-9_]{1,64}")


class _Kind(msgspec.Struct, frozen=True, gc=False):
    type: str


class _Failed(msgspec.Struct, frozen=True, gc=False):
    error: OuterError | None = None


_decode_line = msgspec.json.Decoder(Line).decode
_decode_lines = msgspec.json.Decoder(list[Line | str]).decode
_decode_result = msgspec.json.Decoder(Result).decode
_decode_results = msgspec.json.Decoder(list[Result]).decode
_decode_kind = msgspec.json.Decoder(_Kind).decode
_decode_failed = msgspec.json.Decoder(_Failed).decode
_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class UnreadableLineError(Exception):
    """This is no result line; it says nothing about any prompt."""


def read_lines(page: Sequence[bytes]) -> list[Line]:
    """Read a page of lines, in one go if they are as they should be. Raises UnreadableLineError."""
    if len(page) > 1 and sum(map(len, page)) <= MOST_AT_ONCE:
        with suppress(*_UNDECODABLE):
            return _read_at_once(page)
    return [read_line(raw) for raw in page]


def _read_at_once(page: Sequence[bytes]) -> list[Line]:
    """Read lines as one array, with a seam between each two, and see that they part where the seams are.

    With commas alone, two lines that are torn and one that holds two would make up for each other.
    """
    whole = b"[%b]" % _SEAM.join(page)
    str(whole, "utf-8")  # the decoder passes over what it need not make
    items = _decode_lines(whole)
    lines = [item for item in items[::2] if isinstance(item, Line)]
    if not len(page) == len(lines) == whole.count(_SEAM) + 1 == (len(items) + 1) / 2:
        raise msgspec.DecodeError("lines that do not part where they should")
    return lines


def read_line(raw: bytes) -> Line:
    """Read one line. Raises UnreadableLineError, also where its text is no UTF-8 anywhere: rows take it along."""
    try:
        str(raw, "utf-8")  # the decoder passes over what it need not make
        return _decode_line(raw)
    except _UNDECODABLE:
        raise UnreadableLineError from None


def read_results(raws: Sequence[msgspec.Raw]) -> list[Result]:
    """Read results, each of them one JSON value, as far as they go: in one go if they are as they should be."""
    if len(raws) > 1 and sum(memoryview(raw).nbytes for raw in raws) <= MOST_AT_ONCE:
        with suppress(*_UNDECODABLE):
            return _decode_results(b"[%b]" % b",".join(raws))
    return [read_result(raw) for raw in raws]


def read_result(raw: bytes | msgspec.Raw) -> Result:
    """Read a result as far as it goes: of what type it is counts, whatever the rest of it looks like.

    Had it to be read as a whole, an odd number among the tokens would bury a prompt that was answered and paid for.
    """
    try:
        return _decode_result(raw)
    except _UNDECODABLE:
        pass
    try:
        kind = _decode_kind(raw).type
    except _UNDECODABLE:
        return Result(type="unreadable")
    try:
        return Result(type=kind, error=_decode_failed(raw).error)
    except _UNDECODABLE:
        return Result(type=kind)


def rule(result: Result, prompt: Prompt, batch: Batch) -> Ruling:
    """Rule on one result line."""
    if result.type == ResultType.SUCCEEDED:
        return SETTLED
    if result.type not in _RESULT_TYPES:
        return Ruling("bury", "unknown_result", prompt.attempt)
    inner = (result.error.error if result.error else None) or InnerError()
    kind = inner.type if isinstance(inner.type, str) and _WORD.fullmatch(inner.type) else None
    fate = judge_row(result.type, kind, inner.message if isinstance(inner.message, str) else None)
    reason = kind or result.type
    match fate:
        case Fate.PARK:
            return Ruling("retry", "account", prompt.attempt, parks=True)
        case Fate.RETRY | Fate.UNKNOWN:
            most = batch.max_attempts if fate is Fate.RETRY else min(batch.max_attempts, UNKNOWN_ATTEMPTS)
            late = prompt.deadline is not None and batch.judged_at is not None and batch.judged_at >= prompt.deadline
            if prompt.attempt < most and not late:
                return Ruling("retry", reason, prompt.attempt + 1)
    return Ruling("bury", reason, prompt.attempt)

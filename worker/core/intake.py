"""The door: what makes an entry of a lane a usable prompt, and the words for what does not.

JSON is read strictly (RFC 8259, UTF-8, no NaN, no lone surrogates, no numbers beyond a double), because one
malformed prompt in a body would cost its whole batch.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from worker.core.custom_id import PREFIX_LENGTH
from worker.core.model import Prompt

MAX_DEPTH = 128
MAX_ID_BYTES = 256
MAX_METADATA_BYTES = 65_536
MAX_ENTRY_ID = 64 - PREFIX_LENGTH
"""What a custom_id of 64 characters leaves; ids that Redis makes with `*` have at most 34."""

ATTEMPT = b"batchmill.attempt"
ENQUEUED_AT = b"batchmill.enqueued_at"
"""Fields that batchmill adds itself when it puts a prompt back into its lane."""

FIELDS = ("params", "id", "metadata", "deadline", "reply_to", "traceparent")
"""What a producer may say about a prompt; all other fields are its own business."""

_REPLY_TO = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_TRACEPARENT = re.compile(rb"[\x21-\x7e]{1,128}")
_INSTANT = re.compile(rb"\d{1,12}(\.\d{1,9})?")
_ATTEMPT = re.compile(rb"\d{1,4}")  # int() refuses thousands of digits
# Possessive, and a string without an end is one too: otherwise 64 KiB of escaped quotes take minutes.
_BRACKET = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]')
_decode = msgspec.json.Decoder().decode
# The shortest whole number beyond a double has 309 digits: among every 154th byte it shows as two digits in a row.
_STRIDE = 154
_DIGITS = re.compile(rb"\d\d")


class Flaw(StrEnum):
    """Why an entry cannot be used. Each value is a dead letter's reason and a metric label."""

    EMPTY = "empty"
    NO_PARAMS = "no_params"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    NO_MODEL = "no_model"
    NO_MAX_TOKENS = "no_max_tokens"
    NO_MESSAGES = "no_messages"
    STREAM = "stream"
    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    BAD_ID = "bad_id"
    BAD_METADATA = "bad_metadata"
    BAD_DEADLINE = "bad_deadline"
    BAD_REPLY_TO = "bad_reply_to"
    BAD_TRACEPARENT = "bad_traceparent"
    BAD_ENTRY_ID = "bad_entry_id"
    REFUSED = "refused"  # the API would not take a batch because of this prompt
    ABANDONED = "abandoned"  # its batch was given up by an operator


EXPLANATIONS: dict[Flaw, str] = {
    Flaw.EMPTY: "the entry has no field that batchmill knows; enqueue with a field named params",
    Flaw.NO_PARAMS: "the entry has no field named params",
    Flaw.NOT_UTF8: "params is not UTF-8",
    Flaw.NOT_JSON: "params is not valid JSON",
    Flaw.NOT_AN_OBJECT: "params is not a JSON object",
    Flaw.NO_MODEL: "params has no model",
    Flaw.NO_MAX_TOKENS: "params has no max_tokens",
    Flaw.NO_MESSAGES: "params has no messages",
    Flaw.STREAM: "params asks for a stream; a batch cannot stream",
    Flaw.TOO_LARGE: "params is larger than the lane's max_bytes",
    Flaw.TOO_DEEP: f"params is nested deeper than {MAX_DEPTH}",
    Flaw.BAD_ID: f"id is not 1-{MAX_ID_BYTES} bytes of UTF-8",
    Flaw.BAD_METADATA: f"metadata is not JSON of at most {MAX_METADATA_BYTES} bytes",
    Flaw.BAD_DEADLINE: "deadline is not a Unix time in seconds",
    Flaw.BAD_REPLY_TO: "reply_to does not match [A-Za-z0-9._:-]{1,128}",
    Flaw.BAD_TRACEPARENT: "traceparent is not 1-128 printable ASCII characters",
    Flaw.BAD_ENTRY_ID: "the entry has an id of its producer's making, too long for a custom_id; XADD with *",
    Flaw.REFUSED: "the API refuses every batch that holds this prompt",
    Flaw.ABANDONED: "an operator gave up the batch that held this prompt",
}

_REQUIRED = (("model", Flaw.NO_MODEL), ("max_tokens", Flaw.NO_MAX_TOKENS), ("messages", Flaw.NO_MESSAGES))


@dataclass(frozen=True, slots=True)
class Unusable:
    """An entry that will become a dead letter and an `errored` row. `id` is the producer's, where it is readable."""

    entry_id: str
    flaw: Flaw
    id: str


def entry_instant(entry_id: str) -> float:
    """Return when Redis took the entry in, in Unix seconds (the first half of a stream id is milliseconds)."""
    return int(entry_id.partition("-")[0]) / 1000


def check_params(params: bytes, max_bytes: int) -> Flaw | None:
    """Say what is wrong with a producer's `params`, or None."""
    if len(params) > max_bytes:
        return Flaw.TOO_LARGE
    if params.count(b"[") + params.count(b"{") > MAX_DEPTH and _depth(params) > MAX_DEPTH:
        return Flaw.TOO_DEEP
    try:
        value = _read_json(params)
    except RecursionError:
        return Flaw.TOO_DEEP
    except (msgspec.MsgspecError, UnicodeDecodeError, OverflowError):
        return Flaw.NOT_JSON if _is_utf8(params) else Flaw.NOT_UTF8
    if not isinstance(value, dict):
        return Flaw.NOT_AN_OBJECT
    for key, flaw in _REQUIRED:
        if value.get(key) is None:
            return flaw
    return Flaw.STREAM if value.get("stream") not in (None, False) else None


def read_prompt(entry_id: str, fields: Mapping[bytes, bytes], max_bytes: int) -> Prompt | Unusable:
    """Read one stream entry; whatever its bytes are, the answer is a prompt or the reason why it is none.

    `max_bytes` bounds `params`. Fields that batchmill does not know are ignored.
    """
    name = fields.get(b"id")
    readable = _read_text(name, MAX_ID_BYTES) if name is not None else entry_id
    flaw = _flaw(fields, max_bytes) if readable is not None else Flaw.BAD_ID
    if len(entry_id) > MAX_ENTRY_ID:
        flaw = Flaw.BAD_ENTRY_ID
    if flaw is not None or readable is None:
        return Unusable(entry_id, flaw or Flaw.BAD_ID, readable or entry_id)
    return describe_prompt(entry_id, fields, readable)


def describe_prompt(entry_id: str, fields: Mapping[bytes, bytes], name: str) -> Prompt:
    """Build the prompt of an entry whose fields have been checked; `params` may be left out of `fields`."""
    deadline = fields.get(b"deadline")
    reply_to = fields.get(b"reply_to")
    traceparent = fields.get(b"traceparent")
    enqueued = fields.get(ENQUEUED_AT)
    attempt = fields.get(ATTEMPT)
    return Prompt(
        entry_id=entry_id,
        id=name,
        params=fields.get(b"params", b""),
        attempt=int(attempt) if attempt and _ATTEMPT.fullmatch(attempt) else 1,
        enqueued_at=float(enqueued) if enqueued and _INSTANT.fullmatch(enqueued) else entry_instant(entry_id),
        metadata=fields.get(b"metadata"),
        deadline=float(deadline) if deadline else None,
        reply_to=reply_to.decode() if reply_to else None,
        traceparent=traceparent.decode() if traceparent else None,
    )


def describe_unusable(entry_id: str, fields: Mapping[bytes, bytes]) -> Prompt:
    """Describe an entry that is no usable prompt, as far as it can be read: its producer waits for a row."""
    name = fields.get(b"id")
    metadata = fields.get(b"metadata")
    kept = {field: value for field, value in fields.items() if field in (ATTEMPT, ENQUEUED_AT)}
    if metadata is not None and is_metadata(metadata):
        kept[b"metadata"] = metadata
    readable = _read_text(name, MAX_ID_BYTES) if name is not None else None
    return describe_prompt(entry_id, kept, readable or entry_id)


def _flaw(fields: Mapping[bytes, bytes], max_bytes: int) -> Flaw | None:
    params = fields.get(b"params")
    if params is None:
        return Flaw.NO_PARAMS if fields else Flaw.EMPTY
    flaw = check_params(params, max_bytes)
    if flaw is None and len(fields) > 1:
        flaw = _side_flaw(fields)
    return flaw


def _side_flaw(fields: Mapping[bytes, bytes]) -> Flaw | None:
    metadata = fields.get(b"metadata")
    if metadata is not None and not is_metadata(metadata):
        return Flaw.BAD_METADATA
    for field, pattern, flaw in (
        (b"deadline", _INSTANT, Flaw.BAD_DEADLINE),
        (b"reply_to", _REPLY_TO, Flaw.BAD_REPLY_TO),
        (b"traceparent", _TRACEPARENT, Flaw.BAD_TRACEPARENT),
    ):
        value = fields.get(field)
        if value and pattern.fullmatch(value) is None:
            return flaw
    return None


def is_metadata(metadata: bytes) -> bool:
    """Tell whether bytes may be echoed back as a row's `metadata`."""
    if len(metadata) > MAX_METADATA_BYTES or _depth(metadata) > MAX_DEPTH:
        return False
    try:
        _read_json(metadata)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError):
        return False
    return True


def _read_json(document: bytes) -> object:
    """Decode strictly. Raises msgspec's errors, UnicodeDecodeError, RecursionError, and OverflowError (see below)."""
    value = _decode(document)
    if _DIGITS.search(document[::_STRIDE]):
        _refuse_vast_numbers(value)
    return value


def _refuse_vast_numbers(value: object) -> None:
    """Raise OverflowError where a whole number is beyond a double: many parsers refuse it, as they refuse 1e400."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case dict() as members:
                waiting += members.values()
            case list() as members:
                waiting += members
            case int() as number:
                float(number)


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _read_text(raw: bytes, max_bytes: int) -> str | None:
    if not 0 < len(raw) <= max_bytes:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _depth(document: bytes) -> int:
    """Return how deep brackets nest outside of strings, for documents that may be no JSON at all."""
    deepest = depth = 0
    for token in _BRACKET.finditer(document):
        mark = token[0]
        if mark in (b"[", b"{"):
            depth += 1
            deepest = max(deepest, depth)
        elif mark in (b"]", b"}"):
            depth -= 1
    return deepest

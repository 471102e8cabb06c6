"""Entries of a lane as a producer gone mad would write them, and what must become of each."""

import json
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hostile_json import GOOD, NASTY, damage
from strict_json import NotStrict, depth, parse

MAX_DEPTH = 128
ROOM = 100_000
Pairs = tuple[tuple[bytes, bytes], ...]

PARAMS = json.dumps(GOOD).encode()
ODD_WORDS = (
    *(b"", b"0", b"-1", b"1e9", b"nan", b"inf", b"Infinity", b"9" * 5000, b"1795348800", b"1795348800.123", b"1."),
    *(b"0.0000000001", b"999999999999.999999999", b"1000000000000", "\u0663".encode(), b"a\r\nb: c", b"a b", b"\t"),
    *(b"x" * 128, b"x" * 129, b"x" * 256, b"x" * 257, "é".encode() * 128, "é".encode() * 129, b"\xff", b"\xc3"),
    *(b"\xed\xa0\x80", b"\x00", b"\x1b[31m", b"../../etc/passwd", b"{}", b'"', b"\\", b"soon", b"1 ", b" 1", b"+1"),
    *(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", b"my.replies:1", b"x" * 70_000, b"\xef\xbb\xbf1"),
)
OWN_NAMES = (b"batchmill.attempt", b"batchmill.enqueued_at", b"batchmill.reason", b"batchmill.buried_at", b"batchmill.")
ODD_NAMES = (b"PARAMS", b"params ", b"params\x00", b"", b"\xff\xfe", b"priority", b"x" * 3000, *OWN_NAMES)
SIDE_NAMES = (b"id", b"metadata", b"deadline", b"reply_to", b"traceparent")
_INSTANT = re.compile(rb"[0-9]{1,12}(\.[0-9]{1,9})?")
_REPLY_TO = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_TRACEPARENT = re.compile(rb"[!-~]{1,128}")


@dataclass(frozen=True, slots=True)
class Entry:
    """The name, value pairs of one XADD; a name may stand twice, and then the last counts."""

    pairs: Pairs

    @property
    def fields(self) -> Mapping[bytes, bytes]:
        """What a reader makes of it."""
        return dict(self.pairs)


def entries(chance: random.Random, count: int) -> Iterator[Entry]:
    """Make entries: two of five are good, the others have something odd in one or several places."""
    for number in range(count):
        yield Entry(_pairs(chance, number))


def is_usable(fields: Mapping[bytes, bytes], *, room: int = ROOM) -> bool:
    """Say by other means than batchmill's whether an entry is a prompt that the API may be sent."""
    params, name = fields.get(b"params"), fields.get(b"id")
    return (
        params is not None
        and may_be_sent(params, room=room)
        and (name is None or _is_name(name))
        and (b"metadata" not in fields or may_be_metadata(fields[b"metadata"]))
        and _fits(_INSTANT, fields.get(b"deadline"))
        and _fits(_REPLY_TO, fields.get(b"reply_to"))
        and _fits(_TRACEPARENT, fields.get(b"traceparent"))
    )


def may_be_sent(params: bytes, *, room: int = ROOM) -> bool:
    """Say whether params are the parameters of one request, to the strictest of parsers."""
    value = _value(params)
    return (
        len(params) <= room
        and isinstance(value, dict)
        and depth(value) <= MAX_DEPTH
        and all(value.get(name) is not None for name in GOOD)
        and any(value.get("stream") == no for no in (None, False))  # 0 is for the API to judge
    )


def is_plain(params: bytes) -> bool:
    """Say whether the API will answer these params: the good ones, whatever text they hold."""
    value = _value(params)
    match value:
        case {"messages": [{"role": "user", "content": str(text)}]} if text:
            return bool(value == GOOD | {"messages": [{"role": "user", "content": text}]})
    return False


def may_be_metadata(metadata: bytes) -> bool:
    """Say whether a value may stand in a row."""
    value = _value(metadata)
    return len(metadata) <= 65_536 and value is not NotStrict and depth(value) <= MAX_DEPTH


def name_of(fields: Mapping[bytes, bytes], entry_id: str) -> str:
    """Return what the row of an entry calls it."""
    name = fields.get(b"id")
    return name.decode() if name is not None and _is_name(name) else entry_id


def _value(raw: bytes) -> Any:
    try:
        return parse(raw)
    except NotStrict:
        return NotStrict


def _is_name(name: bytes) -> bool:
    try:
        return 0 < len(name) <= 256 and bool(name.decode())
    except UnicodeDecodeError:
        return False


def _fits(pattern: re.Pattern[bytes], value: bytes | None) -> bool:
    return not value or pattern.fullmatch(value) is not None


def _pairs(chance: random.Random, number: int) -> Pairs:
    named = (b"id", b"entry-%d" % number)
    if chance.random() < 0.4:
        return ((b"params", _good(chance, number)), named)
    pairs = [(b"params", _params(chance, number)), named]
    for _ in range(chance.choice((0, 0, 1, 1, 2, 4))):
        name = chance.choice((*SIDE_NAMES, *SIDE_NAMES, *ODD_NAMES))
        odd = name == b"metadata" and chance.random() < 0.8
        pairs.append((name, _json(chance) if odd else chance.choice(ODD_WORDS)))
    if chance.random() < 0.02:
        notes = chance.choice((50, 1500, 3000, 9000))
        pairs += [(chance.choice((b"note-%d" % each, b"note", b"batchmill.%d" % each)), b"x") for each in range(notes)]
    if chance.random() < 0.1:
        del pairs[chance.randrange(len(pairs))]
    chance.shuffle(pairs)
    return tuple(pairs) or ((b"", b""),)


def _good(chance: random.Random, number: int) -> bytes:
    text = chance.choice(
        ("good day", "\U0001f600 é \u2028", 'quote " and \\', "x" * chance.randrange(2000), str(number))
    )
    wanted = GOOD | {"messages": [{"role": "user", "content": text}]}
    return json.dumps(wanted, ensure_ascii=chance.random() < 0.5).encode()


def _params(chance: random.Random, number: int) -> bytes:
    kind = chance.random()
    good = _good(chance, number)
    if kind < 0.4:
        return good
    if kind < 0.5:
        return good[:-1] + b',"x":' + chance.choice(NASTY) + b"}"
    if kind < 0.85:
        return damage(chance, good)
    if kind < 0.95:
        return _json(chance)
    return chance.choice(
        (good * 2, b"[" + good + b"]", b"x" * 2000, good + b" " * ROOM, b"\xef\xbb\xbf" + good, good[:-1])
    )


def _json(chance: random.Random) -> bytes:
    whole = chance.choice(
        (b"{}", b'{"a": [1, {"b": null}]}', b'"text"', b"1.5", b"\n{\n}\n", b'"' + b"m" * 65_000 + b'"')
    )
    return damage(chance, whole, most=2) if chance.random() < 0.5 else chance.choice((whole, *NASTY))

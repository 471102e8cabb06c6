"""Streams of result lines with something wrong in them, and what may be believed of them."""

import json
import random
from collections.abc import Iterator
from typing import Any

from hostile_json import NASTY, damage

ODD_RESULTS = (
    *(b'{"type":"succeeded"}', b'{"type":"succeeded","message":null}', b'{"type":"succeeded","message":"text"}'),
    *(b'{"type":"succeeded","message":{"model":7}}', b'{"type":"succeeded","message":{"usage":[]}}'),
    *(b'{"type":"errored"}', b'{"type":"errored","error":"boom"}', b'{"type":"errored","error":{"error":[]}}'),
    *(b'{"type":"errored","error":{"error":{"type":7,"message":{}}}}', b'{"type":"errored","error":{"type":"error"}}'),
    *(b'{"type":"errored","error":{"error":{"type":"api_error","message":null}}}', b'{"type":"canceled"}'),
    *(b'{"type":"errored","error":{"error":{"type":"a\\r\\nb: c"}}}', b'{"type":"expired","extra":[[[{}]]]}'),
    *(b'{"type":"evaporated"}', b'{"type":null}', b'{"type":["succeeded"]}', b"{}", b"[]", b"7", b"null", b'"text"'),
    b'{"type":"succeeded","message":{"model":"' + b"m" * 3000 + b'","usage":{"input_tokens":1}}}',
)
ODD_COUNTS = (b"-1", b"1.5", b"1e3", b"null", b'"7"', b"9" * 30, b"9" * 4000, b"[]", b"{}", b"true", b"-0", b"1e400")
USAGE = (
    b'{"type":"succeeded","message":{"model":"claude-haiku-4-5","usage":{"input_tokens":%b,"output_tokens":%b,'
    b'"cache_creation_input_tokens":%b,"cache_creation":{"ephemeral_1h_input_tokens":%b}}}}'
)


def spoil(chance: random.Random, lines: list[bytes]) -> bytes:
    """Make a stream of good lines that has one to three things wrong with it, or nothing but oddities."""
    lines = list(lines)
    chance.shuffle(lines)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(lines))
        match chance.randrange(11):
            case 0:
                lines[at] = damage(chance, lines[at])
            case 1:
                del lines[at]
            case 2:
                lines.insert(at, chance.choice(lines))
            case 3:
                lines.insert(at, line(_stranger(chance, lines[at]), chance.choice(ODD_RESULTS)))
            case 4 | 5:
                lines[at] = line(custom_id(lines[at]), chance.choice(ODD_RESULTS))
            case 6 | 7:
                lines[at] = line(custom_id(lines[at]), USAGE % tuple(chance.choices(ODD_COUNTS, k=4)))
            case 8:
                lines.insert(at, chance.choice((b"", b"  ", b"\r", b"\t\r", b"\x0b", *NASTY)))
            case 9:
                lines[at] += chance.choice((b"\r", b" ", b"\x00"))
            case _:
                lines[at] = line(_stranger(chance, lines[at]), b'{"type":"succeeded"}')
        lines = lines or [b""]
    stream = b"\n".join(lines) + chance.choice((b"\n", b"\n", b"", b"\n\n", b"\r\n"))
    return stream[: chance.randrange(len(stream) + 1)] if chance.random() < 0.25 else stream


def line(name: str, result: bytes) -> bytes:
    """Write one result line."""
    return b'{"custom_id":%b,"result":%b}' % (json.dumps(name).encode(), result)


def custom_id(raw: bytes) -> str:
    """Read whose a good line is; of a damaged one nothing."""
    try:
        return str(json.loads(raw)["custom_id"])
    except (ValueError, TypeError, LookupError):
        return "damaged"


def cut(chance: random.Random, stream: bytes) -> Iterator[bytes]:
    """Deliver a stream in pieces of any size."""
    at = 0
    while at < len(stream):
        size = chance.choice((1, 7, 100, 1000, 65_536))
        yield stream[at : at + size]
        at += size


def believe(stream: bytes, wanted: set[str]) -> dict[str, bytes] | None:
    """Say by other means than batchmill's what a stream proves: the result of each id, None if it is not whole."""
    results: dict[str, bytes] = {}
    for raw in stream.split(b"\n"):
        if not raw.strip(b" \t\r\x0b\x0c"):
            continue
        try:
            pairs = json.loads(raw.decode(), parse_constant=_refuse, parse_int=str, parse_float=str)
            json.dumps(pairs, ensure_ascii=False).encode()
            name, _ = pairs["custom_id"], pairs["result"]
        except (ValueError, TypeError, LookupError, RecursionError):
            return None
        if not isinstance(name, str):
            return None
        if name in wanted:
            results.setdefault(name, json.dumps(pairs["result"]).encode())
    return results if set(results) == wanted else None


def spelled(result: Any) -> bytes:
    """Spell a row's result as `believe` does."""
    return json.dumps(result).encode()


def _refuse(word: str) -> None:
    raise ValueError(word)


def _stranger(chance: random.Random, raw: bytes) -> str:
    """Name a line that is nobody's, or almost ours."""
    name = custom_id(raw)
    return chance.choice(
        (
            *("", "x", "request-1", "\x00", "é" * 40, "x" * 100_000, name.upper(), name + "0", "0" + name, name[:-1]),
            *(name.replace("_01_", "_1_"), name.replace("-0", "-00"), name.replace("-", "-1", 1), f" {name}"),
        )
    )

"""Prompts as lines of JSON: each line is one prompt or the reason why it is none, and no line costs another."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import msgspec

LONGEST_LINE = 260_000_000
"""Bytes: the largest params there can be, and what may stand around them."""

PIECE = 1 << 20
BOM = b"\xef\xbb\xbf"
LONGEST_NAME = 80
FIELDS = ("params", "id", "metadata", "deadline", "reply_to", "traceparent")

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(frozen=True, slots=True)
class Line:
    """One line that is not blank. `prompt` has the producer's fields, params and metadata as the bytes in the file."""

    number: int
    nbytes: int
    prompt: dict[str, Any] | None
    reason: str = ""


def read_lines(file: IO[bytes], *, longest: int = LONGEST_LINE) -> Iterator[Line]:
    """Yield the lines of a file, holding one at a time; what is longer than `longest` bytes is skipped over."""
    number = 0
    while raw := file.readline(longest):
        number += 1
        nbytes = len(raw)
        if nbytes == longest and not raw.endswith(b"\n"):
            while piece := file.readline(PIECE):
                nbytes += len(piece)
                if piece.endswith(b"\n"):
                    break
            yield Line(number, nbytes, None, f"the line is longer than {longest} bytes")
            continue
        text = (raw.removeprefix(BOM) if number == 1 else raw).strip()
        if text:
            yield _read(number, nbytes, text)


def _read(number: int, nbytes: int, text: bytes) -> Line:
    try:
        given = _decode(text)
        if "params" not in given and "custom_id" not in given:
            return Line(number, nbytes, {"params": text})
        if "custom_id" in given and "id" not in given:
            given["id"] = given.pop("custom_id")
        unknown = sorted(set(given) - set(FIELDS))
        if unknown:
            return Line(
                number, nbytes, None, f"unknown field {unknown[0][:LONGEST_NAME]!r}; there are {', '.join(FIELDS)}"
            )
        prompt = {name: _value(name, raw) for name, raw in given.items()}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Line(number, nbytes, None, "not a JSON object")
    return Line(number, nbytes, prompt)


def _value(name: str, raw: msgspec.Raw) -> Any:
    if bytes(raw) == b"null":
        return None
    return bytes(raw) if name in ("params", "metadata") else msgspec.json.decode(raw)

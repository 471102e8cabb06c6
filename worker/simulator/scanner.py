"""Finds the complete elements of a JSON array that has only partly arrived, without parsing them."""

import re

import msgspec

BLANK = re.compile(rb"[ \t\r\n]*")
SCALAR = re.compile(rb'[^,\]}\[{" \t\r\n]+')
TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\]]|"', re.DOTALL)  # the last: a string that has not ended yet


class Unreadable(Exception):  # noqa: N818  # says what the body is
    """Not JSON."""


def split(pending: bytearray, *, first: bool) -> tuple[list[bytes], int, bool]:
    """Split `[a, b, c` or `[a, b]…`, where `[` may stand for the comma after elements taken before (not `first`).

    Returns the elements that are followed by a comma or the closing bracket; where the rest begins (at that comma, or
    behind the bracket; 0 if nothing was found); and whether the array has ended. Raises Unreadable.
    """
    elements: list[bytes] = []
    taken, at = 0, 1
    while True:
        start = _skip(pending, at)
        if start == len(pending):
            return elements, taken, False
        if pending[start : start + 1] == b"]":
            if elements or not first:
                raise Unreadable("trailing comma in array")
            return elements, start + 1, True
        end = _end(pending, start)
        after = _skip(pending, end) if end else len(pending)
        if after == len(pending):
            return elements, taken, False
        elements.append(bytes(pending[start:end]))
        mark = pending[after : after + 1]
        if mark == b"]":
            return elements, after + 1, True
        if mark != b",":
            raise Unreadable("expected ',' or ']'")
        taken, at = after, after + 1


def decode(text: bytes) -> object:
    """Parse one element; raises Unreadable."""
    try:
        str(text, "utf-8")
        tree: object = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(str(error)) from None
    return tree


def _skip(pending: bytearray, at: int) -> int:
    match = BLANK.match(pending, at)
    return match.end() if match else at


def _end(pending: bytearray, start: int) -> int:
    """Where the element that starts here ends; 0 if that has not arrived."""
    if pending[start] not in b'{["':
        match = SCALAR.match(pending, start)
        if not match:
            raise Unreadable("unexpected character")
        return match.end()
    depth = 0
    for token in TOKEN.finditer(pending, start):
        mark = token[0]
        if mark == b'"':
            return 0
        if mark in b"{[":
            depth += 1
        elif mark in b"}]":
            depth -= 1
        if depth <= 0:
            return token.end()
    return 0

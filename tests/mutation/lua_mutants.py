"""Mutants of a Lua script: its body line by line, never its header."""

import re
from collections.abc import Iterator

from mutant import Mutant

BRANCH = re.compile(r"\bif (?P<test>.*) then\b")
WRITES = (
    *("DEL", "EXPIRE", "HDEL", "HINCRBY", "HSET", "PERSIST", "SADD", "SET", "XADD", "XDEL", "XTRIM"),
    *("ZADD", "ZREM", "ZREMRANGEBYSCORE"),
)
WRITE = re.compile(rf'redis\.call\("(?:{"|".join(WRITES)})"')
SWAPS = (
    (re.compile(r"~="), "=="),
    (re.compile(r"=="), "~="),
    (re.compile(r"(?<!\S)>(?!\S)"), ">="),
    (re.compile(r"(?<!\S)>=(?!\S)"), ">"),
    (re.compile(r"(?<!\S)<(?!\S)"), "<="),
    (re.compile(r"\bor\b"), "and"),
    (re.compile(r"\band\b"), "or"),
    (re.compile(r"(?<=\s)\+(?=\s)"), "-"),
    (re.compile(r"(?<=\s)-(?=\s)"), "+"),
    (re.compile(r"\bnot "), ""),
)
NUMBER = re.compile(r'(?<![\w.%"(\[-])(\d+)(?![\w.%"])')


def mutate_lua(text: str, file: str) -> Iterator[Mutant]:
    """Decide each guard and branch beforehand, drop each write, and flip what compares, joins or counts."""
    body = text.index("\n\n") + 2

    def change(start: int, end: int, other: str) -> Mutant:
        return Mutant(file, text.count("\n", 0, start) + 1, start, end, other, file)

    for branch in BRANCH.finditer(text, body):
        for decided in ("true", "false"):
            yield change(branch.start("test"), branch.end("test"), decided)
    for write in WRITE.finditer(text, body):
        if not _is_used(text, write.start()):
            yield change(write.start(), _end_of_call(text, write.end()), "")
    swaps = [(found, other) for pattern, other in SWAPS for found in pattern.finditer(text, body)]
    swaps += [(number, str(int(number[0]) + 1)) for number in NUMBER.finditer(text, body)]
    for found, other in swaps:
        if not _is_said(text, found.start()):
            yield change(found.start(), found.end(), other)


def _is_used(text: str, at: int) -> bool:
    """Whether the answer of a call goes somewhere, so that leaving it out would be no Lua."""
    return text[text.rindex("\n", 0, at) + 1 : at].rstrip().endswith(("=", "(", "#", "+", "return"))


def _is_said(text: str, at: int) -> bool:
    """Whether a place is in a comment, between quotes, or only says where a list ends."""
    before = text[text.rindex("\n", 0, at) + 1 : at]
    return "--" in before or before.count('"') % 2 == 1 or re.search(r"\[#\w+ (\+ )?$", before) is not None


def _end_of_call(text: str, at: int) -> int:
    depth = 1
    while depth:
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        at += 1
    return at

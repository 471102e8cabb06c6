"""A second opinion on JSON: the standard library's parser, made as strict as the strictest we know of."""

import json
from typing import Any, NoReturn

LONGEST_NUMBER = 4300
"""Digits; what is longer many parsers refuse."""


class NotStrict(ValueError):  # noqa: N818 - says what the text is
    """Some parser would refuse this text."""


def parse(raw: bytes) -> Any:
    """Parse RFC 8259 JSON in UTF-8, with numbers that fit a double and text that is text. Raises NotStrict."""
    try:
        value = json.loads(raw.decode(), parse_constant=_refuse, parse_float=_finite, parse_int=_finite_int)
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair cannot be spelled
    except (ValueError, RecursionError, OverflowError) as error:
        raise NotStrict(type(error).__name__) from None
    return value


def depth(value: Any) -> int:
    """Return how deep lists and objects nest."""
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        one, level = waiting.pop()
        below = list(one.values()) if isinstance(one, dict) else one if isinstance(one, list) else None
        if below is not None:
            deepest = max(deepest, level)
            waiting += [(each, level + 1) for each in below]
    return deepest


def _refuse(word: str) -> NoReturn:
    raise NotStrict(word)


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise NotStrict("beyond a double")
    return number


def _finite_int(text: str) -> int:
    _finite(text)
    return int(text)

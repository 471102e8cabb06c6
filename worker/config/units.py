"""How the values of settings are written: durations, sizes, numbers, words.

Each function here returns a parser. A parser takes what a TOML file or an environment variable holds and returns the
value, or raises `ValueError` whose text completes a sentence that begins with the setting's name.
"""

import math
import re
from collections.abc import Callable
from decimal import Decimal
from string import Formatter

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(b|[kmgt]b|[kmgt]ib)?", re.IGNORECASE)
_THOUSANDS = {"k": 1, "m": 2, "g": 3, "t": 4}
_FLAGS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_LONGEST_ECHO = 40
_VAST = 10**18  # seconds; neither infinity nor a number beyond a double is less


def _echo(value: object) -> str:
    """Quote a wrong value for the operator, unless it may hold a secret that slipped into the wrong line."""
    try:
        text = repr(value)
    except ValueError:  # Python spells no number of thousands of digits
        return "what it holds"
    if "@" in text or "sk-" in text or "?" in text:
        return "what it holds"
    return text if len(text) <= _LONGEST_ECHO else text[:_LONGEST_ECHO] + "…"


def _seconds(value: object) -> float | None:
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        return float(Decimal(match[1]) * _SECONDS[match[2] or "s"])
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _VAST:
        return float(value)
    return None


def _bytes(value: object) -> int | None:
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        unit = (match[2] or "b").lower()
        step = 1024 if "i" in unit else 1000
        return int(Decimal(match[1]) * step ** _THOUSANDS.get(unit[0], 0))
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    return None


def duration(low: str, high: str) -> Callable[[object], float]:
    """Parse `250ms`, `30s`, `5m`, `24h`, `7d` or a number of seconds into seconds, from `low` to `high`."""
    lowest, highest = _seconds(low), _seconds(high)

    def parse(value: object) -> float:
        seconds = _seconds(value)
        if seconds is None:
            raise ValueError(f'must be a duration such as "250ms", "30s", "5m", "24h" or "7d", not {_echo(value)}')
        if not (lowest or 0.0) <= seconds <= (highest or math.inf):
            raise ValueError(f"must be from {low} to {high}, not {_echo(value)}")
        return seconds

    return parse


def size(low: str, high: str) -> Callable[[object], int]:
    """Parse `64MB` (10^6), `1GiB` (2^30) or a number of bytes into bytes, from `low` to `high`."""
    lowest, highest = _bytes(low), _bytes(high)

    def parse(value: object) -> int:
        amount = _bytes(value)
        if amount is None:
            raise ValueError(f'must be a size such as "64MB", "1GiB" or a number of bytes, not {_echo(value)}')
        if not (lowest or 0) <= amount <= (highest or math.inf):
            raise ValueError(f"must be from {low} to {high}, not {_echo(value)}")
        return amount

    return parse


def count(low: int, high: int) -> Callable[[object], int]:
    """Parse a whole number from `low` to `high`; `10_000` may be written so."""

    def parse(value: object) -> int:
        if isinstance(value, str) and re.fullmatch(r"\d{1,18}(_\d{1,18}){,18}", value.strip(), re.ASCII):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"must be a whole number, not {_echo(value)}")  # noqa: TRY004  # parsers raise one kind
        if not low <= value <= high:
            raise ValueError(f"must be from {low:_} to {high:_}, not {_echo(value)}")
        return value

    return parse


def flag(value: object) -> bool:
    """Parse `true` or `false`; environment variables may say yes, no, on, off, 1 or 0 as well."""
    if isinstance(value, str):
        value = _FLAGS.get(value.strip().lower(), value)
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {_echo(value)}")  # noqa: TRY004  # parsers raise one kind
    return value


def choice(*words: str) -> Callable[[object], str]:
    """Parse one of `words`."""

    def parse(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"must be one of {', '.join(words)}, not {_echo(value)}")
        return value

    return parse


def text(pattern: str, meaning: str) -> Callable[[object], str]:
    """Parse a string that matches all of `pattern`; a wrong one is never quoted, it may be a secret."""
    expression = re.compile(pattern)

    def parse(value: object) -> str:
        if not isinstance(value, str) or not expression.fullmatch(value):
            raise ValueError(f"must be {meaning}")
        return value

    return parse


def words(pattern: str, meaning: str) -> Callable[[object], tuple[str, ...]]:
    """Parse a list of strings that match `pattern`, or the same separated by commas."""
    parse_one = text(pattern, f"a list of {meaning}")

    def parse(value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            value = [word.strip() for word in value.split(",") if word.strip()]
        if not isinstance(value, list):
            raise ValueError(f"must be a list of {meaning}")  # noqa: TRY004  # parsers raise one kind
        return tuple(parse_one(word) for word in value)

    return parse


def template(*fields: str) -> Callable[[object], str]:
    """Parse a path in which `{field}` stands for a value; only `fields` may be named."""
    allowed = ", ".join(f"{{{field}}}" for field in fields)

    def parse(value: object) -> str:
        problem = f"must be a path in which only {allowed} may stand in braces"
        if not isinstance(value, str) or not value or not value.isprintable():
            raise ValueError(problem)
        try:
            pieces = list(Formatter().parse(value))
        except ValueError:
            raise ValueError(problem) from None
        if any(name is not None and (name not in fields or form or convert) for _, name, form, convert in pieces):
            raise ValueError(problem)
        return value

    return parse

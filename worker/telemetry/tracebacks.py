"""Exceptions as text: where and what kind, never the values of variables, and messages only of kinds that keep quiet.

`int("a secret")` raises a ValueError that quotes the secret, and a KeyError is the key: such messages are withheld.
"""

import linecache
import traceback
from collections.abc import Iterator
from types import TracebackType

MOST_FRAMES = 20
MOST_LINKS = 5
LONGEST_MESSAGE = 2_048
LONGEST_TRACEBACK = 8_192
UNTOLD = "[message withheld]"

# These name types, attributes, files and system errors, not the values they met.
_DISCREET = (OSError, TypeError, AttributeError, NameError, IndexError, ImportError, ArithmeticError, MemoryError)
# Ours are written to be read; those of the others speak of connections and protocols.
_DISCREET_PACKAGES = frozenset({"worker", "redis", "dramatiq", "httpx2", "httpcore2"})
# But these quote what they could not read.
_QUOTING = frozenset({"DecodeError", "ValidationError"})


def describe(error: BaseException) -> str:
    """Return `Kind: message`, the message only if its kind never quotes content."""
    kind = type(error).__qualname__
    known = type(error).__module__.partition(".")[0] in _DISCREET_PACKAGES and kind not in _QUOTING
    if isinstance(error, _DISCREET) or known:
        message = _message(error)
        return f"{kind}: {message}" if message else kind
    return f"{kind}: {UNTOLD}" if error.args else kind


def render(error: BaseException) -> str:
    """Return the traceback of `error` and of what led to it, the oldest first, as Python would print it."""
    links = list(_links(error))
    return "\n\nwhich led to:\n\n".join(_link(link) for link in reversed(links))


def clip(text: str, longest: int) -> str:
    """Shorten a traceback from its middle: both its entrance and its end tell something."""
    if len(text) <= longest:
        return text
    return f"{text[: longest // 3]}\n[…]\n{text[-(longest - longest // 3 - 6) :]}"


def _message(error: BaseException) -> str:
    try:
        return str(error)[:LONGEST_MESSAGE]
    except Exception:  # noqa: BLE001  # somebody's __str__ is broken, which is no reason to lose the line
        return UNTOLD


def _links(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen and len(seen) < MOST_LINKS:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _link(error: BaseException) -> str:
    lines = [*_frames(error.__traceback__), describe(error)]
    if isinstance(error, BaseExceptionGroup):
        lines += [f"  | {describe(inner)}" for inner in error.exceptions[:MOST_LINKS]]
    return "\n".join(lines)


def _frames(trace: TracebackType | None) -> Iterator[str]:
    if trace is None:
        return
    yield "Traceback (most recent call last):"
    for frame in traceback.extract_tb(trace, limit=-MOST_FRAMES):
        yield f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}'
        if source := linecache.getline(frame.filename, frame.lineno or 0).strip():
            yield f"    {source}"

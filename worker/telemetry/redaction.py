"""What may stand in a log line: short text without secrets; never bytes, objects or what a producer wrote.

It fails closed: a value of a kind that is not known to be harmless is shown as its type.
"""

import re
from collections.abc import Callable, Collection, Mapping
from datetime import date
from pathlib import PurePath

from worker.telemetry.tracebacks import describe

LONGEST_FIELD = 1_024
MOST_ITEMS = 50
DEEPEST = 4
HIDDEN = "[redacted]"
WITHHELD = "[withheld]"

_SECRET_NAME = re.compile(
    r"(?:.*[-_])?(?:authorization|api[-_]?key|password|passwd|secret|token|(?:set-)?cookie)", re.IGNORECASE
)
# Names under which a prompt or an answer travels.
_CONTENT_NAMES = frozenset({"params", "messages", "message", "prompt", "content", "body", "metadata", "system", "text"})

# Most text has none of these, and one look is cheaper than six.
_SUSPICIOUS = re.compile(r"sk-ant-|api[-_]?key|authorization|bearer|://|[?&]|Command #", re.IGNORECASE)
_PATTERNS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"sk-ant-[A-Za-z0-9_-]+"), f"sk-ant-{HIDDEN}"),
    # A header as `name: value`, `name=value`, or inside a printed dict or tuple. With `authorization` two words go,
    # since the first may be the scheme or the secret.
    (
        re.compile(r"((?:x-api-key|api[-_]?key)[\"']?\s*[:=,]\s*(?:b?[\"'])?)[^\s\"',;}\])]+", re.IGNORECASE),
        rf"\1{HIDDEN}",
    ),
    (
        re.compile(
            r"(authorization[\"']?\s*[:=,]\s*(?:b?[\"'])?)[^\s\"',;}\])]+(?:[ \t]+[^\s\"',;}\])]+)?", re.IGNORECASE
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"\b(bearer\s+)[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE), rf"\1{HIDDEN}"),
    # Up to the last @ of the word: in a careless Redis URL the password holds an @ or a slash.
    (
        re.compile(r"(rediss?(?:\+[a-z]+)?://)([^\s\"'<>]+)"),
        lambda found: f"{found[1]}{HIDDEN}{found[2][found[2].rfind('@') :]}" if "@" in found[2] else found[0],
    ),
    (re.compile(r"(?<=://)[^\s\"'<>/?#]*@"), f"{HIDDEN}@"),
    (
        re.compile(r"([?&](?:password|passwd|pwd|token|secret|api[-_]?key|signature|sig)=)[^\s&\"'#]+", re.IGNORECASE),
        rf"\1{HIDDEN}",
    ),
)
# redis-py quotes the command, which may be a prompt on its way in, when one of a pipeline fails.
_COMMAND = re.compile(r"Command # \d+ \(")
_COMMAND_END = ") of pipeline caused error"


class Redactor:
    """Makes the fields of a log line fit to be read by anybody. `secrets` are hidden wherever they appear."""

    def __init__(self, secrets: Collection[str] = ()) -> None:
        # The longest first: one secret may be the beginning of another. A very short one would shred every line.
        known = sorted((secret for secret in secrets if len(secret) >= 6), key=len, reverse=True)  # noqa: PLR2004 - shorter ones would hide every other word
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def text(self, value: str, longest: int = LONGEST_FIELD, *, clip: Callable[[str, int], str] | None = None) -> str:
        """Return `value` without secrets and of at most `longest` characters."""
        # What is beyond twice the length cannot be shown and need not be searched.
        cleaned = value if clip is not None else value[: 2 * longest]
        if self._known is not None:
            cleaned = self._known.sub(HIDDEN, cleaned)
        if _SUSPICIOUS.search(cleaned):
            cleaned = _without_command(cleaned)
            for pattern, replacement in _PATTERNS:
                cleaned = pattern.sub(replacement, cleaned)
        if not cleaned.isascii():  # a lone surrogate cannot be written as UTF-8
            cleaned = cleaned.encode("utf-8", "replace").decode()
        if clip is not None:
            return clip(cleaned, longest)
        return cleaned if len(value) <= longest and len(cleaned) <= longest else f"{cleaned[: longest - 1]}…"

    def field(self, name: str, value: object) -> object:
        """Return what may be shown of a field, given its name and value."""
        return self._field(name, value, 0)

    def _field(self, name: str, value: object, depth: int) -> object:
        if value is not None and _SECRET_NAME.fullmatch(name):
            return HIDDEN
        if value is not None and name in _CONTENT_NAMES:
            return WITHHELD
        return self._value(value, depth)

    def _value(self, value: object, depth: int) -> object:
        shown: object
        match value:
            case None | bool() | int() | float():
                shown = value
            case str():
                shown = self.text(value)
            case BaseException():
                shown = self.text(describe(value))
            case date() | PurePath():
                shown = self.text(str(value))
            case bytes() | bytearray() | memoryview():
                shown = f"<{len(value)} bytes>"
            case Mapping() if depth < DEEPEST:
                shown = {
                    self.text(str(key), 64): self._field(str(key), item, depth + 1)
                    for key, item in list(value.items())[:MOST_ITEMS]
                }
            case list() | tuple() | set() | frozenset() if depth < DEEPEST:
                shown = [self._value(item, depth + 1) for item in list(value)[:MOST_ITEMS]]
            case _:
                shown = f"<{type(value).__name__}>"
        return shown


def _without_command(text: str) -> str:
    opening, end = _COMMAND.search(text), text.rfind(_COMMAND_END)
    if opening is None:
        return text
    # Where its end was cut off, all the rest may be the command.
    return f"{text[: opening.end()]}{HIDDEN}{text[end:] if end >= opening.end() else ''}"

"""How facts look in a terminal: aligned columns, short spans and sizes, and nothing that could move the cursor."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence

DASH = "-"


def print_json(value: object) -> None:
    """Print one JSON document on one line."""
    print(json.dumps(value))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Align columns; one whose head begins with `>` is set to the right."""
    right = [word.startswith(">") for word in head]
    lines = [[word.removeprefix(">") for word in head], *([clean(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def pairs(facts: Mapping[str, str]) -> str:
    """Put names and values side by side, leaving out what is empty."""
    width = max(map(len, facts), default=0)
    return "\n".join(f"{name.ljust(width)}  {clean(value)}" for name, value in facts.items() if value)


def clean(text: str) -> str:
    """Replace what a terminal might obey: producers choose ids, and may choose escape sequences."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def span(seconds: float | None) -> str:
    """Spell a duration with its two largest units."""
    if not seconds:
        return DASH
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    whole = int(seconds)
    for unit, size, lower, lower_size in (("d", 86_400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // lower_size}{lower}"
    return f"{whole}s"


def size(nbytes: int) -> str:
    """Spell bytes in powers of 1,000."""
    amount = float(nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:  # noqa: PLR2004 - kilo
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def instant(unix: float | None) -> str:
    """Spell an instant in UTC, to the second."""
    return DASH if unix is None else time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(unix))


def number(value: int) -> str:
    """Spell a number with commas."""
    return f"{value:,}"

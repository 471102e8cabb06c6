"""Stream entry ids as numbers: Redis orders them by milliseconds and sequence, not as text."""

_SEQUENCE_BITS = 64


def order(entry_id: str) -> int:
    """Return a number that sorts stream entry ids as Redis does."""
    milliseconds, _, sequence = entry_id.partition("-")
    return number_of(milliseconds, sequence)


def number_of(milliseconds: str, sequence: str) -> int:
    """Return what `order` returns, from the halves of an entry id."""
    return int(milliseconds) << _SEQUENCE_BITS | int(sequence)


def entry_id_of(number: int) -> str:
    """Undo `order`."""
    return f"{number >> _SEQUENCE_BITS}-{number & ((1 << _SEQUENCE_BITS) - 1)}"

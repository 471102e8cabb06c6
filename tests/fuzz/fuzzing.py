"""How much is fuzzed where nobody asks for more: `FUZZ=50000 python -m pytest tests/fuzz` does."""

import os
import random

SEARCHES = 150


def asked() -> int:
    """Return how much was asked for; 0 where nobody did."""
    return int(os.environ.get("FUZZ", "0"))


def searches() -> int:
    """Return how many examples Hypothesis tries; it makes a hundred a second, and looks where it gets further."""
    return max(SEARCHES, asked() // 20)


def many(default: int) -> int:
    """Return how many random entries, lines or answers a run makes."""
    return asked() or default


def chance() -> random.Random:
    """Return where chance begins: the same everywhere, unless `FUZZ_SEED` says otherwise."""
    return random.Random(int(os.environ.get("FUZZ_SEED", "20261122")))

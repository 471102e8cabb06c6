"""Chance that can be written down: every choice of a run is one number, and 0 is always the harmless one.

So a run is its list of choices: it is repeated by playing the list, and made simpler by setting numbers to 0.
"""

import random
from collections.abc import Callable, Mapping, Sequence


class Chance:
    """Draws from a seed, or plays a script of earlier choices (and 0 where the script has ended)."""

    def __init__(self, seed: int, script: Sequence[int] | None = None) -> None:
        self._random = random.Random(seed)
        self._script = script
        self.taken: list[int] = []

    def pick(self, among: int) -> int:
        """Return a number from 0 to `among` - 1."""
        if among <= 1:
            return 0
        return self._take(lambda: self._random.randrange(among), among)

    def strikes(self, probability: float) -> bool:
        """Say whether something with this probability happens."""
        return bool(self._take(lambda: int(self._random.random() < probability), 2))

    def between(self, low: float, high: float) -> float:
        """Return a number from `low`, the harmless end, to `high`."""
        return low + (high - low) * self.pick(1000) / 999

    def fault(self, rates: Mapping[str, float]) -> str | None:
        """Return which of these faults strikes, each with its own probability; most often None."""
        names = list(rates)

        def draw() -> int:
            left = self._random.random()
            for number, name in enumerate(names, start=1):
                left -= rates[name]
                if left < 0:
                    return number
            return 0

        taken = self._take(draw, len(names) + 1)
        return names[taken - 1] if taken else None

    def _take(self, draw: Callable[[], int], among: int) -> int:
        if self._script is None:
            taken = draw()
        else:
            taken = self._script[len(self.taken)] if len(self.taken) < len(self._script) else 0
            taken = min(taken, among - 1)
        self.taken.append(taken)
        return taken

"""What the network does to a piece of traffic: nothing, a delay, a cut in the middle, slices, a swallowed answer."""

import random
from dataclasses import dataclass

SLOWEST = 0.25
"""Seconds; no piece waits longer, so that a request still arrives well within the horizon."""

SHORTEST_HANG, LONGEST_HANG = 0.2, 6.0
"""Seconds that a connection whose answer was swallowed stays open: a daemon gives Redis five."""


@dataclass(frozen=True, slots=True)
class Weather:
    """Chances, per piece or (for `refuse`) per connection and (for `swallow`) per request."""

    name: str = "calm"
    delay: float = 0.0
    cut: float = 0.0
    slice: float = 0.0
    swallow: float = 0.0
    refuse: float = 0.0


CALM = Weather()
WEATHERS = (
    CALM,
    Weather("slow", delay=0.3),
    Weather("crumbling", slice=0.3, delay=0.05),
    Weather("cutting", cut=0.02),
    Weather("swallowing", swallow=0.03),
    Weather("refusing", refuse=0.3, cut=0.005),
    Weather("storm", delay=0.1, cut=0.01, slice=0.1, swallow=0.015, refuse=0.1),
)
DARK = Weather("dark", refuse=1.0, cut=1.0, swallow=1.0)
"""Nothing gets through at all."""


def pieces(data: bytes, chance: random.Random) -> list[bytes]:
    """Slice data into up to a dozen crumbs, the last as long as the rest."""
    crumbs = []
    for _ in range(chance.randrange(1, 12)):
        if len(data) <= 1:
            break
        at = chance.randrange(1, min(len(data), 9))
        crumbs.append(data[:at])
        data = data[at:]
    return [*crumbs, data]

"""The weather of a run: which faults may strike, how often, and until when."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from chance import Chance

STORM_SECONDS = 1500.0
"""After so long nothing fails any more: what is not settled by itself then is stuck."""

ANYWHERE = {"kill": 0.2, "freeze": 0.1, "stop": 0.03}
REDIS = {"lost": 0.1, "reply_lost": 0.2, "late": 0.15, "down": 0.02, "restart": 0.2, "blink": 1.0}
POST = {
    "reply_lost": 14.0,
    "late": 10.0,
    "vanishes": 8.0,
    "500_after": 6.0,
    "409_after": 3.0,
    "garbled": 3.0,
    "500_before": 4.0,
    "529": 5.0,
    "429": 4.0,
    "400": 2.0,
    "400_named": 2.0,
    "402": 2.0,
    "413": 2.0,
}
READ = {"unavailable": 3.0, "429": 1.0, "500": 2.0}
RESULTS = {"cut": 10.0, "clean_cut": 10.0, "missing": 5.0, "unavailable": 4.0, "doubled": 2.0}
ROWS = {"expired": 12.0, "api_error": 6.0, "mixed": 10.0, "billing": 4.0}
REMOTE = {"twin": 12.0, "canceled": 3.0}
SINK = {"before": 6.0, "reply_lost": 6.0}
KNOCK = {"lost": 2.0, "doubled": 6.0}


@dataclass
class Weather:
    """Draws faults for a place, at `strength` times its rates (percent), until the storm or the run's share is over.

    `struck` counts them by name: a kind that never strikes is a kind that is not tested.
    """

    chance: Chance
    strength: float
    left: int
    restarts: bool
    calm: bool = False
    struck: dict[str, int] = field(default_factory=dict)

    def strikes(self, place: str, rates: Mapping[str, float], *, weight: float = 1.0) -> str | None:
        """Return the fault that strikes here, if any; moments that matter more have a `weight`."""
        if self.calm or self.left <= 0:
            return None
        strength = self.strength * weight / 100
        kind = self.chance.fault({name: rate * strength for name, rate in rates.items()})
        if kind is not None:
            if kind in ("restart", "blink") and not self.restarts:
                return None
            self.left -= 1
            self.struck[f"{place}.{kind}"] = self.struck.get(f"{place}.{kind}", 0) + 1
        return kind

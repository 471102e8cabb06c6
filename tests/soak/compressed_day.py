"""A day of batchmill in minutes: every duration divided by one factor, as far as the machine itself can follow.

What measures patience (ages, horizons, retentions, the API's hours) is divided. What measures this machine (a lease,
a tick, the answer of a server) has a floor: a disk does not sync faster because the day is short.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MINUTE, HOUR, DAY = 60.0, 3_600.0, 86_400.0

CONFIGURED = ("default", "bulk", "urgent")
SINK_PATH = "results/{lane}/{batch}.jsonl"

RETENTION = 2 * HOUR
DEAD_RETENTION = 3 * HOUR
DEDUPE_TTL = 1 * HOUR
REMOTE_MEMORY = 3 * HOUR
"""Days and months in life; here hours, so that what they keep comes to its end many times within one day."""

API_TAKES = 15 * MINUTE
API_LIFETIME = 2 * HOUR
"""How long the API works on a batch, and when one that it never finishes expires (24 h in life)."""


@dataclass(frozen=True, slots=True)
class CompressedDay:
    """`hours` hours pass in `minutes` minutes. The load goes in waves; hours are compared at the same place in one."""

    minutes: float
    hours: int = 24

    @property
    def factor(self) -> float:
        """How much faster time goes."""
        return self.hours * HOUR / (self.minutes * MINUTE)

    @property
    def wave(self) -> int:
        """Hours from crest to crest of the load: four waves to the day."""
        return max(2, self.hours // 4)

    def real(self, seconds: float, *, least: float = 0.0) -> float:
        """Return how many real seconds so many seconds of the day are, `least` of them at least."""
        return max(least, seconds / self.factor)

    def load(self, at: float) -> float:
        """Return the load at an hour of the day, around 1: a wave, and a lull at the end of each hour."""
        lull = 0.1 if at % 1.0 >= 0.7 else 1.0  # from minute 42 on, so that hours end alike
        return lull * (1.0 + 0.6 * math.sin(2 * math.pi * at / self.wave))

    def settings(self) -> dict[str, str]:
        """Return the settings of a replica, as dotted keys."""
        seconds = {
            "retention": self.real(RETENTION, least=1),
            "dead_retention": self.real(DEAD_RETENTION, least=1),
            "lease": self.real(MINUTE, least=3),
            "tick": self.real(1, least=0.1),
            "shutdown_timeout": self.real(30, least=20),
            "intake.dedupe_ttl": self.real(DEDUPE_TTL, least=1),
            "poll.interval": self.real(30, least=0.2),
            "submit.timeout": self.real(5 * MINUTE, least=10),
            "submit.horizon": self.real(30 * MINUTE, least=3),
            "submit.overload_horizon": self.real(MINUTE, least=0.5),
            "submit.reconcile_interval": self.real(30, least=0.2),
            "park.probe": self.real(5 * MINUTE, least=0.5),
            **{f"lanes.{lane}.max_age": self.real(5 * MINUTE, least=0.3) for lane in CONFIGURED},
        }
        counts = {"lanes.bulk.max_count": "300", "lanes.urgent.max_count": "20", "lanes.default.max_count": "100"}
        return {name: f"{value:.3f}" for name, value in seconds.items()} | counts

    def constants(self) -> dict[str, float]:
        """Return what is a constant in the code and no setting, by module and name, in real units."""
        milliseconds = 1000
        return {
            "worker.ledger.batches.REMOTE_SECONDS": math.ceil(self.real(REMOTE_MEMORY, least=1)),
            "worker.ledger.lanes.UNSEALED_NOTE_SECONDS": math.ceil(self.real(HOUR, least=1)),
            "worker.rescuer.HOUSEKEEPING_SECONDS": self.real(MINUTE, least=1),
            "worker.rescuer.WAITING_SECONDS": self.real(5, least=0.5),
            "worker.daemon.CHECK_SECONDS": self.real(MINUTE, least=1),
            "worker.sinks.file.STALE_SECONDS": self.real(HOUR, least=5),
            "worker.broker.DEAD_WORKER_MS": int(self.real(2 * MINUTE, least=8) * milliseconds),
            "worker.poller.YOUNG_SECONDS": self.real(10 * MINUTE, least=3),
            "worker.refusals.TRUST_SECONDS": self.real(10 * MINUTE, least=3),
            "worker.core.grouping.DEADLINE_LEAD": self.real(HOUR),
            **{
                f"worker.{role}.{name}": self.real(seconds, least=0.1)
                for role, most in (("submitter", 60), ("refusals", 60), ("drainer", 300))
                for name, seconds in (("FIRST_DELAY", 1), ("MOST_DELAY", most))
            },
            "worker.submitter.GATE_DELAY": self.real(5, least=0.1),
            "worker.poller.FIRST_DELAY": self.real(1, least=0.1),
        }

    def api(self) -> Mapping[str, Any]:
        """Return the options of the simulated API."""
        return {
            "ends_after": self.real(API_TAKES, least=0.5),
            "lifetime": self.real(API_LIFETIME, least=3),
            "retention": 29 * DAY,  # results that are archived before they are read are another test's
            "cancel_takes": 0.1,
        }

    def faults(self) -> list[dict[str, object]]:
        """Return what goes wrong at the API all day long."""

        def often(kind: str, probability: float, **more: object) -> dict[str, object]:
            return {"kind": kind, "probability": probability, "times": None, **more}

        return [
            often("rows", 0.05, result="expired", fraction=0.2),
            often("rows", 0.05, result="errored", error_type="api_error", fraction=0.2),
            often("rows", 0.10, result="errored", error_type="invalid_request_error", fraction=0.1),
            often("stuck", 0.02, on="create"),
            often("status", 0.02, on="create", status=429, retry_after=1, early=True),
            often("status", 0.02, on="create", status=529),
            often("drop_reply", 0.02, on="create"),
            often("commit_then_status", 0.01, on="create", status=500),
            often("status", 0.02, on="retrieve", status=500),
            often("status", 0.02, on="list", status=503),
            often("cut_results", 0.03, fraction=0.5, mid_line=True),
        ]

"""Gauges that are read from the ledger when somebody scrapes, with one read for all of them.

Every replica reports the same values: dashboards take the maximum over replicas, never the sum.
"""

from collections.abc import Callable, Iterable

from prometheus_client import Metric
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from worker.core.figures import Figures, LaneFigures
from worker.telemetry.labels import STATES

_LANE = ("lane",)


class LedgerGauges(Collector):
    """Yields what `read` returns as metrics; while `read` fails, the scrape goes on without them.

    `read` must have a time limit of its own: a scrape waits for it. `failed` is told what `read` raised. `now` gives
    Unix seconds. `in_flight_limit` may be set anew when the configuration is loaded again.
    """

    def __init__(
        self,
        read: Callable[[], Figures],
        *,
        in_flight_limit: int,
        now: Callable[[], float],
        failed: Callable[[Exception], None] | None = None,
    ) -> None:
        self.in_flight_limit = in_flight_limit
        self._read = read
        self._now = now
        self._failed = failed

    def describe(self) -> Iterable[Metric]:
        """Name the families without reading, so that registering this needs no Redis."""
        return self._families(Figures(read_at=0.0, lanes=(), in_flight=0, evicting=False, sink_pending={}))

    def collect(self) -> Iterable[Metric]:
        """Read once and return all families, or none."""
        try:
            return self._families(self._read())
        except Exception as error:  # noqa: BLE001  # a scrape without the ledger is worth more than none
            if self._failed is not None:
                self._failed(error)
            return []

    def _families(self, figures: Figures) -> list[Metric]:
        families = [self._lane_family(figures.lanes, *column) for column in self._columns(figures.read_at)]
        families += [_enqueued(figures.lanes), _batches(figures.lanes)]
        for name, text, value in (
            ("api_in_flight_requests", "Prompts in remote batches that have not ended.", figures.in_flight),
            (
                "api_in_flight_limit",
                "How many prompts may be in flight; beyond it none are sent.",
                self.in_flight_limit,
            ),
            ("redis_evicting", "1 unless Redis' maxmemory-policy is noeviction.", figures.evicting),
            (
                "redis_emptied_timestamp_seconds",
                "Unix time at which Redis was found emptied; 0: never.",
                figures.emptied_at or 0.0,
            ),
        ):
            families.append(GaugeMetricFamily(f"batchmill_{name}", text, value=float(value)))
        pending = GaugeMetricFamily(
            "batchmill_sink_pending_batches", "Ended batches that the sink has not committed.", labels=("sink",)
        )
        for sink, count in figures.sink_pending.items():
            pending.add_metric((sink,), count)
        return [*families, pending]

    def _columns(self, read_at: float) -> Iterable[tuple[str, str, Callable[[LaneFigures], float]]]:
        # Redis stamped both the prompt and the reading; the API's instant has no clock of ours beside it.
        now = self._now()
        return (
            ("lane_depth", "Prompts that wait for a batch.", lambda lane: lane.depth),
            ("lane_bytes", "What Redis spends on the lane, waiting and in flight.", lambda lane: lane.bytes),
            (
                "lane_oldest_prompt_age_seconds",
                "How long the oldest waiting prompt has waited; 0: none waits.",
                lambda lane: _age(lane.oldest_prompt_at, read_at),
            ),
            ("dead_letters", "Prompts given up on, waiting for a person.", lambda lane: lane.dead_letters),
            (
                "lane_paused",
                "1 while nothing is submitted: paused by hand or parked by account trouble.",
                lambda lane: lane.paused is not None or lane.parked is not None,
            ),
            (
                "oldest_batch_age_seconds",
                "Since the API created the oldest open batch, which expires at 24 hours; 0: none is open.",
                lambda lane: _age(lane.oldest_batch_at, now),
            ),
            (
                "batches_in_doubt",
                "Batches of which nobody knows whether the API took them.",
                lambda lane: lane.in_doubt,
            ),
            ("batches_held", "Batches that need a decision by a person.", lambda lane: lane.held),
        )

    def _lane_family(
        self, lanes: tuple[LaneFigures, ...], name: str, text: str, value: Callable[[LaneFigures], float]
    ) -> Metric:
        family = GaugeMetricFamily(f"batchmill_{name}", text, labels=_LANE)
        for lane in lanes:
            family.add_metric((lane.lane,), float(value(lane)))
        return family


def _age(since: float | None, now: float) -> float:
    return 0.0 if since is None else max(0.0, now - since)


def _enqueued(lanes: tuple[LaneFigures, ...]) -> Metric:
    family = CounterMetricFamily(
        "batchmill_prompts_enqueued_total", "Prompts that entered the lane since it exists.", labels=_LANE
    )
    for lane in lanes:
        family.add_metric((lane.lane,), lane.enqueued)
    return family


def _batches(lanes: tuple[LaneFigures, ...]) -> Metric:
    family = GaugeMetricFamily("batchmill_batches", "Batches by state.", labels=("lane", "state"))
    for lane in lanes:
        for state in STATES:
            family.add_metric((lane.lane, state), lane.batches.get(state, 0))
    return family

"""Every metric that counts what this process did. What the ledger knows stands in `gauges.py`.

Names, types and labels are public: `contract.md` lists them, and a change breaks dashboards and alerts.
"""

from collections.abc import Iterable
from functools import partial

from prometheus_client import CollectorRegistry, Gauge

from worker.telemetry import labels
from worker.telemetry.instruments import Counter, Histogram

MINUTE, HOUR, MB = 60, 3_600, 1_000_000

# The API promises an answer within 24 hours, and most batches end within one.
TURNAROUND_SECONDS = (
    *(minutes * MINUTE for minutes in (1, 5, 15, 30)),
    *(hours * HOUR for hours in (1, 2, 4, 8, 12, 24)),
)
REQUEST_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
COMMIT_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300)
# Up to the API's own ceilings: 100,000 prompts and 256 MB a batch.
BATCH_PROMPTS = (1, 10, 100, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000)
BATCH_BYTES = tuple(size * MB for size in (0.01, 0.1, 1, 5, 10, 25, 50, 100, 200, 256))


class Metrics:
    """The instruments, one attribute each, registered in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, registry=registry)
        histogram = partial(Histogram, registry=registry)
        gauge = partial(Gauge, registry=registry)

        self.prompts_settled = counter(
            "batchmill_prompts_settled_total", "Prompts whose one outcome is recorded.", ("lane", "result")
        )
        self.prompts_retried = counter(
            "batchmill_prompts_retried_total", "Prompts put back for another attempt.", ("lane", "reason")
        )
        self.prompts_buried = counter(
            "batchmill_prompts_buried_total", "Prompts given up on, now dead letters.", ("lane", "reason")
        )
        self.prompt_turnaround = histogram(
            "batchmill_prompt_turnaround_seconds",
            "From the arrival of a prompt in its lane to its recorded outcome.",
            ("lane",),
            buckets=TURNAROUND_SECONDS,
        )

        self.batches_sealed = counter(
            "batchmill_batches_sealed_total", "Batches sealed, by what triggered it.", ("lane", "trigger")
        )
        self.batch_prompts = histogram(
            "batchmill_batch_prompts", "Prompts in a sealed batch.", ("lane",), buckets=BATCH_PROMPTS
        )
        self.batch_bytes = histogram(
            "batchmill_batch_bytes", "Size of the body of a sealed batch.", ("lane",), buckets=BATCH_BYTES
        )
        self.batch_turnaround = histogram(
            "batchmill_batch_turnaround_seconds",
            "From sealing a batch to having settled it.",
            ("lane",),
            buckets=TURNAROUND_SECONDS,
        )
        self.submissions_in_doubt = counter(
            "batchmill_submissions_in_doubt_total",
            "Submissions whose outcome was unknown, by how the doubt ended.",
            ("lane", "resolution"),
        )

        self.api_requests = counter(
            "batchmill_api_requests_total", "Requests to the Message Batches API.", ("operation", "outcome")
        )
        self.api_request_seconds = histogram(
            "batchmill_api_request_seconds",
            "How long a request to the Message Batches API took.",
            ("operation", "outcome"),
            buckets=REQUEST_SECONDS,
        )
        self.rate_limit_wait = counter(
            "batchmill_rate_limit_wait_seconds_total", "Time spent waiting for the account's rate limit."
        )
        self.tokens = counter("batchmill_tokens_total", "Tokens billed, by model and kind.", ("lane", "model", "kind"))
        self.cost = counter(
            "batchmill_cost_microdollars_total",
            "Estimated cost at batch prices in millionths of a US dollar; models without a known price are missing.",
            ("lane", "model"),
        )

        self.sink_rows = counter("batchmill_sink_rows_total", "Rows committed to a sink.", ("sink",))
        self.sink_bytes = counter("batchmill_sink_bytes_total", "Bytes committed to a sink.", ("sink",))
        self.sink_commit = histogram(
            "batchmill_sink_commit_seconds", "How long a delivery took.", ("sink",), buckets=COMMIT_SECONDS
        )
        self.sink_errors = counter("batchmill_sink_errors_total", "Deliveries that failed.", ("sink", "error_type"))
        self.sink_last_success = gauge(
            "batchmill_sink_last_success_timestamp_seconds",
            "Unix time of the last delivery by this process; 0: none yet.",
            ("sink",),
        )

        self.poll_last_success = gauge(
            "batchmill_poll_last_success_timestamp_seconds",
            "Unix time of the last successful look at the open batches by this process; 0: none yet.",
        )
        self.role_last_tick = gauge(
            "batchmill_role_last_tick_timestamp_seconds",
            "Unix time of the last turn of a role's loop in this process.",
            ("role",),
        )
        self.role_errors = counter(
            "batchmill_role_errors_total", "Unexpected errors that ended a step of a role.", ("role",)
        )
        self.build_info = gauge(
            "batchmill_build_info", "Always 1; which version runs on which Python.", ("version", "python")
        )

        self._of_lanes = [one for one in vars(self).values() if "lane" in one._labelnames]  # noqa: SLF001 - the library does not tell

    def prepare(self, lanes: Iterable[str], sinks: Iterable[str]) -> None:
        """Let every known label set start at 0, so that `rate()` sees the first event."""
        for lane in lanes:
            self._prepare_lane(lane)
        for sink in sinks:
            for instrument in (self.sink_rows, self.sink_bytes, self.sink_commit, self.sink_last_success):
                instrument.labels(sink)
            for error_type in labels.SINK_ERRORS:
                self.sink_errors.labels(sink, error_type)
        for operation in labels.OPERATIONS:
            # A histogram is fifteen series: those of the failures appear with the first failure.
            self.api_request_seconds.labels(operation, "ok")
            for outcome in labels.OUTCOMES:
                self.api_requests.labels(operation, outcome)
        for role in labels.ROLES:
            self.role_errors.labels(role)

    def forget(self, lanes: Iterable[str]) -> None:
        """Remove every label set of these lanes, in one pass: the library's own way takes a pass for each lane."""
        gone = set(lanes)
        for instrument in self._of_lanes if gone else ():
            place = instrument._labelnames.index("lane")  # noqa: SLF001 - the library does not tell
            for values in list(instrument._metrics):  # noqa: SLF001 - the library does not tell
                if values[place] in gone:
                    instrument.remove(*values)

    def _prepare_lane(self, lane: str) -> None:
        for family, values in (
            (self.prompts_settled, labels.RESULTS),
            (self.prompts_retried, labels.RETRY_REASONS),
            (self.prompts_buried, labels.BURY_REASONS),
            (self.batches_sealed, labels.TRIGGERS),
            (self.submissions_in_doubt, labels.RESOLUTIONS),
        ):
            for value in values:
                family.labels(lane, value)
        for histogram in (self.prompt_turnaround, self.batch_prompts, self.batch_bytes, self.batch_turnaround):
            histogram.labels(lane)

"""Everything that happens, one method each: it makes the log line and counts, so that nobody tells a thing twice.

Log lines name ids, metrics never do. No method takes a prompt, an answer or a message of the API: a `reason` is a
word (`overloaded_error`), and a label that is no known word ends as `other`.
"""

import platform
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector

from worker.core.model import Batch, RemoteBatch, ResultType
from worker.telemetry import labels
from worker.telemetry.labels import Bounded
from worker.telemetry.log import logger
from worker.telemetry.metrics import Metrics


class Telemetry:
    """The one place that writes log lines and counts. Safe to use from any thread.

    `registry` is a new one with the figures of the process if none is given; `now` gives Unix seconds.
    """

    def __init__(
        self, *, version: str, registry: CollectorRegistry | None = None, now: Callable[[], float] = time.time
    ) -> None:
        self.registry = CollectorRegistry(auto_describe=True) if registry is None else registry
        if registry is None:
            ProcessCollector(registry=self.registry)
        self._metrics = Metrics(self.registry)
        self._metrics.build_info.labels(version, platform.python_version()).set(1)
        self._log = logger()
        self._now = now
        self._lock = threading.Lock()
        self._lost: set[str] = set()
        self._unpriced: set[str] = set()
        self._blocking: set[str] = set()
        self._orphaned: set[str] = set()
        self._model = Bounded()
        self._retry_reason = Bounded(labels.RETRY_REASONS)
        self._bury_reason = Bounded(labels.BURY_REASONS)
        self._error_type = Bounded(labels.SINK_ERRORS)
        self._operation = Bounded(labels.OPERATIONS)
        self._outcome = Bounded(labels.OUTCOMES)

    def prepare(self, lanes: Iterable[str], sinks: Iterable[str]) -> None:
        """Let every known label set of these lanes and sinks start at 0. May be called again when there are more."""
        self._metrics.prepare(lanes, sinks)

    # Sealing and submitting

    def batch_sealed(self, batch: Batch) -> None:
        """Tell that the head of a window became a batch."""
        self._metrics.batches_sealed.labels(batch.lane, batch.trigger).inc()
        self._metrics.batch_prompts.labels(batch.lane).observe(batch.count)
        self._metrics.batch_bytes.labels(batch.lane).observe(batch.bytes)
        self._log.info("batch.sealed", **_ids(batch), count=batch.count, bytes=batch.bytes, trigger=batch.trigger.value)

    def prompts_refused(self, lane: str, reasons: Mapping[str, int]) -> None:
        """Tell how many prompts of a range were found unusable at the door; `batch_settled` counts them as buried."""
        self._log.warning("prompts.refused", lane=lane, reasons=dict(reasons))

    def batch_submitted(self, batch: Batch) -> None:
        """Tell that the API has accepted a batch."""
        self._log.info("batch.submitted", **_ids(batch), attempt=batch.attempt, count=batch.count)

    def submission_in_doubt(self, batch: Batch, reason: str) -> None:
        """Tell that nobody knows whether the API has taken a batch; counted when the doubt ends."""
        self._log.warning("submission.doubted", **_ids(batch), attempt=batch.attempt, reason=reason)

    def doubt_resolved(self, batch: Batch, resolution: str) -> None:
        """Tell how a doubt ended: `adopted`, `resubmitted` or `rejected`."""
        known = resolution if resolution in labels.RESOLUTIONS else labels.OTHER
        self._metrics.submissions_in_doubt.labels(batch.lane, known).inc()
        self._log.info("doubt.resolved", **_ids(batch), attempt=batch.attempt, resolution=resolution)

    def submission_refused(self, batch: Batch, *, status: int | None, reason: str, action: str) -> None:
        """Tell that the API refused a batch for good, and what is done about it."""
        self._log.warning(
            "submission.refused", **_ids(batch), status=status, reason=reason, action=action, attempt=batch.attempt
        )

    def submission_postponed(self, batch: Batch, reason: str, seconds: float) -> None:
        """Tell that a batch is tried again in so many seconds."""
        self._log.info("submission.postponed", **_ids(batch), reason=reason, retry_in_seconds=_short(seconds))

    def batch_split(self, batch: Batch, parts: int) -> None:
        """Tell that a batch was divided into smaller ones."""
        self._log.info("batch.split", **_ids(batch), parts=parts)

    # In the API's hands, and back

    def batch_canceled(self, batch: Batch) -> None:
        """Tell that the API was asked to cancel a batch."""
        self._log.info("batch.canceled", **_ids(batch))

    def batch_ended(self, batch: Batch) -> None:
        """Tell that the remote batch has ended and its results can be drained."""
        counts = batch.counts
        tally = {name.value: getattr(counts, name.value) for name in labels.RESULTS} if counts else {}
        self._log.info("batch.ended", **_ids(batch), **tally)

    def batch_delivered(self, batch: Batch, *, sink: str, rows: int, nbytes: int, seconds: float) -> None:
        """Tell that a sink has committed the rows of a batch."""
        self._metrics.sink_rows.labels(sink).inc(rows)
        self._metrics.sink_bytes.labels(sink).inc(nbytes)
        self._metrics.sink_commit.labels(sink).observe(seconds)
        self._metrics.sink_last_success.labels(sink).set(self._now())
        self._log.info("batch.delivered", **_ids(batch), sink=sink, rows=rows, bytes=nbytes, seconds=_short(seconds))

    def batch_settled(
        self,
        batch: Batch,
        *,
        results: Mapping[ResultType, int],
        retried: Mapping[str, int],
        buried: Mapping[str, int],
        seconds: float,
        prompt_seconds: Iterable[float],
    ) -> None:
        """Tell that every prompt of a batch has its outcome or another attempt.

        `retried` and `buried` map reasons to numbers of prompts; `seconds` is the time since the batch was sealed and
        `prompt_seconds` that since each settled prompt arrived: any iterable, consumed once and never held.
        """
        lane = batch.lane
        for result, count in results.items():
            self._metrics.prompts_settled.labels(lane, result.value).inc(count)
        for reason, count in retried.items():
            self._metrics.prompts_retried.labels(lane, self._retry_reason(reason)).inc(count)
        for reason, count in buried.items():
            self._metrics.prompts_buried.labels(lane, self._bury_reason(reason)).inc(count)
        self._metrics.batch_turnaround.labels(lane).observe(max(0.0, seconds))
        self._metrics.prompt_turnaround.labels(lane).observe_many(prompt_seconds)
        self._log.info(
            "batch.settled",
            **_ids(batch),
            results={result.value: count for result, count in results.items()},
            retried=dict(retried),
            buried=dict(buried),
            seconds=_short(seconds),
        )

    def usage(
        self,
        lane: str,
        model: str,
        *,
        input: int,  # noqa: A002  # the API's word
        output: int,
        cache_read: int,
        cache_write_5m: int,
        cache_write_1h: int,
        microdollars: int | None,
    ) -> None:
        """Count tokens and money; `microdollars` is None for a model whose price is not known, which is not 0."""
        label = self._model(model)
        counts = (input, output, cache_read, cache_write_5m, cache_write_1h)
        for kind, count in zip(labels.TOKEN_KINDS, counts, strict=True):
            self._metrics.tokens.labels(lane, label, kind).inc(count)
        if microdollars is not None:
            self._metrics.cost.labels(lane, label).inc(microdollars)
        elif self._first(self._unpriced, label):
            self._log.warning("model.unpriced", lane=lane, model=label, hint="its cost is missing from the totals")

    def results_truncated(self, batch: Batch, reason: str, failures: int) -> None:
        """Tell that a stream of results did not add up and will be read again."""
        self._log.warning("results.truncated", **_ids(batch), reason=reason, failures=failures)

    def foreign_line(self, batch: Batch) -> None:
        """Tell that the results of a batch hold a line that is not ours. Once per reading, not once per line."""
        self._log.error("results.disowned", **_ids(batch), attempt=batch.attempt)

    # What needs a person, or waits for one

    def batch_held(self, batch: Batch, reason: str) -> None:
        """Tell that a batch needs a decision no rule can take."""
        self._log.warning(
            "batch.held", **_ids(batch), reason=reason, hint="batchmill batches show, then batches resolve"
        )

    def batch_resolved(self, batch: Batch, how: str) -> None:
        """Tell what a person decided about a held batch."""
        self._log.info("batch.resolved", **_ids(batch), how=how)

    def lane_parked(self, lane: str, reason: str) -> None:
        """Tell that account trouble stopped a lane."""
        self._log.warning(
            "lane.parked", lane=lane, reason=reason, hint="probed by itself; batchmill resume ends it at once"
        )

    def lane_unparked(self, lane: str) -> None:
        """Tell that the account works again."""
        self._log.info("lane.unparked", lane=lane)

    def lane_paused(self, lane: str, reason: str) -> None:
        """Tell that somebody stopped a lane."""
        self._log.info("lane.paused", lane=lane, reason=reason)

    def lane_resumed(self, lane: str) -> None:
        """Tell that somebody started a lane again."""
        self._log.info("lane.resumed", lane=lane)

    def lane_ended(self, lane: str) -> None:
        """Tell that nothing is left of a lane that nobody configured."""
        self._log.info("lane.ended", lane=lane)

    def forget(self, lanes: Iterable[str]) -> None:
        """Give up the label sets of lanes that are gone: a process lives longer than they do."""
        self._metrics.forget(lanes)

    def sink_failed(self, sink: str, *, error_type: str, retryable: bool, retry_in: float, hint: str) -> None:
        """Tell that a delivery failed, and when it is tried again (seconds)."""
        self._metrics.sink_errors.labels(sink, self._error_type(error_type)).inc()
        self._log.warning(
            "sink.failed",
            sink=sink,
            error_type=error_type,
            retryable=retryable,
            retry_in_seconds=_short(retry_in),
            hint=hint,
        )

    # The API and Redis

    def api_request(self, operation: str, outcome: str, seconds: float) -> None:
        """Count a request to the API; see `labels.py` for the words."""
        words = (self._operation(operation), self._outcome(outcome))
        self._metrics.api_requests.labels(*words).inc()
        self._metrics.api_request_seconds.labels(*words).observe(seconds)
        self._log.debug("api.requested", operation=operation, outcome=outcome, seconds=_short(seconds))

    def rate_limit_waited(self, seconds: float) -> None:
        """Count the time a request was held back for the account's rate limit."""
        self._metrics.rate_limit_wait.inc(max(0.0, seconds))
        self._log.debug("rate_limit.waited", seconds=_short(seconds))

    def redis_lost(self, role: str, error_name: str) -> None:
        """Tell, once until `redis_back`, that a role cannot reach Redis."""
        if self._first(self._lost, role):
            self._log.warning("redis.lost", role=role, error_type=error_name)

    def redis_back(self, role: str) -> None:
        """Tell that a role reaches Redis again; says nothing if it always did."""
        with self._lock:
            was_lost = role in self._lost
            self._lost.discard(role)
        if was_lost:
            self._log.info("redis.returned", role=role)

    def redis_emptied(self, deployment: str) -> None:
        """Tell that Redis has forgotten everything, and what can still be done."""
        self._log.error(
            "redis.emptied",
            deployment=deployment,
            hint="prompts and batches are forgotten: pause, restore a backup if there is one, and start anew; "
            "results of batches that ran stay at the API for 29 days",
        )

    def redis_weak(self, weakness: str, detail: str, hint: str, *, grave: bool) -> None:
        """Tell what of the server endangers a promise."""
        say = self._log.error if grave else self._log.warning
        say("redis.weak", weakness=weakness, detail=detail, hint=hint)

    def redis_strong(self, weakness: str) -> None:
        """Tell that a weakness of the server is gone."""
        self._log.info("redis.mended", weakness=weakness)

    def lane_forgotten(self, lane: str) -> None:
        """Tell that the record of a lane was deleted while it had batches, and was put together again."""
        self._log.error(
            "lane.forgotten",
            lane=lane,
            hint="somebody deleted the lane's hash: its cursor is back, a pause of it is not; deny DEL by an ACL",
        )

    def lane_rewound(self, lane: str) -> None:
        """Tell that all prompts of a lane had ids from before its cursor, and that they are sealed all the same."""
        self._log.error(
            "lane.rewound",
            lane=lane,
            hint="somebody deleted the stream and a clock went back, or ids were made by hand: use XADD with *",
        )

    def prompts_deleted(self, lane: str, entry_id: str) -> None:
        """Tell that somebody deletes prompts which wait for a batch."""
        self._log.error(
            "prompts.deleted",
            lane=lane,
            entry_id=entry_id,
            hint="waiting prompts were deleted from the stream: no XDEL, XTRIM or MAXLEN by producers",
        )

    def prompts_vanished(self, batch: Batch, count: int) -> None:
        """Tell that prompts of a sealed batch were deleted, and that it goes on with the rest."""
        self._log.error(
            "prompts.vanished",
            **_ids(batch),
            count=count,
            hint="somebody deleted them from the stream, they get no row: no XDEL, XTRIM, MAXLEN or DEL by producers",
        )

    def remote_orphaned(self, uid: str, remote: RemoteBatch) -> None:
        """Tell, once, of a remote batch of ours whose prompts are gone."""
        if not self._first(self._orphaned, remote.id):
            return
        self._log.error(
            "remote.orphaned",
            batch=uid,
            batch_id=remote.id,
            count=remote.counts.total,
            hint="paid for and nobody's: fetch its results from the API by hand, or let them go",
        )

    # The process

    def role_ticked(self, role: str) -> None:
        """Note that the loop of a role has turned."""
        self._metrics.role_last_tick.labels(role).set(self._now())

    def poll_succeeded(self) -> None:
        """Note that the open batches were looked at."""
        self._metrics.poll_last_success.set(self._now())

    def role_failed(self, role: str, exception: BaseException) -> None:
        """Tell that a step ended in an error nobody expected, with its traceback."""
        self._metrics.role_errors.labels(role if role in labels.ROLES else labels.OTHER).inc()
        self._log.error("role.failed", role=role, error_type=type(exception).__name__, exc_info=exception)

    def daemon_started(self, **facts: object) -> None:
        """Tell what runs here."""
        self._log.info("daemon.started", **facts)

    def daemon_stopping(self, reason: str) -> None:
        """Tell that no new work is taken, and why."""
        self._log.info("daemon.stopping", reason=reason)

    def daemon_stopped(self, seconds: float) -> None:
        """Tell how long the end has taken."""
        self._log.info("daemon.stopped", seconds=_short(seconds))

    def embedded_started(self, **facts: object) -> None:
        """Tell about the server of our own."""
        self._log.info("embedded.started", **facts)

    def recovery_started(self, lane: str) -> None:
        """Tell that a lane is looked through after Redis was restarted."""
        self._log.info("recovery.started", lane=lane)

    def recovery_finished(self, lane: str, seconds: float) -> None:
        """Tell that a lane may seal and submit again."""
        self._log.info("recovery.finished", lane=lane, seconds=_short(seconds))

    def recovery_blocked(self, lane: str, remote_id: str, lines: int, count: int) -> None:
        """Tell, once for each, of results that keep a lane from being recovered: they do not hold every prompt."""
        if self._first(self._blocking, remote_id):
            self._log.error(
                "recovery.blocked",
                lane=lane,
                batch_id=remote_id,
                lines=lines,
                count=count,
                hint="read again until they do; if they never will, batches delete: its prompts are then sent again",
            )

    def barrier_chosen(self, kind: str, reason: str) -> None:
        """Tell how writes are made durable before the last byte of a submission."""
        self._log.info("barrier.chosen", kind=kind, reason=reason)

    def warning(self, event: str, /, **fields: object) -> None:
        """Write a warning that has no method of its own."""
        self._log.warning(event, **fields)

    def info(self, event: str, /, **fields: object) -> None:
        """Write a line that has no method of its own."""
        self._log.info(event, **fields)

    def _first(self, seen: set[str], name: str) -> bool:
        with self._lock:
            if name in seen:
                return False
            seen.add(name)
            return True


def _ids(batch: Batch) -> dict[str, str]:
    ids = {"lane": batch.lane, "batch": batch.uid}
    return ids if batch.remote_id is None else ids | {"batch_id": batch.remote_id}


def _short(seconds: float) -> float:
    return round(seconds, 3)

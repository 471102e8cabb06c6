import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from worker.core.model import Batch, RequestCounts, ResultType
from worker.telemetry import Telemetry

Happening = Callable[[Telemetry, Batch], None]

# Every method with a line: what happens, the event, its level.
HAPPENINGS: list[tuple[Happening, str, str]] = [
    (lambda t, b: t.batch_sealed(b), "batch.sealed", "INFO"),
    (lambda t, b: t.prompts_refused(b.lane, {"not_json": 2}), "prompts.refused", "WARNING"),
    (lambda t, b: t.batch_submitted(b), "batch.submitted", "INFO"),
    (lambda t, b: t.submission_in_doubt(b, "timeout"), "submission.doubted", "WARNING"),
    (lambda t, b: t.doubt_resolved(b, "adopted"), "doubt.resolved", "INFO"),
    (
        lambda t, b: t.submission_refused(b, status=413, reason="too_large", action="split"),
        "submission.refused",
        "WARNING",
    ),
    (lambda t, b: t.submission_postponed(b, "rate_limit", 5.0), "submission.postponed", "INFO"),
    (lambda t, b: t.batch_split(b, 2), "batch.split", "INFO"),
    (lambda t, b: t.batch_canceled(b), "batch.canceled", "INFO"),
    (lambda t, b: t.batch_ended(b), "batch.ended", "INFO"),
    (lambda t, b: t.batch_delivered(b, sink="s", rows=1, nbytes=2, seconds=0.5), "batch.delivered", "INFO"),
    (
        lambda t, b: t.batch_settled(
            b, results={ResultType.SUCCEEDED: 1}, retried={}, buried={}, seconds=1.0, prompt_seconds=[1.0]
        ),
        "batch.settled",
        "INFO",
    ),
    (lambda t, b: t.results_truncated(b, "short", 1), "results.truncated", "WARNING"),
    (lambda t, b: t.foreign_line(b), "results.disowned", "ERROR"),
    (lambda t, b: t.batch_held(b, "deleted"), "batch.held", "WARNING"),
    (lambda t, b: t.batch_resolved(b, "bury"), "batch.resolved", "INFO"),
    (lambda t, b: t.lane_parked(b.lane, "billing"), "lane.parked", "WARNING"),
    (lambda t, b: t.lane_unparked(b.lane), "lane.unparked", "INFO"),
    (lambda t, b: t.lane_paused(b.lane, "by hand"), "lane.paused", "INFO"),
    (lambda t, b: t.lane_resumed(b.lane), "lane.resumed", "INFO"),
    (
        lambda t, _: t.sink_failed("s", error_type="io", retryable=True, retry_in=1.0, hint="look"),
        "sink.failed",
        "WARNING",
    ),
    (lambda t, _: t.api_request("create", "ok", 0.5), "api.requested", "DEBUG"),
    (lambda t, _: t.rate_limit_waited(0.5), "rate_limit.waited", "DEBUG"),
    (lambda t, _: t.redis_lost("poller", "TimeoutError"), "redis.lost", "WARNING"),
    (lambda t, _: t.role_failed("poller", TypeError("x")), "role.failed", "ERROR"),
    (lambda t, _: t.daemon_started(roles=["batcher"]), "daemon.started", "INFO"),
    (lambda t, _: t.daemon_stopping("SIGTERM"), "daemon.stopping", "INFO"),
    (lambda t, _: t.daemon_stopped(0.5), "daemon.stopped", "INFO"),
    (lambda t, _: t.embedded_started(port=1), "embedded.started", "INFO"),
    (lambda t, b: t.recovery_started(b.lane), "recovery.started", "INFO"),
    (lambda t, b: t.recovery_finished(b.lane, 0.5), "recovery.finished", "INFO"),
    (lambda t, _: t.barrier_chosen("waitaof", "server 7.2"), "barrier.chosen", "INFO"),
    (lambda t, _: t.warning("disk.filled"), "disk.filled", "WARNING"),
    (lambda t, _: t.info("disk.emptied"), "disk.emptied", "INFO"),
]


@pytest.fixture
def telemetry() -> Telemetry:
    """Telemetry whose clock stands still."""
    return Telemetry(version="1", now=lambda: 5_000.0)


def fields(caplog: pytest.LogCaptureFixture) -> list[Mapping[str, object]]:
    """Return the fields of every line so far."""
    return [record.msg for record in caplog.records if isinstance(record.msg, dict)]


def value(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    """Return one sample, None if there is no such series."""
    return telemetry.registry.get_sample_value(f"batchmill_{name}", labels)


@pytest.mark.parametrize("happening", HAPPENINGS, ids=[event for _, event, _ in HAPPENINGS])
def test_what_happens_is_told_in_exactly_one_line(
    telemetry: Telemetry, batch: Batch, caplog: pytest.LogCaptureFixture, happening: tuple[Happening, str, str]
) -> None:
    """One event, one level; where a batch is meant, its ids are there."""
    caplog.set_level(logging.DEBUG)
    happen, event, level = happening
    happen(telemetry, batch)
    assert [(line["event"], record.levelname) for line, record in zip(fields(caplog), caplog.records, strict=True)] == [
        (event, level)
    ]
    if event.partition(".")[0] in ("batch", "submission", "doubt", "results"):
        assert fields(caplog)[0]["batch"] == batch.uid
        assert fields(caplog)[0]["batch_id"] == batch.remote_id


def test_a_sealed_batch_is_counted_by_trigger_and_size(telemetry: Telemetry, batch: Batch) -> None:
    """Its prompts and bytes fall into the buckets they reach."""
    telemetry.batch_sealed(batch)
    assert value(telemetry, "batches_sealed_total", lane="bulk", trigger="count") == 1
    assert value(telemetry, "batch_prompts_bucket", lane="bulk", le="500.0") == 0
    assert value(telemetry, "batch_prompts_bucket", lane="bulk", le="1000.0") == 1
    assert value(telemetry, "batch_bytes_sum", lane="bulk") == 2_000_000


def test_a_delivery_is_counted_for_its_sink(telemetry: Telemetry, batch: Batch) -> None:
    """Rows, bytes, duration, and when it was."""
    telemetry.batch_delivered(batch, sink="results", rows=10, nbytes=1_234, seconds=0.5)
    assert value(telemetry, "sink_rows_total", sink="results") == 10
    assert value(telemetry, "sink_bytes_total", sink="results") == 1_234
    assert value(telemetry, "sink_commit_seconds_sum", sink="results") == 0.5
    assert value(telemetry, "sink_last_success_timestamp_seconds", sink="results") == 5_000.0


def test_a_doubt_is_counted_when_it_ends_not_when_it_begins(telemetry: Telemetry, batch: Batch) -> None:
    """Its label is how it ended, and that is one of three words."""
    telemetry.submission_in_doubt(batch, "timeout")
    telemetry.doubt_resolved(batch, "adopted")
    telemetry.doubt_resolved(batch, "guessed")
    assert value(telemetry, "submissions_in_doubt_total", lane="bulk", resolution="adopted") == 1
    assert value(telemetry, "submissions_in_doubt_total", lane="bulk", resolution="guessed") is None


def test_requests_failures_ticks_and_polls_are_counted(telemetry: Telemetry) -> None:
    """Each under its words, with the time of the given clock."""
    telemetry.api_request("create", "in_doubt", 2.0)
    telemetry.rate_limit_waited(1.5)
    telemetry.sink_failed("results", error_type="io", retryable=True, retry_in=1.0, hint="")
    telemetry.role_failed("poller", TypeError("x"))
    telemetry.role_failed("stranger", TypeError("x"))
    telemetry.role_ticked("poller")
    telemetry.poll_succeeded()
    assert value(telemetry, "api_requests_total", operation="create", outcome="in_doubt") == 1
    assert value(telemetry, "api_request_seconds_sum", operation="create", outcome="in_doubt") == 2.0
    assert value(telemetry, "rate_limit_wait_seconds_total") == 1.5
    assert value(telemetry, "sink_errors_total", sink="results", error_type="io") == 1
    assert value(telemetry, "role_errors_total", role="poller") == 1
    assert value(telemetry, "role_errors_total", role="other") == 1
    assert value(telemetry, "role_last_tick_timestamp_seconds", role="poller") == 5_000.0
    assert value(telemetry, "poll_last_success_timestamp_seconds") == 5_000.0


def test_tokens_are_counted_by_kind_and_money_by_model(telemetry: Telemetry) -> None:
    """Each kind is billed at another rate."""
    telemetry.usage("a", "m", input=1, output=2, cache_read=3, cache_write_5m=4, cache_write_1h=5, microdollars=9)
    kinds = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
    assert [value(telemetry, "tokens_total", lane="a", model="m", kind=kind) for kind in kinds] == [1, 2, 3, 4, 5]
    assert value(telemetry, "cost_microdollars_total", lane="a", model="m") == 9


def test_a_model_without_a_price_is_warned_of_once_and_costs_not_zero(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    """A cost that is not known has no series: 0 would be a lie, and a warning per prompt a flood."""
    for model in ("m", "n", "m"):
        telemetry.usage(
            "a", model, input=1, output=0, cache_read=0, cache_write_5m=0, cache_write_1h=0, microdollars=None
        )
    assert [line["model"] for line in fields(caplog)] == ["m", "n"]
    assert value(telemetry, "cost_microdollars_total", lane="a", model="m") is None


def test_a_lost_redis_is_told_once_per_role_until_it_is_back(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    """A try per second for an hour is one line, and so is the return."""
    caplog.set_level(logging.INFO)
    telemetry.redis_back("poller")
    for role in ("poller", "poller", "drainer"):
        telemetry.redis_lost(role, "TimeoutError")
    telemetry.redis_back("poller")
    telemetry.redis_back("poller")
    telemetry.redis_lost("poller", "TimeoutError")
    assert [(line["event"], line["role"]) for line in fields(caplog)] == [
        ("redis.lost", "poller"),
        ("redis.lost", "drainer"),
        ("redis.returned", "poller"),
        ("redis.lost", "poller"),
    ]


def test_an_ended_batch_names_its_tally(batch: Batch, telemetry: Telemetry, caplog: pytest.LogCaptureFixture) -> None:
    """All four outcomes, also those that are 0."""
    caplog.set_level(logging.INFO)
    telemetry.batch_ended(replace(batch, counts=RequestCounts(succeeded=9, expired=1)))
    line = fields(caplog)[0]
    assert [line[name] for name in ("succeeded", "errored", "canceled", "expired")] == [9, 0, 0, 1]


def test_a_batch_without_a_remote_batch_names_none(
    telemetry: Telemetry, batch: Batch, caplog: pytest.LogCaptureFixture
) -> None:
    """A sealed batch has no id of the API yet."""
    caplog.set_level(logging.INFO)
    telemetry.batch_sealed(replace(batch, remote_id=None))
    assert "batch_id" not in fields(caplog)[0]


def test_a_price_of_zero_is_a_price(telemetry: Telemetry, caplog: pytest.LogCaptureFixture) -> None:
    """Only None says that nobody knows."""
    telemetry.usage("a", "m", input=1, output=0, cache_read=0, cache_write_5m=0, cache_write_1h=0, microdollars=0)
    assert caplog.records == []
    assert value(telemetry, "cost_microdollars_total", lane="a", model="m") == 0

import threading
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from worker.core.figures import Figures, LaneFigures
from worker.core.model import Batch, ResultType, State
from worker.sinks.protocol import ErrorType
from worker.telemetry import LedgerGauges, Telemetry, labels
from worker.telemetry.instruments import Histogram
from worker.telemetry.labels import Bounded

# Section 7 of the contract, by hand: a test that reads the code it tests would agree with any slip.
CONTRACT = {
    "batchmill_prompts_enqueued_total": ("counter", {"lane"}),
    "batchmill_prompts_settled_total": ("counter", {"lane", "result"}),
    "batchmill_prompts_retried_total": ("counter", {"lane", "reason"}),
    "batchmill_prompts_buried_total": ("counter", {"lane", "reason"}),
    "batchmill_lane_depth": ("gauge", {"lane"}),
    "batchmill_lane_bytes": ("gauge", {"lane"}),
    "batchmill_lane_oldest_prompt_age_seconds": ("gauge", {"lane"}),
    "batchmill_batches_sealed_total": ("counter", {"lane", "trigger"}),
    "batchmill_batches": ("gauge", {"lane", "state"}),
    "batchmill_batch_prompts": ("histogram", {"lane"}),
    "batchmill_batch_bytes": ("histogram", {"lane"}),
    "batchmill_batch_turnaround_seconds": ("histogram", {"lane"}),
    "batchmill_prompt_turnaround_seconds": ("histogram", {"lane"}),
    "batchmill_submissions_in_doubt_total": ("counter", {"lane", "resolution"}),
    "batchmill_api_requests_total": ("counter", {"operation", "outcome"}),
    "batchmill_api_request_seconds": ("histogram", {"operation", "outcome"}),
    "batchmill_api_in_flight_requests": ("gauge", set()),
    "batchmill_api_in_flight_limit": ("gauge", set()),
    "batchmill_tokens_total": ("counter", {"lane", "model", "kind"}),
    "batchmill_cost_microdollars_total": ("counter", {"lane", "model"}),
    "batchmill_sink_rows_total": ("counter", {"sink"}),
    "batchmill_sink_bytes_total": ("counter", {"sink"}),
    "batchmill_sink_commit_seconds": ("histogram", {"sink"}),
    "batchmill_sink_errors_total": ("counter", {"sink", "error_type"}),
    "batchmill_sink_pending_batches": ("gauge", {"sink"}),
    "batchmill_sink_last_success_timestamp_seconds": ("gauge", {"sink"}),
    "batchmill_dead_letters": ("gauge", {"lane"}),
    "batchmill_lane_paused": ("gauge", {"lane"}),
    "batchmill_oldest_batch_age_seconds": ("gauge", {"lane"}),
    "batchmill_batches_in_doubt": ("gauge", {"lane"}),
    "batchmill_batches_held": ("gauge", {"lane"}),
    "batchmill_poll_last_success_timestamp_seconds": ("gauge", set()),
    "batchmill_role_last_tick_timestamp_seconds": ("gauge", {"role"}),
    "batchmill_rate_limit_wait_seconds_total": ("counter", set()),
    "batchmill_redis_evicting": ("gauge", set()),
    "batchmill_build_info": ("gauge", {"version", "python"}),
}
BEYOND_THE_CONTRACT = {
    "batchmill_role_errors_total": ("counter", {"role"}),
    "batchmill_redis_emptied_timestamp_seconds": ("gauge", set()),
}

NOW = 10_000.0
LANE = LaneFigures(
    lane="bulk",
    depth=7,
    bytes=700,
    enqueued=1_007,
    batches={State.SEALED: 2, State.HELD: 1},
    in_doubt=1,
    held=1,
    dead_letters=3,
    oldest_prompt_at=9_000.0,
    oldest_batch_at=6_400.0,
    parked="credit",
)
FIGURES = Figures(read_at=9_990.0, lanes=(LANE,), in_flight=500, evicting=True, sink_pending={"results": 4})


def unreachable() -> Figures:
    """Raise what a lost Redis raises."""
    raise ConnectionError("refused")


@pytest.fixture
def telemetry() -> Telemetry:
    """Telemetry whose clock stands still at NOW."""
    return Telemetry(version="1.2.3", now=lambda: NOW)


def gauges(telemetry: Telemetry) -> LedgerGauges:
    """Register gauges that read FIGURES."""
    made = LedgerGauges(lambda: FIGURES, in_flight_limit=200_000, now=lambda: NOW)
    telemetry.registry.register(made)
    return made


def value(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    """Return one sample, None if there is no such series."""
    return telemetry.registry.get_sample_value(name, labels)


def happen(telemetry: Telemetry, batch: Batch) -> None:
    """Make everything happen that labels its metrics with words not known beforehand."""
    telemetry.usage("bulk", "m", input=1, output=2, cache_read=3, cache_write_5m=4, cache_write_1h=5, microdollars=9)
    telemetry.role_ticked("batcher")
    telemetry.batch_sealed(batch)


def test_names_types_and_labels_are_those_of_the_contract(telemetry: Telemetry, batch: Batch) -> None:
    """Dashboards and alerts of others depend on each of them."""
    telemetry.prepare(["bulk"], ["results"])
    gauges(telemetry)
    happen(telemetry, batch)
    found = {}
    for family in parse_text(generate_latest(telemetry.registry).decode()):
        if family.name.startswith("batchmill_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found[name] = (family.type, {label for sample in family.samples for label in sample.labels} - {"le"})
    assert found == CONTRACT | BEYOND_THE_CONTRACT


def test_the_openmetrics_exposition_is_valid_and_has_no_created_series(telemetry: Telemetry, batch: Batch) -> None:
    """The client's own strict parser reads it, and no series doubles as the time of its creation."""
    telemetry.prepare(["bulk"], ["results"])
    gauges(telemetry)
    happen(telemetry, batch)
    text = openmetrics.generate_latest(telemetry.registry).decode()  # type: ignore[no-untyped-call]
    parsed = parse_openmetrics(text)  # type: ignore[no-untyped-call]  # theirs is untyped
    families = {family.name for family in parsed}
    assert "batchmill_prompts_enqueued" in families
    assert "_created" not in text


def test_other_metrics_of_the_process_keep_their_created_series() -> None:
    """Leaving ours out is no setting of the whole process."""
    import prometheus_client  # noqa: PLC0415  # the plain one, beside ours

    registry = CollectorRegistry()
    prometheus_client.Counter("theirs", "Of somebody else.", registry=registry)
    Telemetry(version="1", registry=registry)
    text = openmetrics.generate_latest(registry).decode()  # type: ignore[no-untyped-call]
    assert "theirs_created" in text


def test_known_label_sets_start_at_zero(telemetry: Telemetry) -> None:
    """The first error must be a rise, not a series that was not there before."""
    telemetry.prepare(["a", "b"], ["results"])
    telemetry.prepare(["a", "b"], ["results"])
    for name, given in (
        ("batchmill_prompts_settled_total", {"lane": "b", "result": "expired"}),
        ("batchmill_prompts_retried_total", {"lane": "a", "reason": "overloaded_error"}),
        ("batchmill_prompts_buried_total", {"lane": "a", "reason": "not_json"}),
        ("batchmill_batches_sealed_total", {"lane": "a", "trigger": "deadline"}),
        ("batchmill_submissions_in_doubt_total", {"lane": "a", "resolution": "resubmitted"}),
        ("batchmill_api_requests_total", {"operation": "create", "outcome": "in_doubt"}),
        ("batchmill_batch_turnaround_seconds_count", {"lane": "b"}),
        ("batchmill_sink_errors_total", {"sink": "results", "error_type": "no_space"}),
        ("batchmill_sink_rows_total", {"sink": "results"}),
        ("batchmill_role_errors_total", {"role": "drainer"}),
        ("batchmill_rate_limit_wait_seconds_total", {}),
    ):
        assert value(telemetry, name, **given) == 0.0, name


def test_the_error_types_of_sinks_are_known_beforehand() -> None:
    """Sinks stand above telemetry, so their words are written down twice."""
    assert tuple(ErrorType) == labels.SINK_ERRORS


def test_a_settled_batch_counts_every_prompt_once(telemetry: Telemetry, batch: Batch) -> None:
    """Results, retries and burials each under their words; times in their buckets."""
    telemetry.batch_settled(
        batch,
        results={ResultType.SUCCEEDED: 990, ResultType.ERRORED: 4},
        retried={"expired": 6},
        buried={"invalid_request_error": 3, "some words of a prompt": 1},
        seconds=400.0,
        prompt_seconds=iter([30.0] * 500 + [7_200.0] * 494),
    )
    for name, expected, given in (
        ("batchmill_prompts_settled_total", 990, {"result": "succeeded"}),
        ("batchmill_prompts_settled_total", 4, {"result": "errored"}),
        ("batchmill_prompts_retried_total", 6, {"reason": "expired"}),
        ("batchmill_prompts_buried_total", 3, {"reason": "invalid_request_error"}),
        ("batchmill_prompts_buried_total", 1, {"reason": "other"}),
        ("batchmill_batch_turnaround_seconds_bucket", 1, {"le": "900.0"}),
        ("batchmill_prompt_turnaround_seconds_bucket", 500, {"le": "3600.0"}),
        ("batchmill_prompt_turnaround_seconds_bucket", 994, {"le": "7200.0"}),
        ("batchmill_prompt_turnaround_seconds_count", 994, {}),
        ("batchmill_prompt_turnaround_seconds_sum", 500 * 30.0 + 494 * 7_200.0, {}),
    ):
        assert value(telemetry, name, lane="bulk", **given) == expected, (name, given)


def test_many_observations_at_once_are_the_same_as_one_by_one() -> None:
    """On the edges of buckets, between them and beyond the last."""
    registry = CollectorRegistry()
    together = Histogram("together", "x", buckets=(1, 2, 5), registry=registry)
    singly = Histogram("singly", "x", buckets=(1, 2, 5), registry=registry)
    values = [0.0, 0.5, 1.0, 1.000001, 2.0, 4.9, 5.0, 5.1, 1e9]
    together.observe_many(iter(values))
    together.observe_many([])
    for each in values:
        singly.observe(each)
    ours, theirs = ([(sample.name.partition("_")[2], sample.labels, sample.value) for sample in family.samples]
                    for family in registry.collect())  # fmt: skip
    assert ours == theirs


def test_a_time_before_its_beginning_counts_as_zero() -> None:
    """Two clocks may disagree; a sum that shrinks would look like a restart."""
    registry = CollectorRegistry()
    Histogram("h", "x", buckets=(1, 2), registry=registry).observe_many([-5.0, 1.5])
    assert registry.get_sample_value("h_sum") == 1.5
    assert registry.get_sample_value("h_bucket", {"le": "1.0"}) == 1


def test_models_beyond_the_fiftieth_share_one_label(telemetry: Telemetry) -> None:
    """Series cost memory for ever: their number has an end, and no token is lost."""
    for number in range(60):
        telemetry.usage(
            "bulk", f"m{number}", input=1, output=0, cache_read=0, cache_write_5m=0, cache_write_1h=0, microdollars=2
        )
    assert value(telemetry, "batchmill_tokens_total", lane="bulk", model="m49", kind="input") == 1
    assert value(telemetry, "batchmill_tokens_total", lane="bulk", model="m50", kind="input") is None
    assert value(telemetry, "batchmill_tokens_total", lane="bulk", model="other", kind="input") == 10
    assert value(telemetry, "batchmill_cost_microdollars_total", lane="bulk", model="other") == 20


def test_a_known_word_passes_however_many_others_came_before() -> None:
    """Strangers cannot crowd out the words an alert waits for."""
    bounded = Bounded(("expired",), most=1)
    assert [bounded(word) for word in ("a", "b", "a", "expired", "two words", "")] == [
        "a", "other", "a", "expired", "other", "other",
    ]  # fmt: skip


def test_the_bound_holds_between_threads() -> None:
    """Many threads that meet new words at once do not overshoot."""
    bounded = Bounded(most=50)
    passed: set[str] = set()
    start = threading.Barrier(8)

    def meet(own: int) -> None:
        start.wait()
        passed.update(bounded(f"{own}.{number}") for number in range(50))

    threads = [threading.Thread(target=meet, args=(own,)) for own in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(passed - {"other"}) == 50


def test_what_the_ledger_knows_is_read_once_per_scrape() -> None:
    """Thirteen families, one read; registering reads nothing."""
    reads: Iterator[Figures] = iter([FIGURES])
    registry = CollectorRegistry()
    registry.register(LedgerGauges(lambda: next(reads), in_flight_limit=200_000, now=lambda: NOW))
    samples = {
        (sample.name.removeprefix("batchmill_"), *sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
    }
    states = {("batches", "bulk", state.value): float(LANE.batches.get(state, 0)) for state in State}
    assert samples == states | {
        ("prompts_enqueued_total", "bulk"): 1_007,
        ("lane_depth", "bulk"): 7,
        ("lane_bytes", "bulk"): 700,
        ("lane_oldest_prompt_age_seconds", "bulk"): 990,
        ("oldest_batch_age_seconds", "bulk"): 3_600,
        ("dead_letters", "bulk"): 3,
        ("lane_paused", "bulk"): 1,
        ("batches_in_doubt", "bulk"): 1,
        ("batches_held", "bulk"): 1,
        ("api_in_flight_requests",): 500,
        ("api_in_flight_limit",): 200_000,
        ("sink_pending_batches", "results"): 4,
        ("redis_evicting",): 1,
        ("redis_emptied_timestamp_seconds",): 0,
    }


def test_an_empty_lane_has_no_age_and_is_not_paused() -> None:
    """Nothing waits and nothing is open: 0, so that alerts end."""
    empty = LaneFigures(lane="a", depth=0, bytes=0, enqueued=0, batches={}, in_doubt=0, held=0, dead_letters=0)
    figures = Figures(read_at=NOW, lanes=(empty,), in_flight=0, evicting=False, sink_pending={})
    registry = CollectorRegistry()
    registry.register(LedgerGauges(lambda: figures, in_flight_limit=1, now=lambda: NOW))
    assert {sample.value for family in registry.collect() for sample in family.samples} == {0.0, 1.0}
    assert registry.get_sample_value("batchmill_lane_oldest_prompt_age_seconds", {"lane": "a"}) == 0.0
    assert registry.get_sample_value("batchmill_lane_paused", {"lane": "a"}) == 0.0


def test_a_scrape_goes_on_while_the_ledger_cannot_be_read() -> None:
    """Without Redis the gauges are missing, the counters are not, and somebody is told."""
    told: list[Exception] = []
    registry = CollectorRegistry()
    telemetry = Telemetry(version="1", registry=registry)
    registry.register(LedgerGauges(unreachable, in_flight_limit=1, now=lambda: NOW, failed=told.append))
    text = generate_latest(registry).decode()
    assert "batchmill_lane_depth" not in text
    assert "batchmill_build_info" in text
    assert [str(error) for error in told] == ["refused"]
    assert telemetry.registry is registry


def test_a_name_of_the_ledger_cannot_be_taken_twice() -> None:
    """The registry knows the names beforehand and refuses a second metric of that name."""
    registry = CollectorRegistry()
    registry.register(LedgerGauges(unreachable, in_flight_limit=1, now=lambda: NOW))
    with pytest.raises(ValueError, match="lane_depth"):
        Gauge("batchmill_lane_depth", "x", registry=registry)


def test_a_lane_that_is_gone_leaves_no_series(telemetry: Telemetry, batch: Batch) -> None:
    """Neither prepared ones nor counted ones: a process outlives the lanes that producers make up."""
    telemetry.prepare(["default"], ["results"])
    before = len(generate_latest(telemetry.registry).splitlines())
    telemetry.prepare(["bulk"], ["results"])
    telemetry.batch_sealed(batch)
    telemetry.usage("bulk", "m", input=1, output=1, cache_read=0, cache_write_5m=0, cache_write_1h=0, microdollars=None)
    assert len(generate_latest(telemetry.registry).splitlines()) > before + 50
    telemetry.forget(["bulk", "never-seen"])
    assert len(generate_latest(telemetry.registry).splitlines()) == before
    assert b'lane="default"' in generate_latest(telemetry.registry)

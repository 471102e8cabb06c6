"""A loop survives every trouble but one, says what it met, and takes its next turn when it is asked to."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from bench import wait_until
from dramatiq.errors import BrokerConnectionError

from worker.clock import Clock
from worker.ledger.store import LedgerFullError, LedgerRefusedError, LedgerUnavailableError
from worker.loops import Loop
from worker.telemetry import Telemetry

NAME = "batcher"


@contextmanager
def running(step: Callable[[], float], telemetry: Telemetry) -> Iterator[Loop]:
    """Run a loop, and see it end."""
    stop = threading.Event()
    loop = Loop(name=NAME, step=step, clock=Clock(), telemetry=telemetry, stop=stop)
    loop.thread.start()
    try:
        yield loop
    finally:
        stop.set()
        loop.wake()
        loop.thread.join(10)
    assert not loop.thread.is_alive()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the events that were logged."""
    return [record.msg["event"] for record in caplog.records if isinstance(record.msg, dict)]


@pytest.mark.parametrize(
    ("trouble", "events"),
    [
        (LedgerUnavailableError("away"), ["redis.lost", "redis.returned"]),
        (LedgerFullError("full"), ["redis.lost", "redis.returned"]),
        (BrokerConnectionError("away"), ["redis.lost", "redis.returned"]),  # type: ignore[no-untyped-call]
        (LedgerRefusedError("refused"), ["redis.refused"]),
        (RuntimeError("nobody foresaw it"), ["role.failed"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_trouble_ends_a_turn_and_not_the_loop(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, trouble: Exception, events: list[str]
) -> None:
    """It is said what it was; a little later there is another turn, and one that goes well says so."""
    caplog.set_level("INFO")
    monkeypatch.setattr("worker.loops.AFTER_TROUBLE", 0.01)
    telemetry = Telemetry(version="test")
    turns: list[int] = []

    def step() -> float:
        turns.append(len(turns))
        if len(turns) < 3:
            raise trouble
        return 60.0

    with running(step, telemetry):
        wait_until(lambda: ticked_at(telemetry) > 0, description="a turn went well")
    assert sorted(set(said(caplog))) == events
    failed = telemetry.registry.get_sample_value("batchmill_role_errors_total", {"role": NAME}) or 0.0
    assert failed == 2.0 * isinstance(trouble, RuntimeError)


def ticked_at(telemetry: Telemetry) -> float:
    """Return when the loop last took a turn that went well."""
    found = telemetry.registry.get_sample_value("batchmill_role_last_tick_timestamp_seconds", {"role": NAME})
    return found or 0.0


def test_a_loop_that_is_woken_does_not_sleep_on() -> None:
    """Its next turn would be in an hour; each bell is one turn, and the watchdog sees it."""
    turns: list[int] = []

    def step() -> float:
        turns.append(len(turns))
        return 3600.0

    with running(step, Telemetry(version="test")) as loop:
        wait_until(lambda: len(turns) == 1, description="the first turn")
        before = loop.ticked_at
        loop.wake()
        wait_until(lambda: len(turns) == 2 and loop.ticked_at > before, description="the turn it was woken for")

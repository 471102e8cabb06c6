import threading

from worker.clock import Clock


def test_monotonic_time_never_goes_back() -> None:
    """Each reading is at least the one before."""
    clock = Clock()
    readings = [clock.monotonic() for _ in range(100)]
    assert readings == sorted(readings)


def test_now_is_in_unix_seconds() -> None:
    """Not milliseconds, not seconds since the machine started."""
    assert 1_700_000_000 < Clock().now() < 10_000_000_000


def test_waiting_ends_when_the_event_is_set() -> None:
    """The answer tells whether it was."""
    event = threading.Event()
    assert not Clock().wait(event, 0)
    event.set()
    assert Clock().wait(event, 60)


def test_sleeping_takes_the_time_it_was_told() -> None:
    """Measured with the clock's own monotonic time."""
    clock = Clock()
    start = clock.monotonic()
    clock.sleep(0.01)
    assert clock.monotonic() - start >= 0.009


def test_jitter_is_spread_over_zero_to_one() -> None:
    """One is never reached, both halves are."""
    draws = [Clock().jitter() for _ in range(200)]
    assert all(0 <= draw < 1 for draw in draws)
    assert min(draws) < 0.5 < max(draws)


def test_random_bytes_differ() -> None:
    """Ten bytes do not repeat."""
    first, second = Clock().random_bytes(10), Clock().random_bytes(10)
    assert len(first) == 10
    assert first != second

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.schedule import backoff, poll_delay, refusal_delay

jitters = st.floats(0, 1, exclude_max=True)
MIDDLE = 0.5


@pytest.mark.parametrize(
    ("age", "expected"), [(-5.0, 1.0), (0.0, 1.0), (10.0, 1.0), (60.0, 6.0), (300.0, 30.0), (86_400.0, 30.0)]
)
def test_a_young_batch_is_looked_at_more_often(age: float, expected: float) -> None:
    """A tenth of the age, at least a second, at most the interval."""
    assert poll_delay(age=age, interval=30, retry_after=None, jitter=MIDDLE) == pytest.approx(expected)


def test_an_interval_below_a_second_is_obeyed() -> None:
    """The interval is the most there is between two looks, however short."""
    assert poll_delay(age=100, interval=0.25, retry_after=None, jitter=MIDDLE) == pytest.approx(0.25)


@given(age=st.floats(-1e9, 1e9), interval=st.floats(0.01, 1e6), jitter=jitters)
def test_a_poll_never_waits_much_longer_than_the_interval(age: float, interval: float, jitter: float) -> None:
    """Chance may add 15 % and no more, nor take away more."""
    delay = poll_delay(age=age, interval=interval, retry_after=None, jitter=jitter)
    assert 0 < delay <= interval * 1.15
    assert delay >= min(interval, 1.0) * 0.85


@pytest.mark.parametrize("hint", [2.0, 10.0, 300.0])
def test_a_hint_of_the_api_wins_and_is_never_shortened(hint: float) -> None:
    """Whoever asks for ten seconds gets ten seconds, or a little more."""
    assert poll_delay(age=1, interval=30, retry_after=hint, jitter=0.0) == hint
    assert hint < poll_delay(age=1, interval=30, retry_after=hint, jitter=0.99) <= hint * 1.15


@pytest.mark.parametrize("hint", [0.0, -3.0, float("nan"), float("inf")])
def test_a_senseless_hint_is_ignored(hint: float) -> None:
    """Zero, negative and endless waits come from a confused server."""
    assert poll_delay(age=60, interval=30, retry_after=hint, jitter=MIDDLE) == pytest.approx(6.0)


def test_backoff_doubles_up_to_its_most() -> None:
    """1, 2, 4, 8 and then no more, at the top of the spread."""
    delays = [backoff(failures=n, first=1, most=5, jitter=1.0) for n in (0, 1, 2, 3, 4, 5)]
    assert delays == [1, 1, 2, 4, 5, 5]


def test_backoff_spreads_over_the_upper_half() -> None:
    """Replicas that failed together do not come back together."""
    assert backoff(failures=3, first=1, most=60, jitter=0.0) == 2
    assert backoff(failures=3, first=1, most=60, jitter=0.5) == 3


@given(failures=st.integers(-10, 10**12), first=st.floats(0.01, 1e4), most=st.floats(0.01, 1e6), jitter=jitters)
def test_backoff_never_overflows_nor_exceeds_its_most(failures: int, first: float, most: float, jitter: float) -> None:
    """A counter that ran for years still gives a finite delay."""
    assert 0 < backoff(failures=failures, first=first, most=most, jitter=jitter) <= most


def test_a_refusal_waits_as_long_as_it_is_asked_to() -> None:
    """retry-after decides, never shortened, but for an hour at most."""
    assert refusal_delay(retry_after=7, failures=9, first=1, most=60, jitter=0.0) == 7
    assert refusal_delay(retry_after=86_400, failures=1, first=1, most=60, jitter=0.7) == 3600


def test_a_refusal_without_a_hint_backs_off() -> None:
    """The spend-cap 429, for one, comes without retry-after."""
    assert refusal_delay(retry_after=None, failures=3, first=1, most=60, jitter=0.0) == 2

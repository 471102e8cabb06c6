"""How long to wait: all delays are seconds, all chance is passed in as `jitter`, a number in [0, 1)."""

import math
from typing import TypeGuard

_SPREAD = 0.15
_LONGEST_HINT = 3600.0
_MOST_DOUBLINGS = 60


def poll_delay(*, age: float, interval: float, retry_after: float | None, jitter: float) -> float:
    """Return when to look again at a batch that was created `age` seconds ago.

    A tenth of its age, at least 1 s and at most `interval`, give or take 15 %. A usable `retry_after` wins over
    all of that and is only ever lengthened, by up to 15 % (but never beyond an hour).
    """
    if _usable(retry_after):
        return _obey(retry_after, jitter)
    return min(interval, max(1.0, age / 10)) * (1 - _SPREAD + 2 * _SPREAD * jitter)


def backoff(*, failures: int, first: float, most: float, jitter: float) -> float:
    """Return the pause after the n-th failure in a row: `first` doubled n - 1 times, at most `most`.

    Between half of that and all of it, by chance, so that replicas which failed together do not return together.
    """
    doublings = min(max(failures, 1) - 1, _MOST_DOUBLINGS)
    return min(most, math.ldexp(first, doublings)) * (1 + jitter) / 2


def refusal_delay(*, retry_after: float | None, failures: int, first: float, most: float, jitter: float) -> float:
    """Return the pause after a refusal: what the API asks for, up to an hour, or else `backoff`."""
    if _usable(retry_after):
        return _obey(retry_after, jitter)
    return backoff(failures=failures, first=first, most=most, jitter=jitter)


def _usable(retry_after: float | None) -> TypeGuard[float]:
    return retry_after is not None and math.isfinite(retry_after) and retry_after > 0


def _obey(retry_after: float, jitter: float) -> float:
    return min(_LONGEST_HINT, retry_after * (1 + _SPREAD * jitter))

"""The requests per minute that all threads of this process share."""

import threading
from collections.abc import Callable
from typing import Protocol

from worker.batches_api.wire import Allowance

# How much may be saved up while nobody calls: ten seconds' worth, so that a burst stays far below the account's minute.
_BURST_SECONDS = 10
_LONGEST_PAUSE = 60.0
# Whoever waits at a low rate must notice within a second that it was raised.
_LONGEST_SLEEP = 1.0


class Clock(Protocol):
    """What this package needs of time; `monotonic` counts seconds the machine was suspended too."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start."""
        ...

    def sleep(self, seconds: float) -> None:
        """Do nothing for `seconds`."""
        ...


class Budget:
    """A token bucket: one token a request, refilled evenly. `waited` hears of every wait, in seconds."""

    def __init__(self, *, requests_per_minute: int, clock: Clock, waited: Callable[[float], None]) -> None:
        self._clock = clock
        self._waited = waited
        self._lock = threading.Lock()
        self.allowance: Allowance | None = None
        self._per_second = 1.0
        self._most = 1.0
        self.set_requests_per_minute(requests_per_minute)
        self._tokens = self._most
        self._filled_at = clock.monotonic()

    def set_requests_per_minute(self, requests_per_minute: int) -> None:
        """Refill at this rate from now on. Raises ValueError below 1."""
        if requests_per_minute < 1:
            raise ValueError("requests_per_minute must be at least 1")
        with self._lock:
            self._per_second = requests_per_minute / 60
            self._most = max(1.0, self._per_second * _BURST_SECONDS)

    def take(self) -> None:
        """Take one token, waiting for it as long as it takes."""
        seconds = self._try_to_take()
        if seconds <= 0:
            return
        started = self._clock.monotonic()
        try:
            while seconds > 0:
                self._clock.sleep(min(seconds, _LONGEST_SLEEP))
                seconds = self._try_to_take()
        finally:
            self._waited(self._clock.monotonic() - started)

    def pause(self, seconds: float) -> None:
        """Refill nothing for `seconds`, a minute at most: the account is out of requests, whoever asked."""
        with self._lock:
            self._tokens = 0.0
            self._filled_at = max(self._filled_at, self._clock.monotonic() + min(seconds, _LONGEST_PAUSE))

    def heed(self, allowance: Allowance | None) -> None:
        """Remember what the API says is left, and pause when that is nothing: others may use the account too."""
        if allowance is None:
            return
        self.allowance = allowance
        if allowance.remaining <= 0 and allowance.reset_in > 0:
            self.pause(allowance.reset_in)

    def _try_to_take(self) -> float:
        with self._lock:
            now = self._clock.monotonic()
            if now > self._filled_at:
                self._tokens = min(self._most, self._tokens + (now - self._filled_at) * self._per_second)
                self._filled_at = now
            if self._tokens >= 1:
                self._tokens -= 1
                return 0.0
            # A hair more: sleeping for exactly the missing fraction may leave a token short of an epsilon.
            return max(0.0, self._filled_at - now) + (1 - self._tokens) / self._per_second + 0.001

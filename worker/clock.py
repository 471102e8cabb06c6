"""Time and chance, given to whoever needs them: tests hand over another clock and wait for nothing."""

import os
import random
import threading
import time

# CLOCK_BOOTTIME goes on counting while the machine is suspended; CLOCK_MONOTONIC would call a frozen POST fresh.
_SINCE_BOOT: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_CHANCE = random.SystemRandom()


class Clock:
    """The real time of this machine."""

    def now(self) -> float:
        """Unix seconds: for records and for people, never for measuring how long something took."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never goes back, counts suspended time where the system can tell."""
        return time.clock_gettime(_SINCE_BOOT)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until `event` is set, for at most `seconds`; tells whether it is set."""
        return event.wait(seconds)

    def sleep(self, seconds: float) -> None:
        """Do nothing for `seconds`."""
        time.sleep(seconds)

    def jitter(self) -> float:
        """Return a number in [0, 1): spreads retries of replicas that failed together."""
        return _CHANCE.random()

    def random_bytes(self, size: int) -> bytes:
        """Return `size` bytes nobody can guess."""
        return os.urandom(size)

"""A loop: one step again and again in a thread of its own, as often as the step asks for."""

import threading
from collections.abc import Callable

from dramatiq.errors import BrokerConnectionError

from worker.clock import Clock
from worker.ledger.store import LedgerFullError, LedgerRefusedError, LedgerUnavailableError
from worker.rescuer import ForeignDeploymentError
from worker.telemetry import Telemetry

AFTER_TROUBLE = 1.0


class Loop:
    """Runs `step`, which returns seconds until its next turn, or until `wake`. `ticked_at` tells a watchdog.

    No error ends it but one: that it works for another deployment than it started for.
    """

    def __init__(
        self, *, name: str, step: Callable[[], float], clock: Clock, telemetry: Telemetry, stop: threading.Event
    ) -> None:
        self.name = name
        self.ticked_at = clock.monotonic()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._step = step
        self._clock = clock
        self._telemetry = telemetry
        self._stop = stop
        self._bell = threading.Event()

    def wake(self) -> None:
        """Take the next turn at once: something may have changed."""
        self._bell.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            delay = self._turn()
            self.ticked_at = self._clock.monotonic()
            self._clock.wait(self._bell, delay)
            self._bell.clear()

    def _turn(self) -> float:
        try:
            delay = self._step()
        except (LedgerUnavailableError, LedgerFullError, BrokerConnectionError) as error:
            self._telemetry.redis_lost(self.name, type(error).__name__)
            return AFTER_TROUBLE
        except LedgerRefusedError as error:
            self._telemetry.warning("redis.refused", role=self.name, error=str(error))
            return AFTER_TROUBLE
        except ForeignDeploymentError:
            raise  # the thread dies of it, and the watchdog ends the process: its id is another one now
        except Exception as error:  # noqa: BLE001 - the one place where a loop survives what nobody foresaw; counted
            self._telemetry.role_failed(self.name, error)
            return AFTER_TROUBLE
        self._telemetry.redis_back(self.name)
        self._telemetry.role_ticked(self.name)
        return delay

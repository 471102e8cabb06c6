"""The daemon: runs the loops and the worker of one process, watches them, and ends in order."""

import threading
from collections.abc import Iterable, Mapping
from typing import Any

from worker.batcher import Batcher
from worker.broker import make_worker
from worker.config import Config
from worker.core.report import report
from worker.http import OpsServer
from worker.ledger.lanes import Glance
from worker.ledger.store import LedgerFullError, LedgerRefusedError, LedgerUnavailableError
from worker.loops import Loop
from worker.sinks import SinkError
from worker.telemetry import LedgerGauges, set_level
from worker.wiring import App

STUCK_SECONDS = 120.0
"""A loop that has not turned for so long is stuck: every call it makes has a shorter time limit."""

WATCH_SECONDS = 0.5
RESERVE_SECONDS = 2.0
"""What is left of `shutdown_timeout` for closing after the steps have ended."""

CHECK_SECONDS = 60.0


class Daemon:
    """One worker process. `start`, then `watch` until something asks for the end, then `stop`."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._stop_loops = threading.Event()
        self._quiet = threading.Event()
        self._worker = make_worker(app.broker, queues={str(queue) for queue in app.steps}, threads=app.config.threads)
        self._loops = [self._loop("ticker", app.ticker.step), self._loop("rescuer", self._rescue)]
        if app.batcher is not None:
            self._loops.append(self._loop("batcher", self._seal_all))
        self._loops.append(self._loop("sink-checks", self._check_sinks))
        app.knocks.followed = self._look_again
        self._sink_problems: dict[str, str] = {}
        threading.excepthook = self._thread_died
        self._http = OpsServer(
            bind=app.config.http.bind,
            port=app.config.http.port,
            live=self.live,
            ready=self.ready,
            status=self.status,
            registry=app.telemetry.registry,
            token=app.config.http.token.reveal() or None,
            tell=app.telemetry.warning,
        )
        self._gauges = LedgerGauges(
            app.figures,
            in_flight_limit=app.config.anthropic.max_in_flight_requests,
            now=app.clock.now,
            failed=lambda error: app.telemetry.warning("figures.unread", error_type=type(error).__name__),
        )
        self._prepared: set[str] = set()
        self._preparing = threading.Lock()

    def start(self) -> int:
        """Start everything; returns the ops port that is bound. Raises BindError."""
        app = self._app
        app.telemetry.barrier_chosen(app.barrier.kind, app.barrier.reason)
        self._prepare_metrics(self._app.ledger.deployment.lanes())
        app.telemetry.registry.register(self._gauges)
        port = self._http.start()
        if self._http.closes_status:
            app.telemetry.warning("http.status_closed", hint="set http.token_file, or ask `batchmill status` instead")
        app.rescuer.step()
        for loop in self._loops:
            loop.thread.start()
        if app.steps:
            self._worker.start()
        return port

    def stop(self, timeout: float) -> None:
        """Take no more work, finish or hand over what is in hand, close. Takes at most about `timeout` seconds."""
        app = self._app
        began = app.clock.monotonic()
        self._end_loops()
        app.stopping.set()
        left = max(0.5, timeout - RESERVE_SECONDS)
        if app.steps:
            self._worker.stop(timeout=int(left * 1000))
        for loop in self._loops:
            loop.thread.join(max(0.1, left - (app.clock.monotonic() - began)))
        self._http.stop()
        app.close()

    def quiet(self) -> None:
        """Take no new work and go on running: SIGTSTP."""
        self._quiet.set()
        self._end_loops()
        if self._app.steps:
            self._worker.pause()

    def reload(self, config: Config) -> None:
        """Take over what may change in a running process: log level, limits of lanes, requests per minute: SIGHUP."""
        app = self._app
        set_level(config.log.level)
        if app.batcher is not None:
            app.batcher.limits_from(config)
        if app.api is not None:
            app.api.set_requests_per_minute(config.anthropic.requests_per_minute)
        self._gauges.in_flight_limit = config.anthropic.max_in_flight_requests

    def dead(self) -> list[str]:
        """Return the names of threads that died, which only a restart mends."""
        if self._quiet.is_set() or self._stop_loops.is_set():
            return []
        threads = [loop.thread for loop in self._loops]
        if self._app.steps:
            threads += [*self._worker.consumers.values(), *self._worker.workers]
        return [thread.name for thread in threads if not thread.is_alive()]

    def live(self) -> Mapping[str, str]:
        """Return what is wrong with this process itself; never what is wrong with Redis or the API."""
        now = self._app.clock.monotonic()
        problems = dict.fromkeys(self.dead(), "the thread has died")
        if not self._quiet.is_set():
            for loop in self._loops:
                if now - loop.ticked_at > STUCK_SECONDS:
                    problems[loop.name] = "the loop is stuck"
        return problems

    def ready(self) -> Mapping[str, str]:
        """Return what keeps this process from doing its work now."""
        problems = dict(self._sink_problems)
        if self._app.stopping.is_set() or self._quiet.is_set():
            problems["daemon"] = "draining"
        try:
            self._app.ledger.store.now()
        except (LedgerUnavailableError, LedgerRefusedError, LedgerFullError) as error:
            problems["redis"] = str(error)
        return problems

    def status(self) -> Mapping[str, Any]:
        """Return the report of `/statusz`."""
        return report(self._app.figures(), in_flight_limit=self._app.config.anthropic.max_in_flight_requests)

    def _thread_died(self, death: threading.ExceptHookArgs) -> None:
        """Tell of an exception that ended a thread, without its text; the watchdog acts on it."""
        if death.exc_value is not None:
            self._app.telemetry.role_failed(death.thread.name if death.thread else "thread", death.exc_value)

    def _end_loops(self) -> None:
        self._stop_loops.set()
        for loop in self._loops:
            loop.wake()

    def _look_again(self) -> None:
        """Wake who seals and who knocks: a step was taken, or a batch sealed."""
        for loop in self._loops:
            if loop.name in ("ticker", "batcher"):
                loop.wake()

    def _loop(self, name: str, step: Any) -> Loop:
        return Loop(name=name, step=step, clock=self._app.clock, telemetry=self._app.telemetry, stop=self._stop_loops)

    def _rescue(self) -> float:
        delay = self._app.rescuer.step()
        # lanes come and go in processes that seal nothing, too
        self._prepare_metrics(self._app.ledger.deployment.lanes())
        return delay

    def _seal_all(self) -> float:
        """Let the batcher look at every lane, as long as there is something to seal.

        A lane in trouble does not keep the others waiting: its error is raised when all have had their turn.
        """
        app = self._app
        if app.batcher is None:
            return app.config.tick
        delays = [app.config.tick]
        troubles: list[Exception] = []
        lanes = app.ledger.deployment.lanes()
        for lane, glance in app.batcher.glance(lanes).items():
            try:
                delays.append(self._seal(app.batcher, lane, glance))
            except LedgerUnavailableError:
                raise
            except LedgerRefusedError as error:
                troubles.append(LedgerRefusedError(f"lane {lane}: {error}"))
            except Exception as error:  # noqa: BLE001 - raised below
                troubles.append(error)
        self._prepare_metrics(lanes)
        for trouble in troubles:
            raise trouble
        return min(delays)

    def _seal(self, batcher: Batcher, lane: str, glance: Glance | Exception) -> float:
        if isinstance(glance, Exception):
            raise glance
        delay = batcher.step(lane, glance)
        while delay == 0.0 and not self._stop_loops.is_set():
            self._look_again()  # a sealed batch is submitted now, not a tick later
            delay = batcher.step(lane)
        return self._app.config.tick if delay is None else delay

    def _check_sinks(self) -> float:
        problems: dict[str, str] = {}
        for name, sink in self._app.sinks.items():
            try:
                sink.check()
            except SinkError as error:
                problems[f"sink {name}"] = f"{error.error_type}: {error.hint or 'see the log'}"
                self._app.telemetry.sink_failed(
                    name,
                    error_type=error.error_type,
                    retryable=error.retryable,
                    retry_in=CHECK_SECONDS,
                    hint=error.hint,
                )
        self._sink_problems = problems
        return CHECK_SECONDS

    def _prepare_metrics(self, known: Iterable[str]) -> None:
        lanes = {*self._app.config.lanes, *known}
        with self._preparing:
            if lanes != self._prepared:
                self._app.telemetry.forget(self._prepared - lanes)
                self._app.telemetry.prepare(lanes, self._app.config.sinks)
                self._prepared = lanes

"""`batchmill run`: the daemon."""

import argparse
import contextlib
import faulthandler
import gc
import os
import queue
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any

from worker.cli.settings import EX_CONFIG, EX_FAILED, EX_OK, EX_UNAVAILABLE, add_config_flags, complain, read_config

if TYPE_CHECKING:
    from worker.config import Config
    from worker.daemon import Daemon
    from worker.embedded import EmbeddedServer

ROLES = ("batcher", "submitter", "poller", "drainer")
WATCH_SECONDS = 0.5
EPILOG = """\
example:
  REDIS_URL=redis://127.0.0.1:6379/0 ANTHROPIC_API_KEY=sk-ant-… batchmill run
  batchmill run --roles poller,drainer        # a replica that only follows and fetches

signals: TERM and INT stop in order (a second one at once), TSTP takes no new work, HUP reads log level, limits and
requests per minute anew, USR2 writes all threads' stacks to stderr.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the `run` command."""
    parser = subparsers.add_parser(
        "run",
        help="the daemon: seals, submits, polls and drains until it is stopped",
        description="Run a worker process; as many as you like share one Redis.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config_flags(parser)
    parser.add_argument("--roles", type=_roles, default=ROLES, metavar="ROLE,…", help="some of " + ",".join(ROLES))
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Run until a signal; returns 0 after an orderly stop, 1 when a thread died, 69 without Redis, 78 misconfigured."""
    config = read_config(args)
    if config is None:
        return EX_CONFIG
    if not config.anthropic.api_key and set(args.roles) != {"batcher"}:
        return complain("no API key: set ANTHROPIC_API_KEY, or name a file in anthropic.api_key_file", EX_CONFIG)
    _leave_no_core()
    signals = Signals()
    with signals.caught():
        return serve(config, roles=args.roles, signals=signals, args=args)


class Wish(Enum):
    """What a signal asks for."""

    STOP = "stop"
    QUIET = "quiet"
    RELOAD = "reload"


class Signals:
    """Turns signals into wishes; the second TERM or INT ends the process at once.

    A handler runs between any two steps of the main thread, so it takes no lock that thread may hold: an Event's would
    be one, `SimpleQueue.put` is made for this.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._wishes: queue.SimpleQueue[Wish] = queue.SimpleQueue()

    def wait(self, seconds: float) -> "Wish | None":
        """Return the next wish, or None when none came up for so long."""
        try:
            return self._wishes.get(timeout=seconds)
        except queue.Empty:
            return None

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Install the handlers for the length of the block."""
        handlers = {
            signal.SIGTERM: self._stop,
            signal.SIGINT: self._stop,
            signal.SIGTSTP: lambda *_: self._wishes.put(Wish.QUIET),
            signal.SIGHUP: lambda *_: self._wishes.put(Wish.RELOAD),
            # not faulthandler.register: that reads the threads' stacks while they run, and a busy process dies of it
            signal.SIGUSR2: lambda *_: faulthandler.dump_traceback(all_threads=True),
        }
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, _frame: object) -> None:
        if self.reason:
            os._exit(128 + number)
        self.reason = signal.Signals(number).name
        self._wishes.put(Wish.STOP)


def serve(config: "Config", *, roles: tuple[str, ...], signals: Signals, args: argparse.Namespace) -> int:
    """Assemble, start and watch a daemon until `signals` says stop."""
    # the SDK and dramatiq cost seconds: a wrong flag or setting is told before they are imported
    from dramatiq.errors import BrokerConnectionError

    from worker.clock import Clock
    from worker.embedded import EmbeddedFailed, EmbeddedUnavailable
    from worker.http import BindError
    from worker.ledger.store import LedgerRefusedError, LedgerUnavailableError
    from worker.sinks import SinkSettingsError
    from worker.telemetry import Telemetry, configure_logging

    configure_logging(
        format=config.log.format,  # type: ignore[arg-type]  # the settings allow just these words
        level=config.log.level,
        secrets=_secrets(config),
    )
    clock = Clock()
    telemetry = Telemetry(version=_version())
    with contextlib.ExitStack() as stack:
        try:
            server = None if config.redis.url else _embedded(config, telemetry, stack)
            url = server.url if server else config.redis.url
            daemon, port = _start(config, url, roles, telemetry, clock)
        except (EmbeddedUnavailable, EmbeddedFailed, LedgerUnavailableError, LedgerRefusedError) as error:
            hint = getattr(error, "hint", "")
            return complain(f"{error}; {hint}" if hint else str(error), EX_UNAVAILABLE)
        except BrokerConnectionError as error:
            return complain(f"Redis cannot be reached ({type(error).__name__})", EX_UNAVAILABLE)
        except (SinkSettingsError, BindError) as error:
            return complain(str(error), EX_CONFIG)
        telemetry.daemon_started(roles=list(roles), http=f"http://{config.http.bind}:{port}")
        if config.http.port == 0:
            # rows of a stdout sink must not find a line among them that is none
            aside = any(sink.type == "stdout" for sink in config.sinks.values())
            print(f"http://{config.http.bind}:{port}", file=sys.stderr if aside else sys.stdout, flush=True)
        _notify("READY=1")
        status = _watch(daemon, server, signals, args, telemetry)
        telemetry.daemon_stopping(signals.reason or "the watchdog")
        _notify("STOPPING=1")
        began = clock.monotonic()
        daemon.stop(config.shutdown_timeout)
        telemetry.daemon_stopped(clock.monotonic() - began)
    return status


def _start(config: "Config", url: str, roles: tuple[str, ...], telemetry: Any, clock: Any) -> "tuple[Daemon, int]":
    # what is imported and assembled here stays to the end: the collector need not walk through half a million objects
    # of it while they are made, and again whenever a batch of rows has come and gone
    gc.disable()
    try:
        from worker.daemon import Daemon
        from worker.wiring import build

        daemon = Daemon(build(config, url=url, telemetry=telemetry, clock=clock, roles=roles))
        gc.freeze()
    finally:
        gc.enable()
    return daemon, daemon.start()


def _watch(
    daemon: "Daemon", server: "EmbeddedServer | None", signals: Signals, args: argparse.Namespace, telemetry: Any
) -> int:
    """Wait for the end; the watchdog in it ends a process whose threads have died, so that it is started anew."""
    while (wish := signals.wait(WATCH_SECONDS)) is not Wish.STOP:
        if wish is Wish.QUIET:
            daemon.quiet()
            telemetry.info("daemon.quiet")
        if wish is Wish.RELOAD:
            _notify("RELOADING=1")
            _reload(daemon, args, telemetry)
            _notify("READY=1")
        if dead := daemon.dead():
            telemetry.warning("daemon.thread_died", threads=dead)
            return EX_FAILED
        if server is not None and not server.is_alive():
            # a server that we adopted dies with the process that started it; the next start brings its data back
            telemetry.warning("embedded.died", hint="started anew, batchmill brings its data back")
            return EX_FAILED
        if not daemon.live():
            _notify("WATCHDOG=1")
    return EX_OK


def _reload(daemon: "Daemon", args: argparse.Namespace, telemetry: Any) -> None:
    config = read_config(args)
    if config is None:
        telemetry.warning("config.refused", hint="the settings in force stay; `batchmill check --offline` says why")
    else:
        daemon.reload(config)
        telemetry.info("config.reloaded")


def _embedded(config: "Config", telemetry: Any, stack: contextlib.ExitStack) -> "EmbeddedServer":
    from pathlib import Path

    from worker.embedded import EmbeddedServer

    server = EmbeddedServer.start(
        Path(config.redis.directory), max_memory_bytes=config.redis.max_memory, log=telemetry.info
    )
    stack.enter_context(server)
    telemetry.embedded_started(url=server.url.split("@")[-1])
    return server


def _leave_no_core() -> None:
    """Let a crash write no core file, neither ours nor the embedded server's: memory holds the key and prompts.

    The hard limit stays, so that an operator who wants one may raise the soft one with prlimit.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def _secrets(config: "Config") -> list[str]:
    """Return what must never be logged, beyond what looks like a secret by itself."""
    from worker.core.access import passwords_in

    kept = (config.anthropic.api_key, config.redis.password, config.http.token)
    return [secret.reveal() for secret in kept if secret] + passwords_in(config.redis.url)


def _roles(text: str) -> tuple[str, ...]:
    roles = tuple(word.strip() for word in text.split(",") if word.strip())
    unknown = [role for role in roles if role not in ROLES]
    if unknown or not roles:
        raise argparse.ArgumentTypeError(f"roles are {','.join(ROLES)}")
    return roles


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("batchmill")
    except PackageNotFoundError:
        return "0"


def _notify(state: str) -> None:
    """Tell systemd, when it is there (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address or sys.platform != "linux":
        return
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel,
        contextlib.suppress(OSError),
    ):
        channel.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)

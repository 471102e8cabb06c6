"""Log lines: one JSON object each, or for people at a terminal one coloured line; all of them redacted.

Lines of libraries (redis, dramatiq, httpx2, anthropic) take the same way, so there is no second format and no way
around the redactor.
"""

import logging
import sys
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Literal, TextIO, cast

import msgspec
import structlog
from structlog.stdlib import BoundLogger, ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

from worker.telemetry.redaction import Redactor
from worker.telemetry.tracebacks import LONGEST_TRACEBACK, clip, render

Format = Literal["auto", "console", "json"]
LEVELS = {name: getattr(logging, name.upper()) for name in ("debug", "info", "warning", "error", "critical")}

NAME = "batchmill"
# Below a warning these write whole request bodies, and that is what prompts are.
_CHATTY = ("anthropic", "httpx2", "httpcore2", "httpx", "httpcore")
_RESERVED = frozenset({"timestamp", "level", "event", "logger", "exception"})

_FROM_STRUCTLOG: Sequence[Processor] = (
    structlog.stdlib.filter_by_level,
    structlog.contextvars.merge_contextvars,
    ProcessorFormatter.wrap_for_formatter,
)
_encode = msgspec.json.Encoder().encode


def logger(name: str = NAME) -> BoundLogger:
    """Return a logger that needs no global configuration; before `configure_logging` its lines are shown nowhere."""
    wrapped = logging.getLogger(name)
    if not wrapped.handlers:
        wrapped.addHandler(logging.NullHandler())  # else logging's last resort would print them unredacted
    made = structlog.wrap_logger(wrapped, processors=_FROM_STRUCTLOG, wrapper_class=BoundLogger)
    return cast("BoundLogger", made.bind())  # bound once: else the proxy would be resolved for every line


def configure_logging(
    *,
    format: Format = "auto",  # noqa: A002  # named like the setting
    level: str = "info",
    stream: TextIO | None = None,
    secrets: Collection[str] = (),
) -> None:
    """Send every log line of this process to `stream` (stderr), and nowhere else.

    `auto` is console on a terminal and JSON elsewhere. `secrets` are values to hide beyond those that look like one,
    such as the configured key. Raises ValueError for an unknown format or level. Calling again replaces the first.
    """
    if format not in ("auto", "console", "json"):
        raise ValueError(f"unknown log format {format!r}: choose auto, console or json")
    target = sys.stderr if stream is None else stream
    terminal = target.isatty()
    on_console = format == "console" or (format == "auto" and terminal)
    handler = _Handler(target)
    handler.addFilter(_discreet)
    handler.setFormatter(
        ProcessorFormatter(
            processors=[_Fields(Redactor(secrets)), *(_console(colors=terminal) if on_console else (_json,))]
        )
    )
    set_level(level)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    logging.captureWarnings(capture=True)
    # Nobody but us should use structlog's own default, which prints the values of local variables.
    structlog.configure(
        processors=_FROM_STRUCTLOG, wrapper_class=BoundLogger, logger_factory=structlog.stdlib.LoggerFactory()
    )


def set_level(level: str) -> None:
    """Show lines of `level` and above from now on. Raises ValueError for an unknown level, and changes nothing."""
    number = LEVELS.get(level.lower())
    if number is None:
        raise ValueError(f"unknown log level {level!r}: choose one of {', '.join(LEVELS)}")
    logging.getLogger().setLevel(number)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


class _Handler(logging.StreamHandler[TextIO]):
    """A handler whose own failures show nothing of the line that failed."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Say that a line was lost: logging's own handler would print its arguments."""
        try:
            self.stream.write(f'{{"level":"error","event":"log.lost","line":{record.lineno}}}\n')
            self.stream.flush()
        except (OSError, ValueError):
            return  # the stream itself is gone; there is nobody left to tell


def _discreet(record: logging.LogRecord) -> bool:
    # Levels are not enough: the SDK lowers its own when it is imported with ANTHROPIC_LOG=debug.
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] not in _CHATTY


class _Fields:
    """Turns a record into the fields that are shown, in their order, redacted."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        """Return a new mapping: time, level and event first."""
        record = cast("logging.LogRecord", event.pop("_record"))
        ours = event.pop("_from_structlog")
        error = _error(event.pop("exc_info", None))
        fields: EventDict = {
            "timestamp": _instant(record.created),
            "level": record.levelname.lower(),
            "event": self._redactor.text(str(event.pop("event", ""))),
        }
        if not ours or record.name != NAME:
            fields["logger"] = record.name
        for name, value in event.items():
            fields[f"{name}_" if name in _RESERVED else name] = self._redactor.field(name, value)
        if error is not None:
            fields["exception"] = self._redactor.text(render(error), LONGEST_TRACEBACK, clip=clip)
        return fields


def _instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _error(exc_info: object) -> BaseException | None:
    match exc_info:
        case BaseException():
            return exc_info
        case (_, BaseException() as error, _):
            return error
        case True:
            return sys.exc_info()[1]
        case _:
            return None


def _json(_: WrappedLogger, __: str, event: EventDict) -> str:
    return _encode(event).decode()


def _console(*, colors: bool) -> tuple[Processor, ...]:
    renderer = structlog.dev.ConsoleRenderer(
        colors=colors, sort_keys=False, exception_formatter=structlog.dev.plain_traceback
    )
    return (_printable, renderer)


def _printable(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    # Text from outside must not move the cursor or pretend to be a line of its own.
    return {
        name: _tame(value, "\n" if name == "exception" else "") if isinstance(value, str) else value
        for name, value in event.items()
    }


def _tame(text: str, allowed: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in allowed else char.encode("unicode_escape").decode() for char in text
    )

"""Where results go. `build` makes a sink from its settings; `protocol.py` says what every sink promises."""

from worker.config import SinkSettings
from worker.sinks.file import FileSink
from worker.sinks.protocol import Delivery, ErrorType, Sink, SinkError, SinkSettingsError
from worker.sinks.stdout import StdoutSink

__all__ = ["TYPES", "Delivery", "ErrorType", "Sink", "SinkError", "SinkSettingsError", "build"]

TYPES = ("file", "stdout")
_PLANNED = ("object", "postgres", "redis", "webhook", "kafka", "parquet")


def build(name: str, settings: SinkSettings) -> Sink:
    """Make the sink called `name`. Raises SinkSettingsError, naming it, for settings that cannot work."""
    try:
        return _build(name, settings)
    except SinkSettingsError as error:
        raise SinkSettingsError(f"sink {name!r}: {error}") from error


def _build(name: str, settings: SinkSettings) -> Sink:
    available = f"available are {', '.join(TYPES)}"
    match settings.type:
        case "file":
            return FileSink(name, settings)
        case "stdout":
            return StdoutSink(name, settings)
        case planned if planned in _PLANNED:
            raise SinkSettingsError(f"type {planned!r} is not built yet; {available}")
        case unknown:
            raise SinkSettingsError(f"unknown type {unknown!r}; {available}")

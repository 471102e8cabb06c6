"""What the outside hears of batchmill: log lines, counters and gauges."""

from worker.telemetry.events import Telemetry
from worker.telemetry.gauges import LedgerGauges
from worker.telemetry.log import configure_logging, set_level

__all__ = ["LedgerGauges", "Telemetry", "configure_logging", "set_level"]

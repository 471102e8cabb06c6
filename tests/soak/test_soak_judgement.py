import math
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
from judgement import End, Limits, Sample, growth, judge_day, judge_end

LIMITS = Limits(wave=6, warm_up=6)
MB = 1_000_000


def day(**figures: Callable[[int], float]) -> list[Sample]:
    """Build a day of 24 hours that goes in waves and grows nowhere, but for what is given by hour."""
    samples = []
    for hour in range(1, 25):
        wave = round(200 * (1 + 0.6 * math.sin(2 * math.pi * hour / 6)))
        sample = Sample(
            hour=hour,
            keys={"batch": wave, "dedupe": 3 * wave, "lane": 5},
            members={"settled": wave, "lanes": 5, "prompts": wave // 2},
            used_memory=3 * MB,
            rss=110 * MB,
            threads=17,
            fds=21,
            series=1200,
            temporary_files=0,
        )
        for name, figure in figures.items():
            old = getattr(sample, name)
            new: Any = {**old, "grown": round(figure(hour))} if isinstance(old, dict) else round(figure(hour))
            sample = replace(sample, **{name: new})
        samples.append(sample)
    return samples


def test_a_wave_is_no_growth() -> None:
    """Even where the hours that count end higher in it than they began."""
    assert judge_day(day(), LIMITS) == []
    assert growth([(hour, math.sin(math.pi * hour / 3)) for hour in range(2, 24)], 6) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("slope", [0.5, -2.0])
def test_growth_is_measured_through_the_wave(slope: float) -> None:
    """As what a straight line gains from the first hour that counts to the last."""
    figures = [(hour, 7 + slope * hour + 40 * math.sin(math.pi * hour / 3)) for hour in range(7, 25)]
    assert growth(figures, 6) == pytest.approx(17 * slope)


@pytest.mark.parametrize(
    ("figure", "leak", "said"),
    [
        ("keys", lambda hour: 3 * hour, "keys of grown"),
        ("members", lambda hour: 3 * hour, "members of grown"),
        ("rss", lambda hour: (110 + 0.6 * hour) * MB, "memory of the process"),
        ("threads", lambda hour: 17 + hour / 6, "threads"),
        ("fds", lambda hour: 21 + hour / 4, "open files"),
        ("series", lambda hour: 1200 + 20 * hour, "time series"),
        ("temporary_files", lambda hour: hour / 3, "temporary files"),
    ],
)
def test_a_slow_leak_is_seen(figure: str, leak: Callable[[int], float], said: str) -> None:
    """One thing that grows is named, and nothing else is."""
    complaints = judge_day(day(**{figure: leak}), LIMITS)
    assert len(complaints) == 1
    assert complaints[0].startswith(said)


def test_what_grows_only_while_it_warms_up_is_no_leak() -> None:
    """Imports, pools and caches fill in the first hours."""
    assert judge_day(day(rss=lambda hour: (80 + 5 * min(hour, 6)) * MB), LIMITS) == []


def test_a_stray_of_one_hour_is_told() -> None:
    """A census has looked at it several times; that it was gone an hour later is no excuse."""
    samples = day()
    samples[9] = replace(samples[9], strays=frozenset({"batchmill:{x}:note is of no kind"}))
    assert judge_day(samples, LIMITS) == ["hour 10: batchmill:{x}:note is of no kind"]


def test_a_day_too_short_to_judge_is_no_good_day() -> None:
    """With one hour for each place in the wave everything would be flat."""
    assert judge_day(day()[:10], LIMITS) == ["4 hours after the warm-up are too few to compare places in the wave"]


def end(**more: object) -> End:
    """Build a good end, but for what is given."""
    good = End(
        keys={"batchmill:lanes"},
        permanent={"batchmill:lanes", "batchmill:waiting"},
        strays=(),
        members={"lanes": 3, "prompts": 0},
        data_bytes_before=100_000,
        data_bytes_after=110_000,
        temporary_files=(),
        wanted=Counter(p1=1, p2=2),
        rows=Counter(p1=1, p2=2),
        billed=Counter(c1=1),
        succeeded=Counter(c1=1),
        file_batches=["u1", "u2"],
        settled_batches={"u1", "u2"},
        stuck=[],
    )
    return replace(good, **more)  # type: ignore[arg-type]


BAD_ENDS = {
    "keys": ({"batchmill:lanes", "batchmill:{x}:due"}, "batchmill:{x}:due is still there"),
    "strays": (["knock 1 will never be fetched"], "knock 1"),
    "members": ({"fences": 1}, "1 of fences are left"),
    "data_bytes_after": (130_000, "30000 bytes more"),
    "temporary_files": ([".u1.0.tmp"], ".u1.0.tmp was left behind"),
    "wanted": (Counter(p1=1, p2=2, p3=1), "1 rows are missing: p3"),
    "rows": (Counter(p1=2, p2=2), "1 rows too many: p1"),
    "billed": (Counter(c1=1, c2=1), "1 answers that were paid for too many: c2"),
    "succeeded": (Counter(c1=1, c2=1), "1 answers that were paid for are missing: c2"),
    "file_batches": (["u1"], "batch u2 has no file"),
    "settled_batches": ({"u1"}, "file u2 is of no settled batch"),
    "stuck": (["not within 9 s: every prompt is settled"], "every prompt is settled"),
}


@pytest.mark.parametrize("what", BAD_ENDS)
def test_what_is_wrong_at_the_end_is_told(what: str) -> None:
    """Each by itself."""
    found, said = BAD_ENDS[what]
    complaints = judge_end(end(**{what: found}), LIMITS)
    assert len(complaints) == 1
    assert said in complaints[0]


def test_a_good_end_is_good() -> None:
    """And every part of it was spoiled above, but for what only names or compares."""
    assert judge_end(end(), LIMITS) == []
    assert {field.name for field in fields(End)} - BAD_ENDS.keys() == {"permanent", "data_bytes_before"}


def test_an_answer_paid_for_twice_and_two_files_of_a_batch_are_told() -> None:
    """Although each has what it needs once."""
    twice = end(billed=Counter(c1=2), file_batches=["u1", "u1", "u2"])
    assert judge_end(twice, LIMITS) == [
        "1 answers that were paid for too many: c1",
        "c1 was paid for 2 times",
        "a batch has two files",
    ]

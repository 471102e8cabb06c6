from pathlib import Path

import pytest
from compressed_day import CompressedDay
from plants import LEAKS
from soak import Outcome, Plan, Soak

SHORT = CompressedDay(minutes=0.8, hours=8)
"""Eight hours in 48 seconds, and about as long again until everything has come to its end."""

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells what a process holds"),
    pytest.mark.usefixtures("redis_server"),
]


def soak(directory: Path, *, plants: str = "", rate: float = 20.0) -> Outcome:
    """Live a short day; what it says is shown if the test fails."""
    return Soak(Plan(day=SHORT, directory=directory, rate=rate, plants=plants), print).run()


def test_a_short_day_leaves_nothing_behind(tmp_path: Path) -> None:
    """Load, faults, deploys, a crash, lanes that come and go: each prompt has its row, and all is flat."""
    outcome = soak(tmp_path)
    assert outcome.complaints == []
    assert len(outcome.samples) == SHORT.hours


SAID = {
    "keys": "is of no kind in ledger/keys.py",
    "ends": "will not expire, and its batch is not live",
    "memory": "memory of the process",
    "threads": "threads of the process",
    "fds": "open files of the process",
    "files": ".0123456789abcdef.tmp was left behind",
    "series": "time series of the process",
}


def test_every_leak_that_is_planted_is_seen(tmp_path: Path) -> None:
    """Each strikes once a batch in one of three processes: the verdict names every one of them."""
    outcome = soak(tmp_path, plants=",".join(LEAKS))
    assert SAID.keys() == LEAKS.keys()
    unseen = {leak for leak, said in SAID.items() if not any(said in complaint for complaint in outcome.complaints)}
    assert unseen == set()

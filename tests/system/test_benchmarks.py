"""The benchmark runs all of its contenders to the end; what it measures is looked at by people, never by a test."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_contender_does_the_whole_job() -> None:
    """The command itself counts the rows of each and refuses to go on when one is missing."""
    command = [sys.executable, "-m", "benchmarks", "--prompts", "60", "--runs", "1"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    rows = [line.split("|")[1:-1] for line in ran.stdout.splitlines() if line.startswith("| ")]
    head, *measured = [[cell.strip() for cell in row] for row in rows]
    assert [row[0] for row in measured] == ["plain", "floor", "batchmill"]
    assert all(float(row[head.index("API calls")]) >= 3 for row in measured)

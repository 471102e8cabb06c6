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


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [["scale", "large", "replicas", "memory", "--scale", "0.01"], ["stages", "--prompts", "60"]]
)
def test_what_else_is_measured_does_its_whole_job(words: list[str]) -> None:
    """They too refuse to go on when a row is missing or a lane is not empty."""
    module, *arguments = words
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("prompts in ") == 4 * (module == "scale")

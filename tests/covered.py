"""Judges what a run of tests under coverage has reached: `make coverage`. Exit status 1 where that is too little.

Lines and branches count apart: a thousand plain lines would outweigh the one decision that no test takes.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from coverage import Coverage

ROOT = Path(__file__).parents[1]
LEAST = 95.0  # percent

ROLES = ("batcher", "submitter", "reconciler", "poller", "drainer", "rescuer", "ticker", "recovery/*")
SHARED_BY_ROLES = ("refusals", "parking", "workspaces", "readings", "deliveries", "actors", "loops")
GROUPS = {
    "core": ("worker/core/*.py",),
    "ledger": ("worker/ledger/*.py",),
    "roles": tuple(f"worker/{name}.py" for name in ROLES + SHARED_BY_ROLES),
}


def main() -> int:
    """Print what was missed, file by file, and the figures of each group; returns the exit status."""
    measured = Coverage()
    measured.load()
    judged = [file for patterns in GROUPS.values() for file in _files(patterns)]
    measured.report(include=judged, show_missing=True, skip_covered=True)
    print(f"\n{'group':10}{'lines':>18}{'branches':>18}")
    enough = True
    for group, patterns in GROUPS.items():
        totals = _totals(measured, _files(patterns))
        lines, branches = totals["percent_statements_covered"], totals["percent_branches_covered"]
        of_lines = f"{totals['covered_lines']}/{totals['num_statements']}"
        of_branches = f"{totals['covered_branches']}/{totals['num_branches']}"
        print(f"{group:10}{of_lines:>11}{lines:6.1f}%{of_branches:>11}{branches:6.1f}%")
        enough = enough and min(lines, branches) >= LEAST
    if not enough:
        print(f"Each should be {LEAST:g} % or more.")
    return 0 if enough else 1


def _files(patterns: tuple[str, ...]) -> list[str]:
    found = {pattern: [str(file) for file in sorted(ROOT.glob(pattern))] for pattern in patterns}
    if gone := [pattern for pattern, files in found.items() if not files]:
        sys.exit(f"there is no {', '.join(gone)} any more: say in {__file__} what is to be judged instead")
    return [file for files in found.values() for file in files]


def _totals(measured: Coverage, files: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        measured.json_report(outfile=str(report), include=files)
        totals: dict[str, Any] = json.loads(report.read_text("utf-8"))["totals"]
    return totals


if __name__ == "__main__":
    sys.exit(main())

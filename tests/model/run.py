"""Run the model: `pypy3 tests/model/run.py [--fast] [--most STATES] [ROW…]`; one row alone shows its counterexample.

Exit status 0: every row came to what it says, and every state was seen.
"""

from __future__ import annotations

import argparse
import sys

from protocol.row import Row
from protocol.rows import ROWS
from protocol.search import MOST_STATES, Verdict, explore


def main() -> int:
    """Run the rows that were asked for, print a table; returns 1 when a row did not come to what it says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW")
    parser.add_argument("--fast", action="store_true", help="only the rows that take seconds")
    parser.add_argument("--most", type=int, default=MOST_STATES, help="give a row up after so many states")
    args = parser.parse_args()
    named = {row.name: row for row in ROWS}
    wanted = [named[name] for name in args.rows if name in named] or [row for row in ROWS if row.fast or not args.fast]
    if args.rows and len(wanted) != len(args.rows):
        parser.error("no such row")
    surprises = 0
    say(f"{'row':5}{'states':>10}{'edges':>11}{'depth':>6}{'s':>8}  came to")
    for row in wanted:
        verdict = explore(row.setting, most=args.most)
        as_said = is_as_said(row, verdict)
        surprises += not as_said
        say(line(row, verdict, as_said=as_said))
        if len(wanted) == 1 or not as_said:
            for number, words in enumerate(verdict.trace, 1):
                say(f"    {number:3} {words}")
    return 1 if surprises else 0


def say(text: str) -> None:
    """Write a line at once: a row may take minutes."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def is_as_said(row: Row, verdict: Verdict) -> bool:
    """Whether a row came to what the table says."""
    return verdict.broken in row.breaks if row.breaks else verdict.complete and not verdict.broken


def line(row: Row, verdict: Verdict, *, as_said: bool) -> str:
    """Return the row's line of the table."""
    came_to = verdict.broken or ("holds" if verdict.complete else "no end within the cap")
    figures = f"{verdict.states:>10}{verdict.edges:>11}{verdict.depth:>6}{verdict.seconds:>8.1f}"
    return f"{row.name:5}{figures}  {'' if as_said else 'UNEXPECTED '}{came_to} ({row.says})"


if __name__ == "__main__":
    sys.exit(main())

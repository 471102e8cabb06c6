"""A compressed day: steady load, waves, bursts, faults, deploys and crashes; what must be flat is measured each hour.

    .venv/bin/python tests/soak/run.py --minutes 15
    .venv/bin/python tests/soak/run.py --minutes 15 --other HEAD~20     an old release beside this one

Prints a row per hour and the verdict; exit status 0 if all is well, 1 if not, 2 if it could not be run.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

# after the path, so that this checkout's code is measured and not an installed one
from compressed_day import CompressedDay  # noqa: E402 - see above
from fleet import SoakError  # noqa: E402 - see above
from soak import HEAD, Plan, Soak  # noqa: E402 - see above


def main() -> int:
    """Run the command."""
    summary, _, examples = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=15.0, help="how long the day takes (default: 15)")
    parser.add_argument("--hours", type=int, default=24, help="how many hours the day has (default: 24)")
    parser.add_argument("--rate", type=float, default=25.0, help="prompts a second at medium load (default: 25)")
    parser.add_argument("--seed", type=int, default=1, help="for the load and the faults (default: 1)")
    parser.add_argument("--other", metavar="WHAT", help="a checkout or a revision that runs beside this one")
    parser.add_argument("--plant", default="", metavar="LEAKS", help="keys,ends,memory,threads,fds,files,series")
    parser.add_argument("--keep", metavar="FOLDER", help="leave logs and results there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        plan = Plan(
            day=CompressedDay(minutes=args.minutes, hours=args.hours),
            directory=Path(args.keep or temporary).resolve(),
            rate=args.rate,
            seed=args.seed,
            other=args.other,
            plants=args.plant,
        )
        say(f"{args.hours} hours in {args.minutes:g} minutes, {plan.day.factor:.0f} times as fast as life\n{HEAD}")
        try:
            outcome = Soak(plan, say).run()
        except SoakError as error:
            say(f"the soak could not be run: {error}")
            return 2
    for name, value in outcome.told.items():
        say(f"{name}: {value}")
    for complaint in outcome.complaints:
        say(f"WRONG: {complaint}")
    say("verdict: " + (f"{len(outcome.complaints)} complaints" if outcome.complaints else "all is well"))
    return 1 if outcome.complaints else 0


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

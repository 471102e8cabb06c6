"""`batchmill resume`: submit again, whether a person or account trouble had stopped it."""

import argparse

from worker.cli.arguments import add_command, add_json_flag, add_lane_flag
from worker.cli.reach import reach
from worker.cli.settings import EX_OK, add_config_flags
from worker.cli.showing import clean, print_json

EXAMPLE = """\
batchmill resume
batchmill resume --lane bulk
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the `resume` command."""
    parser = add_command(
        subparsers,
        "resume",
        help="start submitting again",
        description="End a pause, and parking too: do it once the account's trouble is mended.",
        example=EXAMPLE,
    )
    add_config_flags(parser)
    add_lane_flag(parser)
    add_json_flag(parser)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Resume; returns 0, or ends with 69 without Redis, 78 misconfigured, 1 for an unknown lane."""
    resumed = {}
    with reach(args) as there:
        for lane in there.lanes(args.lane):
            marks = there.ledger.lanes.marks(lane)
            resumed[lane] = {"paused": marks.paused, "parked": marks.parked}
            there.ledger.lanes.resume(lane)
            if marks.paused or marks.parked:
                there.ledger.batches.hasten(lane)
    if args.json:
        print_json({"resumed": resumed})
    else:
        for lane, before in resumed.items():
            ended = [f"{word} ({clean(reason)})" for word, reason in before.items() if reason]
            print(f"{lane}: " + (f"was {' and '.join(ended)}, submits again" if ended else "was not stopped"))
    return EX_OK

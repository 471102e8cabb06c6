"""`batchmill pause`: submit nothing more until `batchmill resume`."""

import argparse

from worker.cli.arguments import add_command, add_json_flag, add_lane_flag
from worker.cli.reach import reach
from worker.cli.settings import EX_OK, add_config_flags
from worker.cli.showing import print_json

EXAMPLE = """\
batchmill pause --lane bulk --reason "price change on Monday"
batchmill resume --lane bulk
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the `pause` command."""
    parser = add_command(
        subparsers,
        "pause",
        help="stop submitting",
        description=(
            "Submit nothing more. Prompts are still taken in and sealed, and batches that are already in progress "
            "are still polled and drained. Lanes that do not exist yet are not paused."
        ),
        example=EXAMPLE,
    )
    add_config_flags(parser)
    add_lane_flag(parser)
    parser.add_argument("--reason", default="by hand", metavar="TEXT", help="shown by status (default: by hand)")
    add_json_flag(parser)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Pause; returns 0, or ends with 69 without Redis, 78 misconfigured, 1 for an unknown lane."""
    reason = args.reason.strip() or "by hand"
    with reach(args) as there:
        lanes = there.lanes(args.lane)
        for lane in lanes:
            there.ledger.lanes.pause(lane, reason)
    if args.json:
        print_json({"paused": lanes, "reason": reason})
    else:
        for lane in lanes:
            print(f"{lane}: paused, until `batchmill resume`")
    return EX_OK

"""`batchmill flush`: seal what waits now, however young it is."""

import argparse

from worker.cli.arguments import add_command, add_json_flag, add_lane_flag
from worker.cli.reach import Reached, reach
from worker.cli.settings import EX_OK, add_config_flags
from worker.cli.showing import print_json
from worker.core.entry_ids import order

EXAMPLE = """\
batchmill flush
batchmill flush --lane bulk
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the `flush` command."""
    parser = add_command(
        subparsers,
        "flush",
        help="seal what waits now",
        description="Ask the batchers to seal everything that waits now. It does not wait until they have.",
        example=EXAMPLE,
    )
    add_config_flags(parser)
    add_lane_flag(parser)
    add_json_flag(parser)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Flush; returns 0, or ends with 69 without Redis, 78 misconfigured, 1 for an unknown lane."""
    with reach(args) as there:
        flushed = {lane: _flush(there, lane) for lane in there.lanes(args.lane)}
    if args.json:
        print_json(flushed)
    else:
        for lane, last in flushed.items():
            print(f"{lane}: nothing waits" if last is None else f"{lane}: everything up to {last} is being sealed")
    return EX_OK


def _flush(there: Reached, lane: str) -> str | None:
    """Flush one lane; returns the last entry id, None when all that is there is sealed already."""
    last = there.ledger.lanes.flush(lane)
    cursor = there.ledger.lanes.marks(lane).cursor
    return None if last is None or order(last) <= order(cursor) else last

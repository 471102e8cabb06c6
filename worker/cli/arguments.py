"""Words on the command line that several commands understand alike."""

import argparse

from worker.core.names import LANE_NAME, is_lane_name


def add_command(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    *,
    help: str,  # noqa: A002 - argparse's word
    description: str,
    example: str,
) -> argparse.ArgumentParser:
    """Add a command whose `--help` ends with an example."""
    return subparsers.add_parser(
        name,
        help=help,
        description=description,
        epilog="example:\n" + "".join(f"  {line}\n" for line in example.splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_lane_flag(parser: argparse.ArgumentParser, what: str = "this lane only (default: all lanes)") -> None:
    """Add `--lane`."""
    parser.add_argument("--lane", type=lane, metavar="LANE", help=what)


def add_json_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def lane(text: str) -> str:
    """Parse the name of a lane."""
    if not is_lane_name(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a lane: they match ^{LANE_NAME}$")
    return text


def count(text: str) -> int:
    """Parse a number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def age(text: str) -> float:
    """Parse a duration such as 30m or 7d into seconds."""
    from worker.config.units import duration

    try:
        return duration("0s", "36500d")(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None

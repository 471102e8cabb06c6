"""The command line: finds the command, runs it, returns its exit status."""

import argparse
import importlib
import sys
from collections.abc import Sequence

COMMANDS = (
    "run",
    "demo",
    "simulate",
    "enqueue",
    "status",
    "top",
    "batches",
    "flush",
    "dead",
    "pause",
    "resume",
    "check",
    "healthcheck",
)


class Version(argparse.Action):
    """Prints the version, looked up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print and end."""
        from importlib.metadata import version

        print(f"batchmill {version('batchmill')}")
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="batchmill",
        description="Prompts in through Redis, Anthropic Message Batches in the middle, rows out to sinks.",
        epilog="Every command explains itself with --help.",
    )
    parser.add_argument("--version", action=Version, nargs=0, help="print the version and end")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    arguments = sys.argv[1:] if argv is None else argv
    # only the named command is imported: a health check must not pay for a daemon
    wanted = next((word for word in arguments if not word.startswith("-")), "")
    for name in (wanted,) if wanted in COMMANDS else COMMANDS:
        importlib.import_module(f"worker.cli.{name.replace('-', '_')}").add_parser(subparsers)
    args = parser.parse_args(arguments)
    try:
        status: int = args.func(args)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 1
    return status

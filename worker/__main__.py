"""`python -m worker` and the `batchmill` command."""

import sys


def main() -> None:
    """Run the command line and exit with its status."""
    from worker.cli.main import main as run  # noqa: PLC0415 - the entry point stays light

    sys.exit(run())


if __name__ == "__main__":
    main()

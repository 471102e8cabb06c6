"""What every command shares: the flags that find the configuration, the exit statuses, and how to complain."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.config import Config

EX_OK, EX_FAILED, EX_USAGE, EX_UNAVAILABLE, EX_KEY, EX_CONFIG = 0, 1, 2, 69, 77, 78


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--config` and `--set`, which win over environment and file."""
    parser.add_argument("--config", metavar="FILE", help="TOML file (default: config/batchmill.toml, then /etc)")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="one setting by its dotted name, e.g. --set lanes.default.max_age=10s",
    )


def read_config(args: argparse.Namespace) -> "Config | None":
    """Read the configuration; tells every problem on stderr and returns None when there are any."""
    from worker.config import ConfigError, load_config

    overrides = {}
    for word in args.set:
        key, separator, value = word.partition("=")
        if not separator:
            complain(f"--set {word}: write it as KEY=VALUE", EX_CONFIG)
            return None
        overrides[key.strip()] = value
    try:
        return load_config(path=args.config, environ=os.environ, cwd=Path.cwd(), overrides=overrides)
    except ConfigError as error:
        for problem in error.problems:
            complain(problem, EX_CONFIG)
        return None


def complain(text: str, status: int) -> int:
    """Say what is wrong on stderr and return the exit status for it."""
    print(f"batchmill: {text}", file=sys.stderr)
    return status

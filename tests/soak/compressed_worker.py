"""`python compressed_worker.py WORDS…`: `batchmill WORDS…` of the checkout on PYTHONPATH, with its clockwork scaled.

`SOAK_CONSTANTS` is JSON, `module.NAME` to number; what an older release does not have is told and left out.
`SOAK_PLANTS` names leaks to plant, for the tests of the judgement.
"""

import importlib
import json
import os
import sys
from pathlib import Path

CHECKOUT = "SOAK_CHECKOUT"
CONSTANTS = "SOAK_CONSTANTS"
PLANTS = "SOAK_PLANTS"


def main() -> int:
    """Set the constants, then be the command."""
    command = importlib.import_module("worker.__main__")
    found = Path(command.__file__ or "").parents[1]
    if found != Path(os.environ[CHECKOUT]):
        raise SystemExit(f"this is the code of {found}, not of {os.environ[CHECKOUT]}")
    for name, value in json.loads(os.environ[CONSTANTS]).items():
        module, _, constant = name.rpartition(".")
        target = importlib.import_module(module)
        if hasattr(target, constant):
            setattr(target, constant, value)
        else:
            sys.stderr.write(json.dumps({"event": "soak.constant_missing", "name": name}) + "\n")
    if planted := os.environ.get(PLANTS):
        importlib.import_module("plants").plant(planted.split(","))
    return int(command.main())


if __name__ == "__main__":
    sys.exit(main())

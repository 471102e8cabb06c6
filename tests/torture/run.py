"""`python tests/torture/run.py`: see `torture.py`, or `--help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from torture import main  # this checkout's own code, whatever is installed

if __name__ == "__main__":
    sys.exit(main())

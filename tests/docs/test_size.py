from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
CEILING = 400  # lines
EXCEPTIONS: dict[str, int] = {}  # path: lines it has today; a number may only shrink, an entry only go


def lines_of(*folders: str) -> dict[str, int]:
    """Count the lines of every source file below `folders`."""
    files = [file for folder in folders for kind in ("py", "lua") for file in (ROOT / folder).rglob(f"*.{kind}")]
    return {str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines()) for file in files}


def test_no_file_outgrows_its_reader() -> None:
    """What is longer is two things, and wants to be two files."""
    too_long = {path: lines for path, lines in lines_of("worker", "tests").items() if lines > CEILING}
    assert {path: lines for path, lines in too_long.items() if lines > EXCEPTIONS.get(path, CEILING)} == {}


def test_exceptions_only_shrink() -> None:
    """A file that got shorter gives its allowance back."""
    lines = lines_of("worker", "tests")
    assert {path: lines.get(path, 0) for path in EXCEPTIONS} == EXCEPTIONS
    assert not [path for path in EXCEPTIONS if lines[path] <= CEILING]


def test_the_median_file_is_small() -> None:
    """One noun, one screen or two; `make size` prints the figures."""
    lines = lines_of("worker")
    middle = median(lines.values())
    longest = sorted(lines, key=lambda path: lines[path])[-3:]
    print(f"{len(lines)} files, median {middle:g} lines; longest:", *(f"{path} {lines[path]}" for path in longest))
    assert middle <= 150

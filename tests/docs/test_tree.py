import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    not (ROOT / ".git").exists() or not shutil.which("git"), reason="only a git checkout knows what is committed"
)

# Each class of one letter keeps a pattern from finding itself.
MACHINE_PATHS = r"(^|[^[:alnum:]_.])/([w]ork|[r]oot|[h]ome/[a-z]+|[o]pt/(wheels|pypi)|[t]mp/(venv|uvt))([/ '\")]|$)"
REGISTRIES = r"[p]ypi\.org|[p]ythonhosted|[r]egistry\.npmjs|[p]ypi/simple|--(extra-)?[i]ndex-url |--[f]ind-links "
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc", "types", "constants"}


def committed(pattern: str, *paths: str) -> list[str]:
    """Return the lines of tracked files that match, as `file:number:line`."""
    command = ["git", "grep", "-InE", pattern, "--", *paths]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode in {0, 1}, found.stderr
    return found.stdout.splitlines()


def test_nothing_committed_names_a_machine() -> None:
    """Paths of the machine it was written on mean nothing elsewhere."""
    assert committed(MACHINE_PATHS) == []


def test_nothing_committed_names_a_registry() -> None:
    """Where packages come from is the business of each machine; the hashes say what they are."""
    assert committed(REGISTRIES) == []


def test_every_suppressed_warning_has_a_reason() -> None:
    """Each is followed by why; in tests the code of a `type: ignore` is reason enough."""
    suppressed = committed(r"# (ruff: )?[n]oqa", "*.py") + committed(r"# [t]ype: ignore", "worker/*.py")
    reason = re.compile(r"(noqa: [A-Z0-9, ]+|ignore\[[a-z, -]+\]) +(#|-) \S")
    assert [line for line in suppressed if not reason.search(line)] == []


def test_every_lint_rule_left_out_has_a_reason() -> None:
    """Each line of an ignore list in pyproject.toml ends in one."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    rules = set(tomllib.loads(text)["tool"]["ruff"]["lint"]["ignore"])
    listed = [line for line in text.splitlines() if set(re.findall(r'"([A-Z]+\d+)"', line)) & rules]
    assert listed
    assert [line for line in listed if not re.search(r",\s+# \S", line)] == []


def test_every_lock_entry_is_pinned_by_hash() -> None:
    """One version and its hashes for each requirement, and nothing else."""
    for lock in sorted((ROOT / "requirements").glob("*.txt")):
        text = lock.read_text(encoding="utf-8").replace("\\\n", "")
        entries = text.splitlines()
        assert entries, lock.name
        assert [line for line in entries if not re.match(r"[a-z0-9-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line)] == []


def test_a_name_says_what_is_inside() -> None:
    """A module called after nothing attracts everything."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {Path(path).stem for path in listed.stdout.split()} & VAGUE_NAMES

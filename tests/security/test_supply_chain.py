"""What is installed is what was locked, and what is known about it is asked for honestly."""

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest
from security_rig import ROOT, need

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
_ENTRY = re.compile(r"([a-z0-9-]+)==([^ ;\\]+)")


def entries(lock: Path) -> list[str]:
    """Return the requirements of a lock, each with its hashes on one line."""
    return lock.read_text("utf-8").replace("\\\n", " ").splitlines()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_requirement_is_pinned_by_a_hash_and_says_nothing_else(lock: Path) -> None:
    """One version, its hashes, perhaps a marker; no address, no file, no option that would take it from elsewhere."""
    pinned = re.compile(r"[a-z0-9-]+==[0-9A-Za-z.!+]+( ; [^@\\]+?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*")
    assert entries(lock)
    assert [entry for entry in entries(lock) if not pinned.fullmatch(entry)] == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_no_lock_names_a_host(lock: Path) -> None:
    """Where packages come from is each machine's business; the hashes make sure that it does not matter."""
    assert not re.search(r"://|index-url|find-links|trusted-host|@ ", lock.read_text("utf-8"))


def test_the_locks_agree_with_each_other() -> None:
    """What is tested is what runs: a library has one version everywhere."""
    versions: dict[str, set[str]] = {}
    for lock in LOCKS:
        for entry in entries(lock):
            if found := _ENTRY.match(entry):
                versions.setdefault(found[1], set()).add(found[2])
    assert {name: several for name, several in versions.items() if len(several) > 1} == {}


def test_nothing_is_installed_without_its_hash() -> None:
    """Each line of the Makefile that installs libraries asks for hashes; the project itself brings none."""
    text = (ROOT / "Makefile").read_text("utf-8").replace("\\\n", " ")
    installing = [line for line in text.splitlines() if re.search(r"pip (install|sync) ", line)]
    assert len(installing) >= 4
    for line in installing:
        assert "--require-hashes" in line or ("--no-deps" in line and "--offline" in line), line


STUB = """#!/bin/sh
case "$*" in
    --version) echo pip-audit stub ;;
    *json*) {probe} ;;
    *dev.txt*) {locked} ;;
esac
"""
FOUND = 'echo "{\\"vulns\\": [{\\"id\\": \\"X\\", \\"fix_versions\\": []}]}"; exit 1'


@pytest.mark.parametrize(
    ("probe", "locked", "status", "told"),
    [
        (FOUND, "exit 0", 0, ""),
        (FOUND, "echo Found 1 known vulnerability; exit 1", 1, ""),
        (FOUND, "echo could not be audited >&2; exit 1", 1, "could not be audited"),
        ('echo "{}"; exit 0', "exit 0", 0, "NOT AUDITED"),
        ("exit 1", "exit 1", 0, "NOT AUDITED"),
    ],
    ids=["clean", "a finding", "a library nobody knows", "no data, called good", "no data, called an error"],
)
def test_the_audit_does_not_lie(tmp_path: Path, probe: str, locked: str, status: int, told: str) -> None:
    """A finding fails; where no flaw is found in a library that is known to be flawed, nothing is claimed."""
    stub = tmp_path / "pip-audit"
    stub.write_text(STUB.format(probe=probe, locked=locked), "utf-8")
    stub.chmod(stat.S_IRWXU)
    ended = subprocess.run(
        [need("bash"), str(ROOT / ".ci" / "audit")],
        env={"PATH": os.environ["PATH"], "PIP_AUDIT": str(stub)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == status, ended
    assert told in ended.stderr
    assert bool(told) is bool(ended.stderr.strip()), ended

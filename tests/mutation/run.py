"""Runs tests against mutants of the code: `python tests/mutation/run.py FILE… --tests PATH… [--sample N --seed S]`.

Mutants are made in copies of the tree. A first run notes which test enters which function or script; a mutant is then
judged by the tests that enter its own, the quickest first. What no test notices is printed at the end, and is to be
looked at: it changes nothing, or nobody would see it if it did. Exit status 0 if there is none, 1 if there is.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from lua_mutants import mutate_lua
from mutant import Mutant
from python_mutants import mutate_python

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("worker", "tests", "docs", "config", "deploy", "pyproject.toml", "README.md")
LONGEST_SECONDS = 240.0
QUIET = (
    *("-q", "-x", "--timeout=120", "-p", "no:cacheprovider"),
    *("-p", "no:unraisableexception"),  # what a collector finds at the end of a fork is no verdict
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # of plugins that the parent has loaded
)
VERDICTS = {0: "survived", 1: "killed", 2: "killed"}
"""By pytest's exit status; a mutant that cannot be imported interrupts it."""


def main(words: Sequence[str] | None = None) -> int:
    """Run, report, and return the exit status."""
    asked = _parse(words)
    sys.dont_write_bytecode = True  # two mutants of one second and one size share a .pyc
    with contextlib.ExitStack() as stack:
        copies = [_copy(stack) for _ in range(asked.processes)]
        notes = _scout(copies[0], asked.tests)
        for folder, chosen in _by_folder(asked.worlds).items():
            _pass(copies[0], folder, chosen)
            notes |= {test: {"seconds": LONGEST_SECONDS, "entered": None} for test in chosen}
        mutants = [mutant for asked_for in asked.files for mutant in _chosen(asked_for)]
        if asked.sample and asked.sample < len(mutants):
            mutants = sorted(
                random.Random(asked.seed).sample(mutants, asked.sample), key=lambda one: (one.file, one.start)
            )
        print(f"{len(mutants)} mutants, {len(notes)} tests", flush=True)
        fork = multiprocessing.get_context("fork")  # without threads: a fork of a thread may inherit a held lock
        free = fork.SimpleQueue()
        for copy in copies:
            free.put(copy)
        verdicts: Counter[str] = Counter()
        with ProcessPoolExecutor(len(copies), mp_context=fork, initializer=_settle_in, initargs=(free, notes)) as pool:
            for mutant, verdict in zip(mutants, pool.map(_judge, mutants), strict=True):
                verdicts[verdict] += 1
                if verdict not in {"killed", "timeout"}:
                    print(f"{verdict}: {mutant.tell((ROOT / mutant.file).read_text(encoding='utf-8'))}", flush=True)
    print(", ".join(f"{times} {verdict}" for verdict, times in sorted(verdicts.items())))
    return 1 if verdicts.keys() - {"killed", "timeout"} else 0


def mutants_of(path: Path, file: str) -> Iterator[Mutant]:
    """Yield every mutant of a file, in the order of its text."""
    text = path.read_text(encoding="utf-8")
    made = mutate_lua(text, file) if path.suffix == ".lua" else mutate_python(text, file)
    seen = {text}
    for mutant in sorted(made, key=lambda one: (one.start, one.end)):
        changed = mutant.apply(text)
        if changed not in seen:
            seen.add(changed)
            yield mutant


def _chosen(asked_for: str) -> list[Mutant]:
    file, _, line = asked_for.partition(":")
    return [mutant for mutant in mutants_of(ROOT / file, file) if line in {"", str(mutant.line)}]


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "files", nargs="+", help="Python or Lua files, from the root of the tree; FILE:LINE for one line"
    )
    parser.add_argument("--tests", nargs="+", default=[], help="files, folders or ids of tests that should notice")
    parser.add_argument(
        "--worlds", nargs="+", default=[], help="tests for all mutants, asked last: no profiler sees into greenlets"
    )
    parser.add_argument("--sample", type=int, help="judge only so many, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (0)")
    parser.add_argument("--processes", type=int, default=2, help="how many at a time (2)")
    return parser.parse_args(words)


def _copy(stack: contextlib.ExitStack) -> Path:
    copy = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / part).exists():
            shutil.copy(ROOT / part, copy / part)
    return copy


def _scout(copy: Path, tests: Sequence[str]) -> dict[str, Any]:
    """Run the tests as they are, which have to pass, and return what each enters."""
    notes: dict[str, Any] = {}
    for folder, chosen in _by_folder(tests).items():
        report = copy / "notes.json"
        _pass(copy, folder, chosen, report=report)
        notes |= json.loads(report.read_text(encoding="utf-8"))
    return notes


def _pass(copy: Path, folder: str, chosen: Sequence[str], *, report: Path | None = None) -> None:
    if _in_child(copy, chosen, 3600.0, report=report) != "survived":
        raise SystemExit(f"the tests in {folder} fail without any mutant, or take longer than an hour")


HERE: dict[str, Any] = {}
"""What a process of the pool has: a copy of its own, and the notes."""


def _settle_in(free: Any, notes: dict[str, Any]) -> None:
    HERE.update(copy=free.get(), notes=notes)


def _judge(mutant: Mutant) -> str:
    """Say killed, timeout, survived, or unseen if no test enters the function."""
    copy, notes = HERE["copy"], HERE["notes"]
    where = mutant.file if mutant.file.endswith(".lua") else f"{mutant.file} {mutant.owner}"
    seen = [
        test for test, note in notes.items() if note["entered"] is None or not mutant.owner or where in note["entered"]
    ]
    path = copy / mutant.file
    text = path.read_text(encoding="utf-8")
    path.write_text(mutant.apply(text), encoding="utf-8")
    try:
        for chosen in _by_folder(sorted(seen, key=lambda test: float(notes[test]["seconds"]))).values():
            longest = LONGEST_SECONDS + 5 * sum(notes[test]["seconds"] for test in chosen)
            if (verdict := _in_child(copy, chosen, longest)) != "survived":
                return verdict
    finally:
        path.write_text(text, encoding="utf-8")
    return "survived" if seen else "unseen"


def _by_folder(tests: Sequence[str]) -> dict[str, list[str]]:
    """Part tests by their folder: folders are no packages, and a name may stand in two of them."""
    folders: dict[str, list[str]] = {}
    for test in tests:
        folders.setdefault("/".join(test.split("/")[:2]), []).append(test)
    return folders


def _in_child(copy: Path, tests: Sequence[str], longest: float, *, report: Path | None = None) -> str:
    """Run tests in a fork, which has the libraries loaded but nothing of the tree."""
    child = os.fork()
    if child == 0:
        _run_and_exit(copy, tests, report)
    end = time.monotonic() + longest
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return VERDICTS.get(os.waitstatus_to_exitcode(status), "broken")
        time.sleep(0.05)
    os.kill(child, signal.SIGINT)  # lets it stop its servers
    time.sleep(10.0)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


def _run_and_exit(copy: Path, tests: Sequence[str], report: Path | None) -> None:
    status = 99
    try:
        os.setpgid(0, 0)
        os.chdir(copy)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        sys.path[:] = [
            str(copy),
            *(place for place in sys.path if Path(place or ".").resolve() not in {ROOT, ROOT / "tests/mutation"}),
        ]
        plugins = []
        if report is not None:
            sys.path.append(str(copy / "tests/mutation"))
            from scout import Scout  # noqa: PLC0415 - it imports the tree, which only the child may

            plugins.append(Scout(copy, report))
        status = int(pytest.main([*QUIET, *tests], plugins=plugins))
    finally:
        os._exit(status)


def _load_libraries() -> None:
    """Import once what every child would import again."""
    for name in (
        "anthropic",
        "dramatiq",
        "fakeredis",
        "hypothesis",
        "msgspec",
        "prometheus_client",
        "redis",
        "structlog",
    ):
        __import__(name)


if __name__ == "__main__":
    _load_libraries()
    sys.exit(main())

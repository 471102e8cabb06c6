"""A pytest plugin that notes which functions and which scripts each test runs, and how long it takes.

It goes by entered functions, not lines: cheap, and enough to run only the tests that could notice a mutant.
"""

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from worker.ledger.scripts import Script


class Scout:
    """Notes what runs under a test; what a session's fixtures run counts for the test that came first."""

    def __init__(self, root: Path, report: Path) -> None:
        self._worker = f"{root}/worker/"
        self._cut = len(str(root)) + 1
        self._report = report
        self._entered: set[str] = set()
        self._notes: dict[str, Any] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Note what is entered while the test and its fixtures run."""
        self._entered = set()
        self._notes[item.nodeid] = {"seconds": 0.0}
        sys.setprofile(self._note)
        threading.setprofile(self._note)
        try:
            return (yield)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
            self._notes[item.nodeid]["entered"] = sorted(self._entered)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add up the time of set-up, test and tear-down."""
        self._notes[report.nodeid]["seconds"] += report.duration

    def pytest_sessionfinish(self) -> None:
        """Leave the notes for whoever asked."""
        self._report.write_text(json.dumps(self._notes), encoding="utf-8")

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        if event != "call":
            return
        code = frame.f_code
        if code.co_filename.startswith(self._worker):
            self._entered.add(f"{code.co_filename[self._cut :]} {code.co_name}:{code.co_firstlineno}")
            if code is Script.arrange.__code__:
                self._entered.add(f"worker/ledger/lua/{frame.f_locals['self'].name}.lua")

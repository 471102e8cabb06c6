"""The commands against a daemon at work: each test follows a handful of prompts from file to file."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_rig import PARAMS, Shell, wait_until

from worker.core.lifecycle import Event
from worker.ledger.batches import NEVER
from worker.ledger.ledger import Ledger
from worker.simulator import Simulator

ROOT = Path(__file__).parents[2]


@pytest.fixture
def daemon(
    redis: Any,  # noqa: ARG001 - emptied first
    simulator: Simulator,  # noqa: ARG001 - found by the environment
    tmp_path: Path,
) -> Iterator[Path]:
    """A daemon that seals only when told to; returns its folder of results."""
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    settings = ("lanes.default.max_age=1h", "http.port=0", "poll.interval=50ms", "tick=50ms", "log.level=warning")
    words = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "worker", "run", *words]
    with (
        (tmp_path / "daemon.log").open("wb") as log,
        subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=log) as process,
    ):
        assert process.stdout is not None
        try:
            assert process.stdout.readline().startswith(b"http://"), (tmp_path / "daemon.log").read_text()
            yield tmp_path / "results"
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()


def _rows(results: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in results.rglob("*.jsonl") for line in file.read_text().splitlines()]


def _enqueue(shell: Shell, tmp_path: Path, count: int = 3) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"params": PARAMS, "id": f"p{n}"}) + "\n" for n in range(count)))
    assert shell.json("enqueue", str(file))["enqueued"] == count


def _only(shell: Shell, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = wait_until(lambda: shell.json("batches", "list", *words), " ".join(words))[0]
    return found


def test_a_batch_is_flushed_canceled_delivered_and_deleted(shell: Shell, daemon: Path, tmp_path: Path) -> None:
    """From `enqueue` to `batches delete`, by commands alone."""
    _enqueue(shell, tmp_path)
    assert shell.json("status")["lanes"]["default"]["depth"] == 3
    assert shell.json("flush")["default"] is not None
    batch = _only(shell, "--state", "in_progress")
    assert shell.json("batches", "cancel", batch["remote_id"])["remote_status"] == "canceling"
    settled = _only(shell, "--settled")
    assert settled["counts"]["canceled"] == 3
    assert [row["result"]["type"] for row in _rows(daemon)] == ["canceled"] * 3
    assert shell.json("batches", "delete", settled["uid"])["deleted"] == batch["remote_id"]


def test_a_held_batch_is_submitted_again(
    shell: Shell, daemon: Path, tmp_path: Path, ledger: Ledger, simulator: Simulator
) -> None:
    """After `resolve --resubmit` and `resume` every prompt has its row, and was paid for once."""
    batch = _held(shell, tmp_path, ledger)
    assert shell.run("batches", "resolve", batch["uid"], "--resubmit").status == 0
    assert _only(shell, "--state", "sealed")["uid"] == batch["uid"]
    assert shell.run("resume").status == 0
    _only(shell, "--state", "in_progress")
    simulator.control.end()
    assert _only(shell, "--settled")["uid"] == batch["uid"]
    assert sorted(row["id"] for row in _rows(daemon)) == ["p0", "p1", "p2"]
    assert simulator.control.ledger()["prompts_committed_twice"] == 0


def test_a_held_batch_is_given_up(shell: Shell, daemon: Path, tmp_path: Path, ledger: Ledger) -> None:
    """After `resolve --bury` its producers have rows that say so, its prompts are dead letters, and can be redriven."""
    batch = _held(shell, tmp_path, ledger)
    assert shell.run("batches", "resolve", batch["uid"], "--bury").status == 0
    assert _only(shell, "--settled")["uid"] == batch["uid"]
    assert [row["result"]["type"] for row in _rows(daemon)] == ["errored"] * 3
    assert {letter["reason"] for letter in shell.json("dead", "list")} == {"abandoned"}
    assert shell.json("dead", "redrive", "--all") == {"redriven": 3}
    assert shell.json("status")["lanes"]["default"]["depth"] == 3


def _held(shell: Shell, tmp_path: Path, ledger: Ledger) -> dict[str, Any]:
    """Have a batch sealed and held."""
    shell.run("pause", "--reason", "for the test")
    _enqueue(shell, tmp_path)
    shell.run("flush")
    uid = _only(shell, "--state", "sealed")["uid"]

    def hold() -> bool:
        seen = ledger.batches.get("default", uid)
        return seen is not None and ledger.batches.advance(seen, Event.HOLD, delay=NEVER, reason="for the test") == "OK"

    wait_until(hold, "the batch is held")
    assert "for the test" in shell.run("batches", "list", "--state", "held").out
    return _only(shell, "--state", "held")

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from worker.cli.main import main
from worker.simulator import Simulator

KEY = "sk-ant-canary"


def seen(simulator: Simulator) -> dict[str, Any]:
    """Return everything that a kept account must bring back."""
    state = simulator.control.state()
    batches = [{**batch, "downloads": None} for batch in state["batches"]]  # type: ignore[attr-defined]
    named = ("now", "posts", "attempts", "keys")
    return {"batches": batches, "ledger": simulator.control.ledger(custom_ids=True), **{n: state[n] for n in named}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the account is kept."""
    return tmp_path / "account"


def test_a_kept_account_comes_back_whole(
    simulate: Callable[..., Simulator], create: Callable[..., str], rows: Callable[..., Any], folder: Path
) -> None:
    """Batches with their rows, faults of rows, cancellations, ends, deletions, strangers, time, keys, POSTs."""
    first = simulate(keep=folder, ends_after=5.0)
    first.control.inject([{"kind": "rows", "fraction": 0.5}, {"kind": "stuck", "on": "create", "after": 5}])
    shaped, canceled, deleted, ended, sticky, stuck = (create(first, count) for count in (4, 3, 2, 1, 5, 6))
    first.control.inject({"kind": "stuck", "batch": sticky})
    first.control.foreign(7)
    first.control.advance(2)
    first.control.cancel(canceled)
    first.control.end(ended)
    first.control.end(deleted)
    first.control.delete(deleted)
    first.control.inject([{"kind": "revoke_key", "key": "sk-ant-other"}])
    first.control.advance(4)
    last = create(first, 8)
    first.control.end(last)
    assert first.control.inject({"kind": "end_now", "batch": last}) == []
    before, lines = seen(first), rows(first, shaped)
    first.stop()
    second = simulate(keep=folder, ends_after=99.0)
    assert seen(second) == before
    assert rows(second, shaped) == lines
    status = {batch["id"]: batch["processing_status"] for batch in before["batches"]}
    assert [status[each] for each in (sticky, stuck)] == ["in_progress", "in_progress"]


def test_no_life_makes_up_the_ids_of_another(
    simulate: Callable[..., Simulator], create: Callable[..., str], folder: Path
) -> None:
    """The seed is the same, the ids are not: a second life that repeated them would have two batches in one."""
    made = []
    for _ in range(3):
        simulator = simulate(keep=folder, seed=4)
        made.append(create(simulator))
        simulator.stop()
    assert len(set(made)) == 3


def test_a_late_commit_outlives_its_process(
    simulate: Callable[..., Simulator], call: Callable[..., Any], requests: Callable[..., Any], folder: Path
) -> None:
    """What was to be committed later is committed once, at its time, whoever runs by then."""
    first = simulate(keep=folder)
    first.control.inject({"kind": "late_commit", "seconds": 5})
    with pytest.raises(ConnectionError):
        call(first, "POST", body=requests(3))
    first.stop()
    second = simulate(keep=folder)
    assert second.control.ledger()["batches"] == 0
    second.control.advance(5)
    assert second.control.ledger()["prompts_committed"] == 3
    second.stop()
    third = simulate(keep=folder)
    assert third.control.ledger()["prompts_committed"] == 3


def test_a_line_that_was_cut_short_is_dropped(
    simulate: Callable[..., Simulator], create: Callable[..., str], folder: Path
) -> None:
    """A kill in the middle of a write leaves half a record, of which nobody was told; the next one starts clean."""
    first = simulate(keep=folder)
    create(first, 2)
    first.stop()
    with (folder / "account.jsonl").open("ab") as file:
        file.write(b'{"type":"made","id":"msgba')
    second = simulate(keep=folder)
    create(second, 3)
    second.stop()
    assert simulate(keep=folder).control.ledger()["prompts_committed"] == 5


def test_what_is_no_account_is_refused(simulate: Callable[..., Simulator], folder: Path) -> None:
    """A whole line that cannot be read is no accident of a kill."""
    folder.mkdir()
    (folder / "account.jsonl").write_text('{"type":"nonsense"}\n')
    with pytest.raises(ValueError, match="cannot be read"):
        simulate(keep=folder)


def test_an_account_serves_one_process_at_a_time(simulate: Callable[..., Simulator], folder: Path) -> None:
    """Two would each know half of what was created."""
    simulate(keep=folder)
    with pytest.raises(OSError, match="unavailable"):
        simulate(keep=folder)


def test_no_key_is_written_down(simulate: Callable[..., Simulator], folder: Path) -> None:
    """A revoked key is remembered by its digest."""
    simulate(keep=folder).control.inject({"kind": "revoke_key", "key": KEY})
    text = (folder / "account.jsonl").read_text()
    assert "revoked" in text
    assert KEY not in text


def test_the_command_says_what_is_wrong_with_what_was_kept(
    simulate: Callable[..., Simulator], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 1 while another process has it, 2 for what is no account, and for a body timeout that is none."""
    simulator = simulate(keep=folder)
    assert main(["simulate", "--port", "0", "--keep", str(folder)]) == 1
    simulator.stop()
    (folder / "account.jsonl").write_text("[]\n")
    assert main(["simulate", "--port", "0", "--keep", str(folder)]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert main(["simulate", "--port", "0", "--body-timeout", "0"]) == 2
    assert "body_timeout" in capsys.readouterr().err


def test_a_killed_process_forgets_no_batch(folder: Path, requests: Callable[..., Any]) -> None:
    """SIGKILL right after an answer: whatever was answered is there at the next start."""
    command = [sys.executable, "-m", "worker", "simulate", "--port", "0", "--json", "--keep", str(folder)]
    counts = []
    for number in range(3):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            with urllib.request.urlopen(f"{url}/simulator/ledger") as answer:  # noqa: S310  # our own
                counts.append(json.load(answer)["prompts_committed"])
            headers = {"x-api-key": KEY, "anthropic-version": "2026-10-21"}
            body = json.dumps(requests(5, ids=[f"d_b_{number}_{row}" for row in range(5)])).encode()
            request = urllib.request.Request(f"{url}/v1/messages/batches", data=body, headers=headers)  # noqa: S310  # ours
            with urllib.request.urlopen(request) as answer:  # noqa: S310  # our own
                assert answer.status == 200
            process.send_signal(signal.SIGKILL)
    assert counts == [0, 5, 10]

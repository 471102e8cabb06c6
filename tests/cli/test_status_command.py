import json
import os
import pty
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

from cli_rig import PARAMS, UIDS, Shell, put_batch, put_dead

from worker.core.report import report
from worker.embedded import EmbeddedServer
from worker.embedded.state import Running, write_state
from worker.ledger.ledger import Ledger


def test_status_shows_what_there_is(shell: Shell, redis: Any, ledger: Ledger) -> None:
    """Depth, batches by state, dead letters, and a batch that needs a person, with what that person can do."""
    put_batch(ledger, redis, UIDS[0], state="held", reason="the remote batch was deleted by somebody else")
    put_batch(ledger, redis, UIDS[1], state="in_progress", attempt=1)
    redis.xadd(ledger.store.keys.prompts("default"), {"params": json.dumps(PARAMS)})
    put_dead(redis, ledger, "p", "expired")
    told = shell.run("status")
    assert told.status == 0
    assert "1 in_progress, 1 held" in told.out
    assert "batches resolve" in told.out
    assert "\nhealthy" not in told.out
    facts = shell.json("status")
    lane = facts["lanes"]["default"]
    assert (lane["depth"], lane["held"], lane["dead_letters"], facts["healthy"]) == (1, 1, 1, False)


def test_status_prints_the_report_of_statusz(shell: Shell, ledger: Ledger) -> None:
    """The JSON is the same report, to the key."""
    figures = ledger.reads.figures(["default"], {"default": ("results",)})
    expected = report(figures, in_flight_limit=200_000)
    facts = shell.json("status")
    assert facts | {"read_at": 0} == expected | {"read_at": 0}


def test_status_of_one_lane(shell: Shell, ledger: Ledger) -> None:
    """`--lane` leaves the others out."""
    ledger.deployment.register_lanes(["bulk"])
    assert set(shell.json("status")["lanes"]) == {"default", "bulk"}
    assert set(shell.json("status", "--lane", "bulk")["lanes"]) == {"bulk"}


def test_what_a_producer_wrote_cannot_move_the_cursor(shell: Shell, redis: Any, ledger: Ledger) -> None:
    """Escape sequences in ids and reasons are shown as what they are not."""
    put_dead(redis, ledger, "\x1b[2J\nroot", "expired")
    ledger.lanes.pause("default", "\x1b]0;title\x07")
    for words in (("dead", "list"), ("status",), ("resume",)):
        out = shell.run(*words).out
        assert "\x1b" not in out
        assert "\x07" not in out
    [letter] = shell.json("dead", "list")
    assert letter["prompt_id"] == "\x1b[2J\nroot"


def test_pause_and_resume_mark_the_lanes(shell: Shell, ledger: Ledger) -> None:
    """A pause keeps its reason, a resume ends parking as well."""
    ledger.deployment.register_lanes(["bulk"])
    assert shell.json("pause", "--lane", "bulk", "--reason", "price change") == {
        "paused": ["bulk"],
        "reason": "price change",
    }
    assert ledger.lanes.marks("bulk").paused == "price change"
    assert ledger.lanes.marks("default").paused is None
    ledger.lanes.park("default", "billing", ledger.store.now() + 60)
    assert "paused: price change" in shell.run("status").out
    assert "parked: billing" in shell.run("status").out
    resumed = shell.json("resume")["resumed"]
    assert resumed["bulk"] == {"paused": "price change", "parked": None}
    assert resumed["default"] == {"paused": None, "parked": "billing"}
    assert ledger.lanes.marks("default").parked is ledger.lanes.marks("bulk").paused is None
    assert "was not stopped" in shell.run("resume").out


def test_flush_asks_for_what_waits_only(shell: Shell, redis: Any, ledger: Ledger) -> None:
    """Prompts that are sealed already are not announced again."""
    put_batch(ledger, redis, UIDS[0])
    assert shell.json("flush") == {"default": None}
    last = redis.xadd(ledger.store.keys.prompts("default"), {"params": json.dumps(PARAMS)}).decode()
    assert shell.json("flush") == {"default": last}
    assert ledger.lanes.marks("default").flush_to == last


def test_a_lane_made_by_a_plain_xadd_is_found_by_its_name(shell: Shell, redis: Any, ledger: Ledger) -> None:
    """Nobody has discovered it yet, and it can be flushed all the same."""
    redis.xadd("batchmill:{fresh}:prompts", {"params": json.dumps(PARAMS)})
    assert "fresh" in shell.json("flush", "--lane", "fresh")
    assert "fresh" in ledger.deployment.lanes()


def test_the_running_embedded_server_is_found(shell: Shell, tmp_path: Path) -> None:
    """Without a URL the server of the configured directory is asked, for as long as it runs."""
    with EmbeddedServer.start(tmp_path / ".batchmill", max_memory_bytes=64_000_000):
        assert shell.json("status")["lanes"]["default"]["depth"] == 0
        checks = {check["what"]: check for check in shell.run("check", "--json").json["checks"]}
        assert "embedded in .batchmill" in checks["Redis"]["detail"]
    assert shell.run("status").status == 69


def test_what_a_dead_embedded_server_left_behind_is_no_server(shell: Shell, tmp_path: Path) -> None:
    """Its announcement stays when it is killed, its lock does not."""
    directory = tmp_path / ".batchmill"
    directory.mkdir()
    write_state(directory, Running(url=f"unix://{directory}/server.sock", pid=1, birth="0"))
    assert "no embedded server runs" in shell.run("status").err
    (directory / "server.lock").touch()
    assert "no embedded server runs" in shell.run("status").err


def test_top_prints_once_where_there_is_no_terminal(shell: Shell, ledger: Ledger) -> None:  # noqa: ARG001 - emptied
    """In a pipe it is a status."""
    assert "healthy" in shell.run("top").out
    assert shell.json("top")["healthy"] is True


def test_top_ends_with_q_and_gives_the_terminal_back(redis: Any, ledger: Ledger, server: str) -> None:
    """It draws lanes and batches on a terminal of its own until a key is pressed."""
    put_batch(ledger, redis, UIDS[0], state="in_progress", attempt=1, remote_id="msgbatch_1[bold]")
    near, far = pty.openpty()
    environ = os.environ | {"TERM": "xterm-256color", "COLUMNS": "150", "LINES": "40", "REDIS_URL": server}
    command = [sys.executable, "-m", "worker", "top"]
    cwd = Path(__file__).parents[2]
    seen = b""
    with subprocess.Popen(command, stdin=far, stdout=far, stderr=far, env=environ, cwd=cwd) as process:
        os.close(far)
        while select.select([near], [], [], 20)[0]:
            try:
                piece = os.read(near, 65_536)
            except OSError:  # Linux' way of saying that the other end is closed
                break
            seen += piece
            if b"q ends" in seen and b"healthy" in seen:
                os.write(near, b"q")
    os.close(near)
    assert process.returncode == 0
    assert UIDS[0].encode() in seen
    assert b"msgbatch_1[bold]" in seen
    assert b"\x1b[?1049l" in seen

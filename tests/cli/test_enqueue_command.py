import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_rig import PARAMS, Shell

from worker.cli.prompt_lines import read_lines

STREAM = "batchmill:{default}:prompts"
GOOD = json.dumps({"params": PARAMS})


def _file(tmp_path: Path, *lines: str | bytes) -> str:
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(b"\n".join(line.encode() if isinstance(line, str) else line for line in lines))
    return str(file)


def test_every_shape_of_line_goes_in(shell: Shell, redis: Any, tmp_path: Path) -> None:
    """Wrapped, bare, the API's own batch lines; blank lines, Windows line ends and a byte order mark are no matter."""
    bare = '{"model": "m",  "max_tokens": 1, "messages": []}'
    wrapped = '{"params": ' + bare + ', "id": "a", "metadata": {"n":  1}, "deadline": 1800000000, "reply_to": null}'
    file = _file(
        tmp_path, b"\xef\xbb\xbf" + wrapped.encode() + b"\r", "", bare, '{"custom_id":"c","params":' + bare + "}"
    )
    ended = shell.run("enqueue", file)
    assert (ended.status, ended.out, ended.err) == (0, "default: 3 enqueued, 0 duplicate, 0 refused\n", "")
    first, second, third = (fields for _, fields in redis.xrange(STREAM))
    assert first == {
        b"params": bare.encode(),
        b"id": b"a",
        b"metadata": b'{"n":  1}',
        b"deadline": b"1800000000.000",
    }
    assert second == {b"params": bare.encode()}
    assert third == {b"params": bare.encode(), b"id": b"c"}


def test_bad_lines_cost_no_good_one(shell: Shell, redis: Any, tmp_path: Path) -> None:
    """Each refusal names its line and why on stderr; the rest goes in; the status says that something was refused."""
    file = _file(
        tmp_path,
        GOOD,
        "nope",
        "[1]",
        '{"params": {"model": "m"}}',
        '{"params": {}, "metdata": 1}',
        b'{"params": "\xff"}',
        '{"params": ' + json.dumps(PARAMS) + ', "id": 7}',
        GOOD,
    )
    ended = shell.run("enqueue", file, "--json", "--lane", "bulk")
    assert ended.status == 1
    assert ended.json == {"lane": "bulk", "enqueued": 2, "duplicate": 0, "refused": 6, "full": 0, "in_doubt": 0}
    told = dict(line.split(": ", 1) for line in ended.err.splitlines())
    assert set(told) == {f"line {number}" for number in range(2, 8)}
    assert told["line 4"] == "params has no max_tokens"
    assert "'metdata'" in told["line 5"]
    assert redis.xlen("batchmill:{bulk}:prompts") == 2


@pytest.mark.usefixtures("redis")
def test_only_the_first_refusals_are_told(shell: Shell, tmp_path: Path) -> None:
    """A wrong file of a million lines does not flood the terminal, and its content is not repeated."""
    ended = shell.run("enqueue", _file(tmp_path, *(["secret words"] * 30)))
    assert ended.status == 1
    assert len(ended.err.splitlines()) == 21
    assert "secret" not in ended.err + ended.out
    assert "30 refused" in ended.out


def test_enqueueing_a_file_twice_adds_only_what_has_no_id(shell: Shell, redis: Any, tmp_path: Path) -> None:
    """That is what ids are for."""
    file = _file(tmp_path, *(json.dumps({"params": PARAMS, "id": str(n)}) for n in range(450)), GOOD)
    assert shell.json("enqueue", file)["enqueued"] == 451
    again = shell.json("enqueue", file)
    assert (again["enqueued"], again["duplicate"]) == (1, 450)
    assert redis.xlen(STREAM) == 452


def test_standard_input_is_a_file_too(shell: Shell, redis: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` reads it."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{GOOD}\n".encode())))
    assert shell.run("enqueue", "-").status == 0
    assert redis.xlen(STREAM) == 1


@pytest.mark.usefixtures("redis")
def test_a_missing_file_is_wrong_usage(shell: Shell) -> None:
    """Named, with the system's reason."""
    ended = shell.run("enqueue", "none.jsonl")
    assert ended.status == 2
    assert "none.jsonl: No such file" in ended.err


def test_a_full_intake_stops_and_says_which_lines_are_left(shell: Shell, redis: Any, tmp_path: Path) -> None:
    """Whoever enqueues the named lines later loses and doubles nothing."""
    redis.hset("batchmill:deployment", mapping={"intake_max_bytes": "20000"})
    line = json.dumps({"params": PARAMS | {"system": "x" * 1000}})
    ended = shell.run("enqueue", _file(tmp_path, *[line] * 500))
    entered = redis.xlen(STREAM)
    assert ended.status == 1
    assert f"no room: lines {entered + 1}-200 and all lines behind 200 are not in" in ended.err
    assert f"{entered} enqueued" in ended.out


def test_with_wait_it_goes_on_when_there_is_room(
    shell: Shell, redis: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--wait` tries again until everything is in."""
    redis.hset("batchmill:deployment", mapping={"intake_max_bytes": "20000"})
    monkeypatch.setattr("worker.client.producer.ROOM_PAUSE", 0.0)
    monkeypatch.setattr("worker.clock.Clock.sleep", lambda _clock, _seconds: redis.xtrim(STREAM, maxlen=0))
    line = json.dumps({"params": PARAMS | {"system": "x" * 1000}})
    assert shell.json("enqueue", _file(tmp_path, *[line] * 300), "--wait")["enqueued"] == 300
    assert redis.xinfo_stream(STREAM)["entries-added"] == 300


def test_an_unreachable_redis_is_69(shell: Shell, tmp_path: Path) -> None:
    """Nothing was sent, and that is said."""
    ended = shell.run("enqueue", _file(tmp_path, GOOD), "--set", "redis.url=redis://x:hunter2@127.0.0.1:1/0")
    assert ended.status == 69
    assert "nothing was sent" in ended.err
    assert "hunter2" not in ended.err


def test_a_line_without_end_is_skipped_and_not_held() -> None:
    """A file that is no JSONL at all costs neither memory nor the lines behind."""
    file = io.BytesIO(b"x" * 3_000_000 + b"\n" + GOOD.encode() + b"\n")
    first, second = read_lines(file, longest=1000)
    assert (first.number, first.prompt, first.nbytes) == (1, None, 3_000_001)
    assert (second.number, second.prompt is not None) == (2, True)


def test_lines_cost_what_they_take_in_the_file() -> None:
    """A progress bar arrives at the end: every byte but those of blank lines is told."""
    text = f"{GOOD}\n{GOOD}\r\nnope\n{GOOD}".encode()
    assert sum(line.nbytes for line in read_lines(io.BytesIO(text))) == len(text)

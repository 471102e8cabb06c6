import argparse
import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from worker.cli import simulate

PROGRAM = """
import argparse, sys
from worker.cli import simulate
parser = argparse.ArgumentParser()
simulate.add_parser(parser.add_subparsers())
args = parser.parse_args(["simulate", *sys.argv[1:]])
status = args.func(args)
print(sorted({"anthropic", "redis", "dramatiq"} & set(sys.modules)))
sys.exit(status)
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    simulate.add_parser(parser.add_subparsers())
    return parser


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_a_signal_and_ends_well(number: signal.Signals, tmp_path: Path) -> None:
    """It prints its address, serves with the scripted faults, ends with 0, and never imported the heavy parts."""
    faults = tmp_path / "faults.json"
    faults.write_text(json.dumps([{"on": "list", "kind": "status"}]))
    command = [sys.executable, "-c", PROGRAM, "--port", "0", "--json", "--faults", str(faults), "--seed", "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        announced = json.loads(process.stdout.readline())
        assert announced["faults"] == 1
        with urllib.request.urlopen(f"{announced['url']}/simulator/faults") as answer:  # noqa: S310  # our own
            assert json.load(answer)["faults"][0]["kind"] == "status"
        process.send_signal(number)
        assert process.stdout.read().strip() == "[]"
    assert process.returncode == 0


def test_wrong_faults_and_wrong_options_are_usage_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A fault file with a typo, one that is no list, a negative time: status 2 and the reason."""
    wrong = tmp_path / "wrong.json"
    for content, reason in (('[{"on": "list", "kind": "statsu"}]', "kind"), ('{"a": 1}', "list"), ("[", "Expecting")):
        wrong.write_text(content)
        args = _parser().parse_args(["simulate", "--port", "0", "--faults", str(wrong)])
        assert args.func(args) == 2
        assert reason in capsys.readouterr().err
    args = _parser().parse_args(["simulate", "--port", "0", "--ends-after", "-1"])
    assert args.func(args) == 2
    args = _parser().parse_args(["simulate", "--port", "70000"])
    assert args.func(args) == 2


def test_a_missing_file_or_a_taken_port_fails(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What the system refuses is status 1."""
    args = _parser().parse_args(["simulate", "--port", "0", "--faults", str(tmp_path / "none.json")])
    assert args.func(args) == 1
    assert "none.json" in capsys.readouterr().err


def test_the_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    """`simulate --help` shows how to use it."""
    with pytest.raises(SystemExit):
        _parser().parse_args(["simulate", "--help"])
    assert "example:" in capsys.readouterr().out

import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli_rig import Shell

from worker.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
VERBS = {
    "batches": ("list", "show", "cancel", "delete", "resolve"),
    "dead": ("list", "show", "redrive", "drop"),
}
PATHS = [(command,) for command in COMMANDS] + [(command, verb) for command, verbs in VERBS.items() for verb in verbs]
READ = (
    "status",
    "flush",
    "pause",
    "resume",
    "top",
    "dead list",
    "batches list",
    "batches show x",
    "dead redrive --all",
)


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_command_explains_itself_with_an_example(shell: Shell, path: tuple[str, ...]) -> None:
    """`--help` ends with 0 and shows the command in use."""
    ended = shell.run(*path, "--help")
    assert ended.status == 0
    _, _, example = ended.out.partition("example:\n")
    assert re.search(rf"batchmill {' '.join(path)}\b", example), ended.out


def test_every_command_of_the_contract_is_there() -> None:
    """The list is written twice: here by hand."""
    assert {
        *("run", "simulate", "enqueue", "status", "batches", "flush", "dead", "pause", "resume", "top", "check"),
        "healthcheck",
    } <= set(COMMANDS)


@pytest.mark.parametrize("words", READ)
def test_without_any_redis_it_says_so(shell: Shell, words: str) -> None:
    """No URL and no embedded server: 69, and what to do."""
    ended = shell.run(*words.split())
    assert ended.status == 69
    assert "set REDIS_URL" in ended.err
    assert ended.out == ""


@pytest.mark.parametrize("words", READ)
def test_an_unreachable_redis_is_69_and_keeps_its_password(shell: Shell, words: str) -> None:
    """The address is named, the secret in it is not."""
    ended = shell.run(*words.split(), "--set", "redis.url=redis://me:hunter2@127.0.0.1:1/0")
    assert ended.status == 69
    assert "127.0.0.1:1" in ended.err
    assert "hunter2" not in ended.err + ended.out


@pytest.mark.parametrize("words", [*READ, "enqueue -", "check --offline"])
def test_a_wrong_configuration_is_78_and_tells_everything(shell: Shell, words: str) -> None:
    """All that is wrong is told at once, whatever the command."""
    ended = shell.run(*words.split(), "--set", "tick=never", "--set", "lanes.default.max_cuont=1")
    assert ended.status == 78
    assert "tick" in ended.err + ended.out
    assert "max_count" in ended.err + ended.out


@pytest.mark.parametrize("command", ["status", "flush", "pause", "resume", "batches list", "dead list", "enqueue -"])
def test_an_impossible_lane_is_wrong_usage(shell: Shell, command: str) -> None:
    """A lane that cannot be is told from one that is not."""
    ended = shell.run(*command.split(), "--lane", "No Lane")
    assert ended.status == 2
    assert "not the name of a lane" in ended.err


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize("command", ["status", "flush", "pause", "resume", "batches list", "dead list"])
def test_an_unknown_lane_fails_and_names_those_there_are(shell: Shell, command: str) -> None:
    """A typo pauses nothing silently."""
    ended = shell.run(*command.split(), "--lane", "defualt")
    assert ended.status == 1
    assert "there are default" in ended.err


@pytest.mark.usefixtures("redis")
def test_an_unknown_batch_or_dead_letter_fails(shell: Shell) -> None:
    """Status 1, or 2 for what cannot be an id at all."""
    for words in (("show", "zzz"), ("cancel", "zzz"), ("delete", "zzz"), ("resolve", "zzz", "--bury")):
        ended = shell.run("batches", *words)
        assert (ended.status, "'zzz'" in ended.err) == (1, True)
    assert shell.run("dead", "show", "1-1").status == 1
    assert shell.run("dead", "show", "zzz").status == 2
    assert shell.run("dead", "redrive", "--id", "1-1").status == 1


IMPORTS = "import sys\nfrom worker.cli.main import main\ncode = main(sys.argv[1:])\nprint(code, *sys.modules)"


def _modules(*words: str) -> set[str]:
    command = [sys.executable, "-c", IMPORTS, *words]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return set(told.split("\n")[-2].split()[1:])


def test_status_loads_little(redis: object, server: str) -> None:  # noqa: ARG001 - emptied first
    """A status asked each second must not load the SDK, dramatiq or rich."""
    heavy = {"anthropic", "httpx2", "dramatiq", "rich", "structlog", "prometheus_client", "pydantic", "worker.sinks"}
    loaded = _modules("status", "--set", f"redis.url={server}")
    assert "redis" in loaded
    assert not heavy & loaded


def test_a_healthcheck_loads_next_to_nothing() -> None:
    """A container runs it every few seconds: no Redis, no settings, nothing of a daemon."""
    loaded = _modules("healthcheck", "--port", "1")
    assert not {"redis", "rich", "msgspec", "anthropic", "asyncio", "worker.config", "worker.ledger"} & loaded

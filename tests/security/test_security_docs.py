"""The page on security keeps its word: each statement names a test that exists."""

import re
from pathlib import Path

from rights import users
from security_rig import ROOT

from worker.config import load_config
from worker.config.credentials import CREDENTIALS
from worker.http import MOST_CONNECTIONS, MOST_REQUEST_BYTES, REQUEST_TIMEOUT

PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")


def test_every_statement_names_tests_that_exist() -> None:
    """A promise without a test is a hope."""
    table = PAGE.partition("## What is protected")[2].partition("## Secrets")[0]
    statements = [line for line in table.splitlines() if line.startswith("| ")][1:]
    texts = "".join(path.read_text("utf-8") for path in (ROOT / "tests" / "security").glob("test_*.py"))
    assert len(statements) > 15
    for statement in statements:
        named = re.findall(r"`(test_\w+)`", statement)
        assert named, statement
        assert [name for name in named if f"def {name}(" not in texts] == [], statement


def test_the_example_is_a_configuration(tmp_path: Path) -> None:
    """But for the files, which are somebody else's."""
    example = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0]
    kept = [line for line in example.splitlines() if "_file" not in line and "username" not in line]
    (tmp_path / "a.toml").write_text("\n".join(kept), "utf-8")
    assert load_config(path="a.toml", environ={}, cwd=tmp_path).redis.barrier == "always"


def test_every_secret_and_every_user_stands_there() -> None:
    """By the setting's name and by the credential's; users by theirs."""
    for each in CREDENTIALS:
        assert f"`{'.'.join(each.named_by)}` | `{each.credential}`" in PAGE
    for user in users():
        assert f"`{user}`" in PAGE


def test_the_limits_are_those_that_hold() -> None:
    """Figures in prose go stale."""
    told = f"{MOST_CONNECTIONS} connections, {REQUEST_TIMEOUT:g} seconds and {MOST_REQUEST_BYTES // 1024} KB"
    assert told in PAGE

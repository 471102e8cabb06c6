from collections.abc import Mapping
from pathlib import Path

import pytest

from worker.config import Config, ConfigError, load_config

FILE = "[anthropic]\napi_key_file = 'key'\n"


def load(folder: Path, toml: str, environ: Mapping[str, str]) -> Config:
    """Load `toml` as a file of its own."""
    (folder / "batchmill.toml").write_text(toml, encoding="utf-8")
    return load_config(path="batchmill.toml", environ=environ, cwd=folder)


def test_the_key_comes_from_environment_then_file_then_credentials(tmp_path: Path) -> None:
    """The first that holds one; none at all is no error here, for `status` needs none."""
    (tmp_path / "key").write_text("from-file\n", encoding="utf-8")
    (tmp_path / "anthropic_api_key").write_text("from-credentials\n", encoding="utf-8")
    credentials = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    general = credentials | {"ANTHROPIC_API_KEY": "from-general"}
    own = general | {"BATCHMILL_ANTHROPIC__API_KEY": "from-own"}
    read = [load(tmp_path, FILE, environ).anthropic.api_key.reveal() for environ in (own, general, credentials, {})]
    assert read == ["from-own", "from-general", "from-file", "from-file"]
    assert load(tmp_path, "", credentials).anthropic.api_key.reveal() == "from-credentials"
    assert not load(tmp_path, "", {}).anthropic.api_key


def test_credentials_without_our_key_are_no_problem(tmp_path: Path) -> None:
    """The directory may hold other services' secrets only."""
    assert not load(tmp_path, "", {"CREDENTIALS_DIRECTORY": str(tmp_path)}).anthropic.api_key


def test_a_key_in_the_file_is_refused_with_a_better_place(tmp_path: Path) -> None:
    """Files are committed, copied and shown; the key is not even quoted."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "[anthropic]\napi_key = 'hunter2'", {})
    (problem,) = caught.value.problems
    assert problem.startswith("batchmill.toml: anthropic.api_key does not belong here: set ANTHROPIC_API_KEY")
    assert "api_key_file" in problem
    assert "hunter2" not in problem


def test_a_key_in_the_file_is_told_even_where_another_key_wins(tmp_path: Path) -> None:
    """It is a leaked key all the same."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "[anthropic]\napi_key = 'hunter2'", {"ANTHROPIC_API_KEY": "sk-ant-x"})
    (problem,) = caught.value.problems
    assert problem.startswith("batchmill.toml: anthropic.api_key does not belong here: set ANTHROPIC_API_KEY")


def test_a_key_on_the_command_line_is_refused(tmp_path: Path) -> None:
    """Every user of the machine can read it there."""
    with pytest.raises(ConfigError, match=r"command line: anthropic\.api_key does not belong here"):
        load_config(path=None, environ={}, overrides={"anthropic.api_key": "x"}, cwd=tmp_path)


@pytest.mark.parametrize("content", [b"", b" \n", b"hun\nter2", b"hunter2\x00", "hünter2".encode(), b"hunter\xff"])
def test_a_file_without_a_usable_key_is_a_problem(tmp_path: Path, content: bytes) -> None:
    """It is found at the start rather than at the first batch, and not quoted."""
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(ConfigError, match="the API key's file key") as caught:
        load(tmp_path, FILE, {})
    assert "ter" not in str(caught.value).replace("character", "").replace("header", "")


def test_secrets_are_not_quoted_in_any_problem(tmp_path: Path) -> None:
    """Wrong URLs, keys under wrong names, values in wrong lines."""
    toml = (
        "api_key = 'hunter2'\n[redis]\nurl = 'host:hunter2@x'\nprefix = 'hunter2 '\n[anthropic]\nbase_url = 'hunter2'"
    )
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, toml, {"ANTHROPIC_API_KEY": "hunter2\n\x07x", "BATCHMILL_REDIS_URL": "hunter2"})
    assert len(caught.value.problems) == 6
    assert "hunter2" not in str(caught.value)


def test_no_typo_is_led_to_the_key(tmp_path: Path) -> None:
    """A file that misspells it is told of the key's file, not of a key it would refuse next."""
    with pytest.raises(ConfigError, match=r"did you mean anthropic\.api_key_file\?"):
        load(tmp_path, "[anthropic]\napi_kye = 'x'", {})

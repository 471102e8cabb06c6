import re
import tomllib
from pathlib import Path

import pytest

from worker.config import Config, load_config
from worker.config.layers import dotted, from_toml
from worker.config.schema import ANY_NAME, API_KEY, known_settings

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "config" / "batchmill.toml"
NAMES = {"lanes": "default", "sinks": "results"}


def test_every_setting_stands_in_the_reference_with_its_default() -> None:
    """The file is the reference: none missing, none invented, each written as the default is."""
    written = {path: found.value for path, found in from_toml(REFERENCE.read_text(encoding="utf-8"), "").items()}
    known = {
        tuple(NAMES[path[0]] if part == ANY_NAME else part for part in path): setting.default
        for path, setting in known_settings(Config)
        if path != API_KEY
    }
    assert written == known


def test_the_reference_loads_as_the_defaults(tmp_path: Path) -> None:
    """Starting with the file or without any is the same."""
    assert load_config(path=str(REFERENCE), environ={}, cwd=tmp_path) == Config()


def test_every_setting_has_its_reason_beside_it() -> None:
    """One line of why for each."""
    lines = [line for line in REFERENCE.read_text(encoding="utf-8").splitlines() if re.match(r"\w+ = ", line)]
    assert len(lines) == sum(path != API_KEY for path, _ in known_settings(Config))
    assert not [line for line in lines if not re.search(r"\s# \S", line)]


def test_the_local_file_loads_and_sets_nothing_it_need_not(tmp_path: Path) -> None:
    """It is an example: each line in it changes a default, or says aloud that Redis is the embedded one."""
    local = ROOT / "config" / "local.toml"
    config = load_config(path=str(local), environ={}, cwd=tmp_path)
    assert config.anthropic.base_url == "http://127.0.0.1:8787"
    assert config.redis.url == ""
    defaults = dict(known_settings(Config))
    for path, found in from_toml(local.read_text(encoding="utf-8"), "").items():
        known = defaults[
            tuple(ANY_NAME if path[0] in NAMES and place == 1 else part for place, part in enumerate(path))
        ]
        assert path == ("redis", "url") or known.parse(found.value) != known.parse(known.default), dotted(path)


@pytest.mark.parametrize("name", ["batchmill.toml", "local.toml"])
def test_no_example_holds_a_key(name: str) -> None:
    """An example with a key in it would be copied."""
    assert "api_key" not in tomllib.loads((ROOT / "config" / name).read_text(encoding="utf-8")).get("anthropic", {})

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from worker.config import Config, ConfigError, Lane, SinkSettings, find_config, load_config, read


@pytest.fixture(autouse=True)
def _no_system_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(read, "SYSTEM_FILE", tmp_path / "etc" / "batchmill.toml")


def load(
    folder: Path,
    toml: str = "",
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Config:
    """Write `toml` to the working directory's own file and load it."""
    (folder / "config").mkdir(exist_ok=True)
    (folder / "config" / "batchmill.toml").write_text(toml, encoding="utf-8")
    return load_config(path=None, environ=environ or {}, overrides=overrides, cwd=folder)


def problems(folder: Path, toml: str = "", environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return what is wrong with a configuration that cannot be loaded."""
    with pytest.raises(ConfigError) as caught:
        load(folder, toml, environ)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def test_without_any_file_the_defaults_hold(tmp_path: Path) -> None:
    """Nobody needs a file to start."""
    assert load_config(path=None, environ={}, cwd=tmp_path) == Config()


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    """Each layer hides only what it sets itself, and no default hides anything."""
    toml = "tick = '2s'\nretention = '1d'\n[poll]\ninterval = '1s'\n[http]\nport = 1\n"
    environ = {"BATCHMILL_POLL__INTERVAL": "2", "BATCHMILL_HTTP__PORT": "2"}
    config = load(tmp_path, toml, environ, {"http.port": "3"})
    assert (config.lease, config.tick, config.poll.interval, config.http.port) == (60.0, 2.0, 2.0, 3)
    assert config.retention == 86_400.0


def test_general_variables_are_read_and_ours_beat_them(tmp_path: Path) -> None:
    """REDIS_URL and ANTHROPIC_BASE_URL beat the file, our own names beat those."""
    toml = "[redis]\nurl = 'redis://file'\n[anthropic]\nbase_url = 'http://file'\n"
    environ = {"REDIS_URL": "redis://general", "ANTHROPIC_BASE_URL": "http://general"}
    config = load(tmp_path, toml, environ)
    assert (config.redis.url, config.anthropic.base_url) == ("redis://general", "http://general")
    own = {"BATCHMILL_REDIS__URL": "", "BATCHMILL_ANTHROPIC__BASE_URL": "http://own"}
    config = load(tmp_path, toml, environ | own)
    assert (config.redis.url, config.anthropic.base_url) == ("", "http://own")


def test_an_empty_general_variable_is_not_set(tmp_path: Path) -> None:
    """Compose files turn a variable nobody set into an empty one."""
    environ = {"REDIS_URL": "", "PORT": "", "ANTHROPIC_API_KEY": "", "BATCHMILL_CONFIG": ""}
    assert load(tmp_path, "[redis]\nurl = 'redis://file'", environ).redis.url == "redis://file"


def test_port_beats_everything_but_a_flag(tmp_path: Path) -> None:
    """A platform that hands out ports means it."""
    environ = {"PORT": "8080", "BATCHMILL_HTTP__PORT": "2"}
    assert load(tmp_path, "[http]\nport = 1", environ).http.port == 8080
    assert load(tmp_path, "[http]\nport = 1", environ, {"http.port": "3"}).http.port == 3


def test_a_lane_keeps_the_defaults_for_what_it_omits(tmp_path: Path) -> None:
    """It does not inherit from [lanes.default]; a lane nobody configured does."""
    config = load(tmp_path, "[lanes.default]\nmax_count = 5\n[lanes.bulk]\nmax_age = '1h'\n[lanes.bare]")
    assert config.lane("bulk") == Lane(max_age=3600.0)
    assert config.lane("bare") == Lane()
    assert config.lane("unheard-of") == Lane(max_count=5)


def test_the_default_lane_always_exists(tmp_path: Path) -> None:
    """Also when the file names other lanes only."""
    assert load(tmp_path, "[lanes.bulk]\nmax_count = 5").lanes["default"] == Lane()


def test_lanes_can_be_set_from_environment_and_flags(tmp_path: Path) -> None:
    """Lists are separated by commas, names may hold what separates keys."""
    toml = "[sinks.archive]\npath = 'a/{batch}'"
    environ = {"BATCHMILL_LANES__DEFAULT__SINKS": "results,archive", "BATCHMILL_LANES__A__B__MAX_COUNT": "5"}
    config = load(tmp_path, toml, environ, {"lanes.eu.bulk.max_count": "6"})
    assert config.lane("default").sinks == ("results", "archive")
    assert config.lanes["a__b"].max_count == 5
    assert config.lanes["eu.bulk"].max_count == 6


def test_the_default_sink_goes_when_nobody_uses_it(tmp_path: Path) -> None:
    """An idle sink would be tried, listed, and make a folder."""
    config = load(tmp_path, "[lanes.default]\nsinks = ['archive']\n[sinks.archive]\ntype = 'stdout'")
    assert config.sinks == {"archive": SinkSettings(type="stdout")}
    assert (
        "results" in load(tmp_path, "[lanes.default]\nsinks = ['a']\n[sinks.a]\ntype='stdout'\n[sinks.results]").sinks
    )


def test_a_file_is_looked_for_in_order(tmp_path: Path) -> None:
    """Flag, BATCHMILL_CONFIG, working directory, system."""
    environ = {"BATCHMILL_CONFIG": "named.toml"}
    assert find_config(path=None, environ={}, cwd=tmp_path) is None
    for place in ("etc", "config"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "batchmill.toml").touch()
        assert find_config(path=None, environ={}, cwd=tmp_path) == tmp_path / place / "batchmill.toml"
    assert find_config(path=None, environ=environ, cwd=tmp_path) == tmp_path / "named.toml"
    assert find_config(path="flag.toml", environ=environ, cwd=tmp_path) == tmp_path / "flag.toml"


def test_a_file_asked_for_must_exist(tmp_path: Path) -> None:
    """Running on defaults instead would be a nasty surprise."""
    for path, environ in (("gone.toml", {}), (None, {"BATCHMILL_CONFIG": "gone.toml"})):
        with pytest.raises(ConfigError, match=r"gone\.toml: cannot be read: No such file"):
            load_config(path=path, environ=environ, cwd=tmp_path)


def test_an_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    """With its full path, spelled as at the place where it was found."""
    toml = "intervall = 1\n[pol]\ninterval = 1\n[lanes.bulk]\nmax_cuont = 1\n[sinks.results]\nformat = 1"
    environ = {"BATCHMILL_POLL_INTERVAL": "1", "BATCHMILL_ANTHROPIC_API_KEY": "x"}
    assert problems(tmp_path, toml, environ) == (
        "config/batchmill.toml: intervall is not a setting; did you mean poll.interval?",
        "config/batchmill.toml: pol.interval is not a setting; did you mean poll.interval?",
        "config/batchmill.toml: lanes.bulk.max_cuont is not a setting; did you mean lanes.bulk.max_count?",
        "config/batchmill.toml: sinks.results.format is not a setting; did you mean sinks.results.path?",
        "environment: BATCHMILL_POLL_INTERVAL is not a setting; did you mean BATCHMILL_POLL__INTERVAL?",
        "environment: BATCHMILL_ANTHROPIC_API_KEY is not a setting; did you mean BATCHMILL_ANTHROPIC__API_KEY?",
    )


def test_what_kubernetes_says_about_a_service_is_no_setting(tmp_path: Path) -> None:
    """A Service called batchmill, or batchmill-ops, puts these into every pod of its namespace."""
    host = "tcp://10.0.0.1:9464"
    environ = {"BATCHMILL_SERVICE_HOST": "10.0.0.1", "BATCHMILL_SERVICE_PORT_HTTP": "9464", "BATCHMILL_PORT": host}
    environ |= {"BATCHMILL_PORT_9464_TCP_ADDR": "10.0.0.1", "BATCHMILL_OPS_PORT_9464_TCP": host}
    assert load(tmp_path, "", environ) == Config()
    assert "did you mean" in problems(tmp_path, "", {"BATCHMILL_PORT": "9000"})[0]


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    """One start, one list: file, environment, key file."""
    toml = "tick = 'soon'\n[anthropic]\napi_key_file = 'gone'\n[lanes]\nUpper.max_count = 1\n[poll]\nx = 1\n"
    found = problems(tmp_path, toml, {"BATCHMILL_HTTP__PORT": "65536"})
    assert len(found) == 5
    assert found[0].startswith("config/batchmill.toml: tick must be a duration")
    assert found[1].startswith("config/batchmill.toml: lanes.Upper.max_count is misnamed")
    assert found[3] == "environment: BATCHMILL_HTTP__PORT must be from 0 to 65_535, not 65536"
    assert found[4] == "the API key's file gone cannot be read: No such file or directory"


def test_a_broken_file_does_not_hide_the_environment(tmp_path: Path) -> None:
    """The variables are checked all the same."""
    found = problems(tmp_path, "[poll", {"BATCHMILL_TICK": "soon"})
    assert [problem.split(":")[0] for problem in found] == ["config/batchmill.toml", "environment"]
    assert "is not valid TOML" in found[0]


@pytest.mark.parametrize("toml", ["poll = 5", "lanes = 5", "[lanes]\nbulk = 5", "[[lanes]]\nmax_count = 1"])
def test_a_table_is_no_value(tmp_path: Path, toml: str) -> None:
    """The message says which it is."""
    assert problems(tmp_path, toml)[0].endswith("is a table of settings, not a value")


@pytest.mark.parametrize(
    ("toml", "complaint"),
    [
        ("[lanes.default]\nsinks = ['result']", "no [sinks.result]; did you mean 'results'?"),
        ("[lanes.default]\nsinks = []", "must name at least one sink"),
        ("[lanes.default]\nsinks = ['results', 'results']", "names a sink twice"),
        ("[anthropic]\nmax_in_flight_requests = 9_999", "a full batch could never be submitted"),
        ("lease = '1s'", "tick must be shorter than lease"),
        ("[sinks.results]\npath = 'all.jsonl'", "sinks.results.path must contain {batch}"),
        ("[sinks.twin]", "sinks.twin.path is also that of sinks.results"),
    ],
)
def test_settings_must_agree_with_each_other(tmp_path: Path, toml: str, complaint: str) -> None:
    """Each fine by itself, wrong together."""
    assert complaint in problems(tmp_path, toml)[0]


def test_reading_the_configuration_is_light() -> None:
    """A health check reads it: none of the heavy dependencies may come along."""
    script = "import sys, worker.config, worker.clock; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert not {"anthropic", "redis", "dramatiq", "msgspec", "structlog", "asyncio"} & set(done.stdout.split())


@pytest.mark.parametrize(
    "toml",
    [
        "[anthropic]\nmax_in_flight_requests = 10_000",
        "[lanes.default]\nsinks = ['a', 'b']\n[sinks.a]\ntype = 'stdout'\n[sinks.b]\ntype = 'stdout'\npath = 'x'",
    ],
)
def test_what_only_looks_like_a_conflict_is_fine(tmp_path: Path, toml: str) -> None:
    """A batch may fill the queue limit exactly; sinks that write no files share no paths."""
    assert load(tmp_path, toml)

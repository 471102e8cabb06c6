"""Names from outside cannot lead anywhere: lanes, path templates, and what somebody has put in the way."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from security_rig import ADMIN, QUICK, Daemon, environment, guarded_redis, params, rows, wait_until

from worker.config import ConfigError, SinkSettings, load_config
from worker.core.model import Batch, State, Trigger
from worker.core.names import LANE_NAME
from worker.embedded import EmbeddedServer, Program
from worker.ledger.deployment import Deployment
from worker.ledger.store import Store
from worker.simulator import Simulator
from worker.sinks import ErrorType, SinkError, SinkSettingsError
from worker.sinks.file import FileSink
from worker.sinks.path_template import PathTemplate
from worker.sinks.stdout import StdoutSink

UID = "k7m2q9x4t8w1z3b5"
TOKEN = "0123456789abcdef"
HOSTILE = (
    "../../x",
    "..",
    ".",
    "",
    "a/b",
    "a\nb",
    "A",
    "a b",
    "a}:x",
    "a" * 64,
    "ä",
    "{lane}",
    "a\x00",
    "-a",
    "%2e%2e",
)

HARMLESS = {"A", "-a", "a" * 64}
"""No names of lanes, and yet no danger in a path."""


def batch(lane: str = "default", uid: str = UID) -> Batch:
    """Return an ended batch."""
    return Batch(uid, lane, State.ENDED, "1-0", "9-0", 9, 9, 900, Trigger.COUNT, 1_795_341_600.0)


@pytest.fixture
def sink(tmp_path: Path) -> FileSink:
    """A sink whose temporary names can be foreseen, at their worst."""
    settings = SinkSettings("file", f"{tmp_path}/results/{{lane}}/{{batch}}.jsonl", "none")
    return FileSink("results", settings, token=lambda: TOKEN)


@given(
    lane=st.from_regex(rf"\A{LANE_NAME}\Z"),
    template=st.sampled_from(
        [
            "out/{lane}/{batch}",
            "out/{lane}{batch}",
            "out/.{lane}/{batch}",
            "out/{lane}/{lane}.{batch}",
            "{batch}.{lane}",
        ]
    ),
)
def test_no_lane_leads_out_of_the_folder(lane: str, template: str) -> None:
    """Dots and all: `a..` is a name like any other, and two lanes never share a file."""
    parsed = PathTemplate.parse(template)
    path = parsed.render(batch(lane))
    assert Path(os.path.normpath(path)) == path
    assert path.is_relative_to(parsed.root)
    assert path != parsed.render(batch("z" if lane != "z" else "y"))


@pytest.mark.parametrize("lane", sorted(set(HOSTILE) - HARMLESS))
def test_what_is_no_name_is_no_part_of_a_path(lane: str) -> None:
    """Should one ever get so far, its batch is told of instead of written somewhere."""
    with pytest.raises(SinkError) as caught:
        PathTemplate.parse("out/{lane}/{batch}").render(batch(lane))
    assert caught.value.error_type is ErrorType.INVALID


@pytest.mark.parametrize(
    "template",
    ["out/{lane}/../{batch}", "out/{lane}/./{batch}", "out/{batch}/..", "{lane}//{batch}", "out/{batch}\0", "{batch}/"],
)
def test_a_template_does_not_climb(template: str) -> None:
    """In front of the first placeholder an operator may write what he likes; behind it, names follow names."""
    with pytest.raises(SinkSettingsError):
        PathTemplate.parse(template)


@pytest.mark.parametrize(
    "template", ["{batch.__class__}", "{batch!r}", "{0}{batch}", "{batch:>99}", "{env[HOME]}{batch}"]
)
def test_a_template_reaches_into_no_object(template: str, tmp_path: Path) -> None:
    """Placeholders are bare names, so that a path says nothing else of the process."""
    with pytest.raises(ConfigError):
        load_config(path=None, environ={}, cwd=tmp_path, overrides={"sinks.results.path": template})
    with pytest.raises(SinkSettingsError):
        PathTemplate.parse(template)


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_in_the_place_of_a_result_is_not_followed(sink: FileSink, tmp_path: Path, *, exists: bool) -> None:
    """Neither written through nor taken for a file of ours: that would call lost rows delivered."""
    target = tmp_path / "precious"
    if exists:
        target.write_text("precious", "utf-8")
    folder = tmp_path / "results" / "default"
    folder.mkdir(parents=True)
    (folder / f"{UID}.jsonl").symlink_to(target)
    with sink.open(batch()) as delivery:
        delivery.write([b"{}"])
        with pytest.raises(SinkError) as caught:
            delivery.commit()
    assert caught.value.error_type is ErrorType.INVALID
    assert [path.name for path in folder.iterdir()] == [f"{UID}.jsonl"]
    assert (target.read_text("utf-8") if exists else target.exists()) == ("precious" if exists else False)


def test_a_link_in_the_place_of_a_temporary_file_is_not_followed(sink: FileSink, tmp_path: Path) -> None:
    """Not even where its random name was guessed."""
    target = tmp_path / "precious"
    target.write_text("precious", "utf-8")
    folder = tmp_path / "results" / "default"
    folder.mkdir(parents=True)
    (folder / f".{UID}.{TOKEN}.tmp").symlink_to(target)
    with pytest.raises(SinkError):
        sink.open(batch())
    assert target.read_text("utf-8") == "precious"


@pytest.fixture
def careless() -> Iterator[None]:
    """A process whose umask forbids nothing."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("careless")
def test_results_are_nobody_elses_business(sink: FileSink, tmp_path: Path) -> None:
    """The owner writes, the group reads; others see neither files nor folders, whatever the umask."""
    with sink.open(batch()) as delivery:
        assert stat.S_IMODE(next((tmp_path / "results/default").iterdir()).stat().st_mode) == 0o640
        delivery.write([b"{}"])
        delivery.commit()
    made = {str(path.relative_to(tmp_path)): path for path in (tmp_path / "results").rglob("*")}
    modes = {name: stat.S_IMODE(path.stat().st_mode) for name, path in made.items()}
    assert modes == {"results/default": 0o750, f"results/default/{UID}.jsonl": 0o640}
    assert stat.S_IMODE((tmp_path / "results").stat().st_mode) == 0o750


def test_rows_that_wait_for_standard_output_have_no_name(tmp_path: Path) -> None:
    """A large batch is spooled to a file that is deleted from the start."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    sink = StdoutSink("out", SinkSettings("stdout", "", "none"), output=quiet, spool=str(tmp_path))
    with sink.open(batch()) as delivery:
        delivery.write([b"x" * 1_000_000 for _ in range(12)])
        assert list(tmp_path.iterdir()) == []
    os.close(quiet)


def test_names_that_are_none_are_passed_over(tmp_path: Path) -> None:
    """In the registry, to which producers may add, and among the streams that SCAN finds."""
    with guarded_redis(tmp_path / "redis") as server:
        server.admin.sadd("batchmill:lanes", "default", b"\xff\xfe", *HOSTILE)
        for name in (*HOSTILE, "found"):
            server.admin.xadd(f"batchmill:{{{name}}}:prompts", {"params": params()})
        store = Store.connect(server.url.replace("//", f"//admin:{ADMIN}@"), "batchmill:")
        assert Deployment(store).lanes() == ["default"]
        assert Deployment(store).discover_lanes() == {"found"}
        store.close()


def test_a_daemon_works_on_among_hostile_names(tmp_path: Path) -> None:
    """They reach no label, no status and no path, and stop nobody else's prompts."""
    with guarded_redis(tmp_path / "redis") as server, Simulator(ends_after=0.1, poll_hint=0) as simulator:
        server.admin.sadd("batchmill:lanes", b"\xff\xfe", *HOSTILE)
        for name in (*HOSTILE, "default", "a.."):
            server.admin.xadd(f"batchmill:{{{name}}}:prompts", {"params": params(), "id": "p"})
        more = {
            "REDIS_URL": server.url.replace("//", f"//admin:{ADMIN}@"),
            "ANTHROPIC_BASE_URL": simulator.url,
            "ANTHROPIC_API_KEY": "sk-ant-paths",
        }
        settings = QUICK | {"sinks.results.path": "results/{lane}/{batch}.jsonl"}
        daemon = Daemon(folder=tmp_path, env=environment(settings, more)).ready()
        try:
            wait_until(lambda: len(rows(tmp_path)) == 2, description="both good lanes have their row")
            told = daemon.get("/statusz")[1] + daemon.get("/metrics")[1] + daemon.err
        finally:
            assert daemon.stop() == 0
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["a..", "default"]
    assert not [name for name in ("../../x", "a/b", "a}:x", "{lane}", "%2e%2e") if name in told]


def test_the_server_we_start_is_given_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child has the environment that it is given for all its life, in its memory and in its core file."""
    given: list[dict[str, str]] = []

    def popen(*_: object, env: dict[str, str], **__: object) -> None:
        given.append(env)
        raise OSError(errno.ENOEXEC, "seen enough")

    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-heirloom")
    monkeypatch.setattr("worker.embedded.spawn.find_program", lambda _: Program("/bin/false", "redis", "7.0.0"))
    monkeypatch.setattr("subprocess.Popen", popen)
    with pytest.raises(OSError, match="seen enough"):
        EmbeddedServer.start(tmp_path, max_memory_bytes=64_000_000)
    assert set(given[0]) <= {"PATH", "LD_LIBRARY_PATH"}


def test_the_data_of_the_server_we_start_is_its_owners(tmp_path: Path) -> None:
    """It holds every prompt."""
    with Simulator(ends_after=0.1, poll_hint=0) as simulator:
        more = {"ANTHROPIC_BASE_URL": simulator.url, "ANTHROPIC_API_KEY": "sk-ant-owner"}
        daemon = Daemon(folder=tmp_path, env=environment(QUICK | {"redis.max_memory": "64MB"}, more)).ready()
        try:
            sock = tmp_path / ".batchmill" / "server.sock"
            with redis.Redis(unix_socket_path=str(sock)) as client:
                client.xadd("batchmill:{default}:prompts", {"params": params()})
            wait_until(lambda: rows(tmp_path), description="the row")
            assert stat.S_IMODE((tmp_path / ".batchmill").stat().st_mode) == 0o700
            data = [path for path in (tmp_path / ".batchmill").rglob("*.aof*") if path.is_file()]
            assert data
            assert [path.name for path in data if path.stat().st_mode & 0o077] == []
        finally:
            assert daemon.stop() == 0

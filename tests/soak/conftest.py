"""A Redis of the test's own, empty."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import Server


@pytest.fixture
def server(redis_server: object, tmp_path: Path) -> Iterator[Server]:
    """A real server."""
    assert redis_server is None
    server = Server(tmp_path / "redis")
    yield server
    server.close()


@pytest.fixture
def redis_server() -> None:
    """Skip without a server on a laptop; in continuous integration that would test nothing and say it is well."""
    if not (shutil.which("redis-server") or shutil.which("valkey-server")):
        if os.environ.get("CI"):
            pytest.fail("CI needs a redis-server on PATH")
        pytest.skip("no redis-server on PATH")

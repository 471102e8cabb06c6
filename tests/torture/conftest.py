import os
import shutil

import pytest


@pytest.fixture
def needs_redis() -> None:
    """Skip without a redis-server, fail in CI."""
    if shutil.which("redis-server") or shutil.which("valkey-server"):
        return
    if os.environ.get("CI"):
        pytest.fail("CI needs a redis-server on PATH")
    pytest.skip("no redis-server on PATH")

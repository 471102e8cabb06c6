import os
import shutil
import time
from collections.abc import Callable

import pytest


@pytest.fixture
def needs_redis() -> None:
    """Skip without a redis-server, fail in CI."""
    if shutil.which("redis-server") or shutil.which("valkey-server"):
        return
    if os.environ.get("CI"):
        pytest.fail("CI needs a redis-server on PATH")
    pytest.skip("no redis-server on PATH")


@pytest.fixture
def wait_until() -> Callable[[Callable[[], object], str], None]:
    """Wait for a condition, up to ten seconds, and say which one never came."""

    def wait(condition: Callable[[], object], description: str) -> None:
        end = time.monotonic() + 10
        while not condition():
            if time.monotonic() > end:
                pytest.fail(f"never happened: {description}")
            time.sleep(0.005)

    return wait

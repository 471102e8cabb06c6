import os
from collections.abc import Iterator
from typing import Any

import pytest
from servers import NoServerError, own_redis


@pytest.fixture(scope="session")
def client() -> Iterator[Any]:
    """A Redis for the worlds of this session, one after the other."""
    try:
        with own_redis() as client:
            yield client
    except NoServerError as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI needs {error}")
        pytest.skip(str(error))

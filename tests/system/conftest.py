from collections.abc import Iterator
from pathlib import Path

import pytest
from rig import Rig, deployment


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A Redis and an API whose batches end soon."""
    with deployment(tmp_path) as rig:
        yield rig

"""What the tests of logging, metrics and the ops endpoints share."""

import logging
import warnings
from collections.abc import Iterator

import pytest
import structlog

from worker.core.model import Batch, State, Trigger
from worker.telemetry.log import _CHATTY


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Lend the process-wide logging to a test and put it back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    show = warnings.showwarning
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.NOTSET)
    logging.captureWarnings(capture=False)
    warnings.showwarning = show
    structlog.reset_defaults()


@pytest.fixture
def batch() -> Batch:
    """A batch of 1,000 prompts in the lane `bulk` that the API has accepted."""
    return Batch(
        uid="k7m2q9x4t8w1z3b5",
        lane="bulk",
        state=State.IN_PROGRESS,
        first="1-0",
        last="1000-0",
        entries=1_000,
        count=1_000,
        bytes=2_000_000,
        trigger=Trigger.COUNT,
        sealed_at=1_000.0,
        attempt=1,
        remote_id="msgbatch_01",
    )

"""Reaching the Message Batches API from a command."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from worker.cli.reach import stop
from worker.cli.settings import EX_CONFIG, EX_FAILED, EX_KEY, EX_UNAVAILABLE

if TYPE_CHECKING:
    from worker.batches_api import ApiError, BatchesApi
    from worker.config import Config

NO_KEY = "no API key: set ANTHROPIC_API_KEY, or anthropic.api_key_file to a file that holds it"
KEY_REFUSED = (401, 403)


@contextlib.contextmanager
def reach_api(config: "Config") -> Iterator["BatchesApi"]:
    """Open the API; what it refuses or does not answer in the block ends the command with 1, 69 or 77."""
    from worker.batches_api import ApiError

    if not config.anthropic.api_key:
        stop(NO_KEY, EX_CONFIG)
    api = open_api(config)
    try:
        yield api
    except ApiError as error:
        status = exit_status(error)
        stop(
            {EX_KEY: "the API refuses the key", EX_UNAVAILABLE: "the API cannot be reached"}.get(
                status, "the API says no"
            )
            + f": {error}",
            status,
        )
    finally:
        api.close()


def open_api(config: "Config") -> "BatchesApi":
    """Build a client of the API as the daemon does, without metrics. Raises ValueError for a key that can be none."""
    from worker.batches_api import BatchesApi
    from worker.clock import Clock

    settings = config.anthropic
    return BatchesApi(
        api_key=settings.api_key.reveal(),
        base_url=settings.base_url,
        api_version=settings.api_version,
        betas=settings.betas,
        requests_per_minute=settings.requests_per_minute,
        answer_timeout=config.submit.timeout,
        clock=Clock(),
        observe=lambda _operation, _outcome, _seconds: None,
        waited=lambda _seconds: None,
    )


def exit_status(error: "ApiError") -> int:
    """Say with which status a command ends after a failed call."""
    from worker.batches_api import Unavailable

    if error.status in KEY_REFUSED:
        return EX_KEY
    return EX_UNAVAILABLE if isinstance(error, Unavailable) else EX_FAILED

"""An API's client on a clock that a test moves, and every call it makes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from worker.batches_api import BatchesApi

BODY = b'{"requests":[{"custom_id":"a","params":{}}]}'


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.at = 1000.0

    def monotonic(self) -> float:
        """Tell the time."""
        return self.at

    def sleep(self, seconds: float) -> None:
        """Pass it."""
        self.at += seconds


class SmallBody:
    """A whole body in one piece."""

    nbytes = len(BODY)

    def __iter__(self) -> Iterator[bytes]:
        """Start over."""
        yield BODY


def read(api: BatchesApi) -> int:
    """Read all results, keeping none."""
    with api.results("msgbatch_1") as lines:
        return sum(1 for _ in lines)


Call = Callable[[BatchesApi], object]
CALLS: dict[str, Call] = {
    "create": lambda api: api.create(SmallBody(), before_last_byte=lambda: None),
    "retrieve": lambda api: api.retrieve("msgbatch_1"),
    "newest": lambda api: api.newest(),
    "newer_than": lambda api: api.newer_than(None, not_before=2e9),
    "cancel": lambda api: api.cancel("msgbatch_1"),
    "delete": lambda api: api.delete("msgbatch_1"),
    "results": read,
}


@contextmanager
def open_api(url: str, clock: Clock) -> Iterator[BatchesApi]:
    """Connect to whatever is there."""
    api = BatchesApi(
        api_key="sk-ant-fuzz",
        base_url=url,
        api_version="2026-10-21",
        betas=(),
        requests_per_minute=1_000_000,
        answer_timeout=300.0,
        clock=clock,
        observe=lambda *_: None,
        waited=lambda _: None,
    )
    try:
        yield api
    finally:
        api.close()

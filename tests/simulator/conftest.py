"""Simulators that stop with their test, and a plain HTTP client that hides nothing."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from types import SimpleNamespace
from typing import Any

import pytest

from worker.simulator import Simulator

KEY = "sk-ant-canary"
VERSION = "2026-10-21"
NOON = 1_763_812_800.0


@pytest.fixture
def simulate() -> Iterator[Callable[..., Simulator]]:
    """Start simulators with the options given; unless told otherwise their time stands still until advanced."""
    with ExitStack() as stack:

        def start(**options: Any) -> Simulator:
            return stack.enter_context(Simulator(**{"clock": lambda: NOON, **options}))

        yield start


@pytest.fixture
def simulator(simulate: Callable[..., Simulator]) -> Simulator:
    """A simulator with every default, in standing time."""
    return simulate()


@pytest.fixture
def call() -> Callable[..., Any]:
    """Make one request: `call(simulator, "GET", "", json=…)` with status, headers, raw body and decoded json.

    A path that does not start with `/` is taken below `/v1/messages/batches`.
    """

    def request(
        simulator: Simulator,
        method: str = "GET",
        path: str = "",
        *,
        body: Any = None,
        headers: dict[str, str | None] | None = None,
        raw: bytes | None = None,
    ) -> Any:
        connection = HTTPConnection(simulator.url.removeprefix("http://"), timeout=20)
        given = {"authorization": f"Bearer {KEY}", "anthropic-version": VERSION, **(headers or {})}
        try:
            connection.request(
                method,
                path if path.startswith("/") else f"/v1/messages/batches{path}",
                body=json.dumps(body).encode() if raw is None and body is not None else raw,
                headers={name: value for name, value in given.items() if value is not None},
            )
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        answer = SimpleNamespace(status=response.status, headers=response.headers, raw=content, json=None)
        if response.headers.get("content-type") == "application/json":
            try:
                answer.json = json.loads(content)
            except ValueError:
                answer.json = None
        return answer

    return request


@pytest.fixture
def requests() -> Callable[..., dict[str, Any]]:
    """Build a create's body of `count` prompts; keywords change the params, `ids` the custom_ids."""

    def build(count: int = 1, *, ids: list[str] | None = None, **changes: Any) -> dict[str, Any]:
        params = {
            "model": "claude-haiku-4-5",
            "max_tokens": 1024,
            "messages": [{"role": "user", "content": "Say hello."}],
        } | changes
        params = {name: value for name, value in params.items() if value is not ...}
        names = ids or [f"depl01_batch_aa_1763812800000-{number}" for number in range(count)]
        return {"requests": [{"custom_id": name, "params": params} for name in names]}

    return build


@pytest.fixture
def create(call: Callable[..., Any], requests: Callable[..., dict[str, Any]]) -> Callable[..., str]:
    """Create a batch of `count` prompts that must succeed; returns its id."""

    def make(simulator: Simulator, count: int = 1, **changes: Any) -> str:
        answer = call(simulator, "POST", body=requests(count, **changes))
        assert answer.status == 200, answer.raw
        return str(answer.json["id"])

    return make


@pytest.fixture
def rows(call: Callable[..., Any]) -> Callable[..., list[dict[str, Any]]]:
    """Download the result lines of a batch, decoded."""

    def download(simulator: Simulator, batch_id: str) -> list[dict[str, Any]]:
        answer = call(simulator, "GET", f"/v1/messages/batches/{batch_id}/results")
        assert answer.status == 200, answer.raw
        return [json.loads(line) for line in answer.raw.splitlines()]

    return download


@pytest.fixture
def wait_until() -> Callable[[Callable[[], object], str], None]:
    """Wait for a condition, up to ten seconds, and say which one never came."""

    def wait(condition: Callable[[], object], description: str) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"never happened: {description}")
            time.sleep(0.005)

    return wait

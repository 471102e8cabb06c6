"""Batches brought half way, and what may happen to one between a role's look and its commit."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from bench import Bench
from endings import enqueue, states

from worker.actors import Queue
from worker.core.lifecycle import Event
from worker.core.model import Claim, State
from worker.ledger.batches import Batches
from worker.ledger.prompts import Prompts
from worker.wiring import App

DUE = "batchmill:{default}:due"


def claim_now(bench: Bench, app: App) -> Claim:
    """Claim the lane's one batch, due or not."""
    bench.redis.zadd(DUE, dict.fromkeys(app.ledger.batches.live("default"), 0))
    (claim,) = app.ledger.batches.claim("default", limit=9, lease=30.0)
    return claim


def overtake(
    bench: Bench, app: App, monkeypatch: pytest.MonkeyPatch, commit: Callable[..., Any], event: Event | None = None
) -> list[str]:
    """Let another replica claim the batch just before a commit; returns a list that grows by the commit's answer."""
    owner = {each.__name__: each for each in (Batches, Prompts)}[commit.__qualname__.partition(".")[0]]
    answers: list[str] = []

    def overtaken(ledger: Any, *args: Any, **named: Any) -> Any:
        if answers or (event is not None and event not in args):
            return commit(ledger, *args, **named)
        claim_now(bench, app)
        answers.append("")
        answers[0] = commit(ledger, *args, **named)
        # the other one dies of old age
        bench.redis.zadd(DUE, dict.fromkeys(app.ledger.batches.live("default"), 0))
        return answers[0]

    monkeypatch.setattr(owner, commit.__name__, overtaken)
    return answers


def sealed(bench: Bench, app: App, count: int) -> list[str]:
    """Enqueue prompts and seal them."""
    names = enqueue(bench, count)
    assert app.batcher is not None
    app.batcher.step("default")
    return names


def in_progress(bench: Bench, app: App, count: int = 3) -> list[str]:
    """Work until a batch is at the API and stays there."""
    bench.simulator.control.inject({"kind": "stuck", "on": "create"})
    names = enqueue(bench, count)
    bench.drive(app, lambda: states(app) == [State.IN_PROGRESS])
    return names


def ended(bench: Bench, app: App, count: int = 3) -> list[str]:
    """Work until a batch has ended, and read nothing of it."""
    names = in_progress(bench, app, count)
    bench.simulator.control.end()
    app.steps[Queue.POLL]([claim_now(bench, app)])
    assert states(app) == [State.ENDED]
    return names


def doubtful(bench: Bench, app: App) -> list[str]:
    """Work until a batch is in doubt that the API has made, and that has not ended."""
    bench.simulator.control.inject([{"kind": "stuck", "on": "create"}, {"kind": "drop_reply", "on": "create"}])
    names = enqueue(bench, 3)
    bench.drive(app, lambda: states(app) == [State.SUBMITTING])
    return names


def rewrite_results(app: App, rewrite: Callable[[bytes], bytes]) -> None:
    """Change every result line on its way from the API."""
    assert app.api is not None
    results = app.api.results

    @contextmanager
    def rewritten(remote_id: str) -> Iterator[Iterator[bytes]]:
        with results(remote_id) as lines:
            yield (rewrite(line) for line in lines)

    app.api.results = rewritten  # type: ignore[method-assign]

"""`delete_when_settled`: what is deleted at the API must never be looked for again, whatever Redis forgets."""

from collections.abc import Callable
from typing import Any

import pytest
from bench import Bench
from endings import ends_right, enqueue

from worker.config.model import Redis
from worker.ledger.barrier import NotDurableError
from worker.ledger.store import LedgerUnavailableError
from worker.wiring import App


def started(bench: Bench) -> App:
    """Start a worker that deletes what is settled."""
    return bench.start(lanes__default__max_count="1", poll__delete_when_settled="true")


def deleted(bench: Bench) -> int:
    """Return how many remote batches were deleted."""
    state: Any = bench.simulator.control.state()["batches"]
    return sum(batch["deleted_at"] is not None for batch in state)


def after_finish(app: App, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Let something happen in the barrier's turn, once the settling is written and before it is known to be synced."""
    durably, finish = app.barrier.durably, app.ledger.batches.finish
    finished: list[str] = []

    def noted(*args: Any, **named: Any) -> str:
        finished.append(finish(*args, **named))
        return finished[-1]

    def turn(write: Callable[[Any], str]) -> str:
        before = len(finished)
        answer = durably(write)
        if len(finished) > before:
            act()
        return answer

    monkeypatch.setattr(type(app.ledger.batches), "finish", lambda _self, *args, **named: noted(*args, **named))
    monkeypatch.setattr(app.barrier, "durably", turn)


def test_a_settling_is_on_disk_before_its_remote_batch_is_deleted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Redis that came back without it would find the batch absent, and send it again: paid for twice."""
    names, app = enqueue(bench, 2), started(bench)
    seen: list[int] = []
    after_finish(app, monkeypatch, lambda: seen.append(deleted(bench)))
    ends_right(bench, app, names)
    assert seen == [0, 1]
    assert deleted(bench) == 2


@pytest.mark.parametrize("error", [NotDurableError("no turn"), LedgerUnavailableError("no answer")])
def test_what_may_not_be_on_disk_deletes_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The batch is settled all the same, and told of; its remote batch stays for the API's 29 days."""
    names, app = enqueue(bench, 1), started(bench)

    def fail() -> None:
        raise error

    after_finish(app, monkeypatch, fail)
    ends_right(bench, app, names)
    assert deleted(bench) == 0
    labels = {"lane": "default", "result": "succeeded"}
    assert app.telemetry.registry.get_sample_value("batchmill_prompts_settled_total", labels) == 1


def test_without_a_barrier_nothing_is_deleted(bench: Bench) -> None:
    """Nothing could say that Redis will remember the settling; recovery by token needs what is at the API."""
    bench.settings["redis.barrier"] = "none"
    names, app = enqueue(bench, 2), started(bench)
    ends_right(bench, app, names)
    assert deleted(bench) == 0


def test_a_settling_that_was_made_before_is_not_known_to_be_on_disk(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The barrier waits for what was written under it, and answers for nothing else."""
    names, app = enqueue(bench, 1), started(bench)
    finish = type(app.ledger.batches).finish

    def twice(*args: Any, **named: Any) -> str:
        finish(*args, **named)
        return finish(*args, **named)

    monkeypatch.setattr(type(app.ledger.batches), "finish", twice)
    ends_right(bench, app, names)
    assert deleted(bench) == 0


@pytest.mark.parametrize(
    ("url", "kept"),
    [("redis+sentinel://a/m", 2), ("rediss+cluster://a", 2), ("redis://a", 0), ("unix:///a", 0)],
)
def test_where_the_server_may_move_nothing_is_deleted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, url: str, kept: int
) -> None:
    """On disk here says nothing about the replica that takes over."""
    names, app = enqueue(bench, 2), started(bench)
    monkeypatch.setattr(Redis, "moves", Redis(url=url).moves)
    ends_right(bench, app, names)
    assert deleted(bench) == 2 - kept

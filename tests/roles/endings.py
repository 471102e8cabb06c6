"""How every scenario of the roles ends: each prompt has its one row, nobody paid twice, nothing is left over."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from bench import Bench, turn

from worker.batches_api import Complaint, Created, Refused
from worker.core.model import Batch, State
from worker.wiring import App


class Crash(BaseException):
    """The process dies here."""


def crash(*_args: object, **_named: object) -> None:
    """Stand in for a call that the process does not survive."""
    raise Crash


def enqueue(bench: Bench, count: int, *, stem: str = "p", lane: str = "default") -> list[str]:
    """Enqueue `count` prompts; returns the ids the producer gave them: `stem` and a number."""
    names = [f"{stem}{number}" for number in range(count)]
    for name in names:
        bench.enqueue(name, lane=lane, id=name)
    return names


def ends_right(bench: Bench, app: App, names: list[str], *, committed_twice: int = 0, timeout: float = 20.0) -> None:
    """Work until everything is settled, then prove that every prompt has one row and was paid for once."""
    bench.drive(app, timeout=timeout)
    has_ended_right(bench, app, names, committed_twice=committed_twice)


def has_ended_right(bench: Bench, app: App, names: list[str], *, committed_twice: int = 0) -> None:
    """Prove the good end without doing anything for it."""
    assert sorted(row["id"] for row in bench.rows()) == sorted(names)
    verdict = bench.verdict()
    assert verdict["prompts_billed_twice"] == 0
    assert verdict["prompts_committed_twice"] == committed_twice
    assert bench.idle(app)
    assert app.ledger.deployment.in_flight() == 0


def succeeded(bench: Bench) -> int:
    """Return how many rows tell of a success."""
    return sum(row["result"]["type"] == "succeeded" for row in bench.rows())


def batches(app: App, lane: str = "default") -> list[Batch]:
    """Return the records of a lane's live batches, oldest first."""
    found = app.ledger.batches.get_many([(lane, uid) for uid in app.ledger.batches.live(lane)])
    return sorted(found, key=lambda batch: (batch.sealed_at, batch.first))


def states(app: App) -> list[State]:
    """Return the states of the lane's live batches, oldest first."""
    return [batch.state for batch in batches(app)]


def held(app: App) -> Batch | None:
    """Return the batch that waits for a human, if one does."""
    return next((batch for batch in batches(app) if batch.state is State.HELD), None)


def turns(app: App, times: int) -> None:
    """Let every role look so many times."""
    for _ in range(times):
        turn(app)


def posts(bench: Bench) -> Counter[str]:
    """Return how many POSTs ended how."""
    outcomes: Any = bench.simulator.control.state()["posts"]
    return Counter(outcomes)


def calls(bench: Bench, operation: str) -> int:
    """Return how many calls of an operation the API has answered with 200."""
    requests: Any = bench.simulator.control.state()["requests"]
    return int(requests.get(f"{operation} 200", 0))


def sizes(bench: Bench) -> list[int]:
    """Return the counts of the batches that were created by us, oldest first."""
    created: Any = bench.simulator.control.state()["batches"]
    return [batch["count"] for batch in created if not batch["foreign"]]


def remote_ids(bench: Bench, *, foreign: bool = False) -> list[str]:
    """Return the API's ids of our batches, or of the strangers', oldest first."""
    created: Any = bench.simulator.control.state()["batches"]
    return [batch["id"] for batch in created if batch["foreign"] is foreign]


def doubts(app: App, resolution: str) -> float:
    """Return how many doubts ended so, by the metric that tells operators."""
    labels = {"lane": "default", "resolution": resolution}
    return app.telemetry.registry.get_sample_value("batchmill_submissions_in_doubt_total", labels) or 0.0


def dead(app: App, lane: str = "default") -> list[tuple[str, str, int]]:
    """Return the dead letters as (prompt id, reason, attempt)."""
    return [(letter.prompt_id, letter.reason, letter.attempt) for letter in app.ledger.dead_letters.list(lane)]


def marks(app: App) -> tuple[str | None, str | None]:
    """Return why the lane is paused, and why it is parked."""
    found = app.ledger.lanes.marks("default")
    return found.paused, found.parked


def before_create(app: App, act: Callable[[], object]) -> None:
    """Let something happen between the look for the head and every POST."""
    assert app.api is not None
    create = app.api.create

    def wrapped(*args: Any, **named: Any) -> Created:
        act()
        return create(*args, **named)

    app.api.create = wrapped  # type: ignore[method-assign]


def refuse_bodies_with(app: App, marker: bytes, *, status: int = 400) -> list[int]:
    """Refuse every create whose body holds `marker`, naming nobody; returns a list that grows by each one's size."""
    assert app.api is not None
    create = app.api.create
    refused: list[int] = []

    def wrapped(body: Any, *, before_last_byte: Callable[[], None]) -> Created:
        whole = b"".join(body)
        if marker not in whole:
            return create(body, before_last_byte=before_last_byte)
        before_last_byte()
        refused.append(whole.count(b'"custom_id"'))
        raise Refused(
            Complaint(
                "answered",
                status=status,
                error_type="invalid_request_error",
                message="messages: something is wrong",
                well_formed=True,
            )
        )

    app.api.create = wrapped  # type: ignore[method-assign]
    return refused


def files(bench: Bench, folder: str = "results") -> list[str]:
    """Return the names of all files below a folder, unfinished ones too."""
    return sorted(path.name for path in (bench.directory / folder).rglob("*") if path.is_file())

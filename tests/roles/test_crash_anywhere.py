"""For every call of Redis or of the API: die there, start again, and end as if nothing had happened."""

from collections.abc import Callable
from typing import Any

import pytest
from bench import Bench, turn

from worker.wiring import App

SLICES = 6
API_CALLS = ("create", "retrieve", "newest", "newer_than", "delete")


class Crash(BaseException):
    """The process dies here."""


class Fuse:
    """Counts calls and dies at the n-th: before it is done (`late` False) or just after."""

    def __init__(self, at: int, *, late: bool) -> None:
        self.calls = 0
        self._at = at
        self._late = late
        self.burnt = False

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a call."""

        def guarded(*args: Any, **named: Any) -> Any:
            self.calls += 1
            if self.burnt:
                raise Crash
            if self.calls == self._at:
                self.burnt = True
                if self._late:
                    call(*args, **named)
                raise Crash
            return call(*args, **named)

        return guarded


def arm(app: App, fuse: Fuse) -> None:
    """Put a fuse into every call that leaves the process."""
    app.ledger.store._reach = fuse.around(app.ledger.store._reach)  # type: ignore[method-assign]
    for name in API_CALLS:
        setattr(app.api, name, fuse.around(getattr(app.api, name)))


def enqueue(bench: Bench) -> None:
    """Two good prompts, one that expires once, and one that is no prompt."""
    bench.simulator.control.inject({"kind": "rows", "result": "expired", "fraction": 0.3, "times": 1})
    for name in ("a", "b", "c"):
        bench.enqueue(name, id=name)
    bench.redis.xadd("batchmill:{default}:prompts", {"params": "[]", "id": "bad"})


def run_with(bench: Bench, fuse: Fuse) -> None:
    """Work until the fuse burns, then start anew and finish."""
    app = bench.start()
    arm(app, fuse)
    try:
        bench.drive(app)
    except Crash:
        bench.drive(bench.start())


def clear(bench: Bench) -> None:
    """Forget everything: the next crash starts from nothing."""
    bench.redis.flushall()
    for file in (bench.directory / "results").rglob("*.jsonl"):
        file.unlink()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the lease's thread dies too
@pytest.mark.parametrize("part", range(SLICES))
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_a_crash_at_any_call_changes_nothing(bench: Bench, part: int, late: bool) -> None:
    """Calls part+1, part+1+SLICES, … die one after the other until a run is over before its fuse burns."""
    at = part + 1
    while True:
        fuse = Fuse(at, late=late)
        before = bench.verdict()
        enqueue(bench)
        run_with(bench, fuse)
        after = bench.verdict()
        where = f"call {at}, {'after' if late else 'before'} it was done"
        assert sorted(row["id"] for row in bench.rows()) == ["a", "b", "bad", "c"], where
        assert after["prompts_billed"] - before["prompts_billed"] == 3, where
        assert after["prompts_billed_twice"] == 0, where
        if not fuse.burnt:
            break
        clear(bench)
        at += SLICES
    assert at > 3 * SLICES, "the run made suspiciously few calls"


def test_the_fuse_really_burns(bench: Bench) -> None:
    """The generated test above means something: its crash stops a run."""
    enqueue(bench)
    app = bench.start()
    arm(app, Fuse(3, late=False))
    with pytest.raises(Crash):
        turn(app)

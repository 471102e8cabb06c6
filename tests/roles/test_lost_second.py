"""A restart that loses the last second: the append-only file ends where it was last synced for certain."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bench import Bench
from endings import batches, ends_right, enqueue, sizes, states
from mortal import Mortal

from worker.core.model import State
from worker.ledger.batches import Batches
from worker.ledger.prompts import Prompts
from worker.simulator import Simulator
from worker.wiring import App


class Disk:
    """A Redis whose append-only file is cut at a crash. `synced` is where the last barrier left it on disk."""

    def __init__(self, mortal: Mortal, directory: Path) -> None:
        self.bench = mortal.bench
        self._mortal = mortal
        self._folder = directory / "appendonlydir"
        self.synced = 0

    @property
    def file(self) -> Path:
        """The file that grows."""
        return max(self._folder.glob("*.incr.aof"))

    def watch(self, app: App) -> None:
        """Note how long the file is whenever a barrier says that it is on disk."""
        durably = app.barrier.durably

        def watched(write: Callable[[Any], str]) -> str:
            answer = durably(write)
            self.synced = self.file.stat().st_size
            return answer

        app.barrier.durably = watched  # type: ignore[method-assign]

    def loses(self, share: float) -> None:
        """Kill Redis, take this share of what no barrier has synced away, and start it again."""
        self._mortal.dies_and_comes_back(meanwhile=lambda: self._cut(share))

    def goes_back_to(self, length: int) -> None:
        """Kill Redis and start it on the file as it was when it was so long: a backup that was put back."""
        self._mortal.dies_and_comes_back(meanwhile=lambda: self._truncate(length))

    def _cut(self, share: float) -> None:
        length = self.file.stat().st_size
        assert length >= self.synced > 0
        self._truncate(length - int((length - self.synced) * share))

    def _truncate(self, length: int) -> None:
        with self.file.open("r+b") as file:
            file.truncate(length)


@pytest.fixture
def disk(tmp_path: Path, simulator: Simulator) -> Iterator[Disk]:
    """A server of this test's own, with an append-only file that is synced every second."""
    mortal = Mortal(tmp_path, simulator, appendonly=True)
    yield Disk(mortal, tmp_path)
    mortal.end()


def stick(bench: Bench, times: int = 1) -> None:
    """Let the next batches stay in progress until the test ends them."""
    bench.simulator.control.inject({"kind": "stuck", "on": "create", "times": times})


def accepted(bench: Bench, app: App) -> None:
    """Lose the answer, and what came after it."""
    stick(bench)
    bench.drive(app, lambda: states(app) == [State.IN_PROGRESS])


def doubted(bench: Bench, app: App) -> None:
    """Lose the date of a doubt."""
    bench.simulator.control.inject([{"kind": "drop_reply", "on": "create"}, {"kind": "stuck", "on": "create"}])
    bench.drive(app, lambda: any(batch.doubt_at for batch in batches(app)))


def ended(bench: Bench, app: App) -> None:
    """Lose the end of the remote batch."""
    bench.drive(app, lambda: states(app) == [State.ENDED])


def settled(bench: Bench, app: App) -> None:
    """Lose that the rows were delivered and the prompts settled."""
    bench.drive(app)


def retried(bench: Bench, app: App) -> None:
    """Lose the answer to the second attempt of prompts whose first one expired."""
    bench.simulator.control.inject({"kind": "rows", "result": "expired", "fraction": 0.5})
    bench.drive(app, lambda: len(sizes(bench)) == 2)


def halved(bench: Bench, app: App) -> None:
    """Lose how a refused batch was cut, but for what was posted of it."""
    fault = {"kind": "status", "on": "create", "status": 413, "error_type": "request_too_large"}
    bench.simulator.control.inject(fault)
    bench.drive(app, lambda: len(sizes(bench)) == 2)


STAGES = (accepted, doubted, ended, settled, retried, halved)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
@pytest.mark.parametrize("share", [1.0, 0.5], ids=["all of it", "half of it"])
def test_with_a_barrier_a_lost_second_costs_nothing(
    disk: Disk, stage: Callable[[Bench, App], None], share: float
) -> None:
    """An intent is on disk with all before it: whatever came after is found or done again, nothing is paid twice."""
    bench = disk.bench
    app = bench.start(submit__horizon="1h")
    assert app.barrier.kind == "appendfsync"
    disk.watch(app)
    names = enqueue(bench, 4)
    stage(bench, app)
    created = sizes(bench)
    app.close()
    disk.loses(share)
    successor = bench.start()
    bench.simulator.control.end()
    ends_right(bench, successor, names)
    assert sizes(bench) == created
    assert bench.verdict()["prompts_committed_twice"] == 0


def test_prompts_of_the_lost_second_never_came(disk: Disk) -> None:
    """They were acknowledged by an everysec Redis; the ones it still has are worked off."""
    bench = disk.bench
    app = bench.start(submit__horizon="1h")
    disk.watch(app)
    names = enqueue(bench, 2)
    bench.drive(app)
    enqueue(bench, 3, stem="gone")
    app.close()
    disk.loses(1.0)
    successor = bench.start()
    names += enqueue(bench, 1, stem="later")
    ends_right(bench, successor, names)


def test_a_backup_that_was_put_back_is_recovered_by_token_when_it_is_told_so(disk: Disk) -> None:
    """It knows a barrier that its own future has passed: one mark on the lane says so, before a worker is started."""
    bench = disk.bench
    app = bench.start()
    names = enqueue(bench, 4)
    assert bench.redis.execute_command("CONFIG", "SET", "appendfsync", "always")
    backup = disk.file.stat().st_size
    bench.drive(app)
    app.close()
    disk.goes_back_to(backup)
    bench.redis.hset("batchmill:{default}:lane", "barrier", "none")
    ends_right(bench, bench.start(), names)
    assert sizes(bench) == [4]


def test_prompts_that_come_back_before_their_batch_is_closed_are_settled_again(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed without them, they lay behind the cursor until the lane was empty, and were then sent once more."""
    bench, lengths = disk.bench, []
    settle, finish = Prompts.settle, Batches.finish

    def settled(ledger: Any, *args: Any, **named: Any) -> bool:
        lengths.append(disk.file.stat().st_size)
        return settle(ledger, *args, **named)

    def finished(ledger: Any, *args: Any, **named: Any) -> str:
        if len(lengths) == 1:
            disk.goes_back_to(lengths[0])
        return finish(ledger, *args, **named)

    monkeypatch.setattr(Prompts, "settle", settled)
    monkeypatch.setattr(Batches, "finish", finished)
    app = bench.start()
    names = enqueue(bench, 3)
    ends_right(bench, app, names)
    assert len(lengths) == 2

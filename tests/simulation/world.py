"""A world in which everything happens in one thread, in an order that chance decides and a script repeats.

Threads of the program are tasks here: each runs until it would touch something outside (Redis, the API, a sink, the
clock), and there the world may let another one go on, kill its process, freeze it, or let time pass.
"""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from chance import Chance
from greenlet import getcurrent, greenlet

EPOCH = 1_800_000_000.0


class Died(BaseException):
    """The process that runs here is dead; nothing of it may touch the world again."""


@dataclass(eq=False)
class Process:
    """One life of one process. What belongs to a dead one never runs again."""

    name: str
    dead: bool = False
    frozen_until: float = 0.0
    farewells: list[Callable[[], object]] = field(default_factory=list)
    """Called when it is asked to stop."""
    last_words: list[Callable[[], object]] = field(default_factory=list)
    """Called when it dies: its connections are closed."""


@dataclass(eq=False)
class Task:
    """One thread of a process. It goes on when `ready` says so, or at `wake_at`."""

    name: str
    process: Process
    body: greenlet
    wake_at: float = 0.0
    ready: Callable[[], bool] | None = None


class World:
    """Time, tasks and what will happen later. `timeline` tells what happened, `violations` what never may."""

    def __init__(self, chance: Chance) -> None:
        self.chance = chance
        self.now = EPOCH
        self.steps = 0
        self.timeline: list[str] = []
        self.violations: list[str] = []
        self._tasks: list[Task] = []
        self._later: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._hub = getcurrent()
        self._current: Task | None = None

    def tell(self, what: str) -> None:
        """Add a line to the timeline."""
        who = f"{self._current.process.name}/{self._current.name}" if self._current else "world"
        self.timeline.append(f"{self.now - EPOCH:9.3f}  {who:<22} {what}")

    def violated(self, what: str) -> None:
        """Note that something happened that never may."""
        self.tell(f"VIOLATION: {what}")
        self.violations.append(what)

    def at(self, when: float, act: Callable[[], object]) -> None:
        """Let something happen at a time."""
        heapq.heappush(self._later, (when, next(self._numbers), act))

    def after(self, seconds: float, act: Callable[[], object]) -> None:
        """Let something happen so many seconds from now."""
        self.at(self.now + seconds, act)

    def spawn(self, process: Process, name: str, run: Callable[[], object]) -> None:
        """Add a thread to a process."""

        def body() -> None:
            try:
                if not process.dead:
                    run()
            except Died:
                pass
            except Exception as error:  # noqa: BLE001 - whatever ends a thread of the daemon is a defect
                self.violated(f"{process.name}/{name} ended by {type(error).__name__}: {error}")

        self._tasks.append(Task(name, process, greenlet(body, parent=self._hub)))

    def here(self) -> Process:
        """Return the process that runs at this moment."""
        if self._current is None:
            raise LookupError("nobody runs")
        return self._current.process

    def kill(self, process: Process) -> None:
        """End a process at once, wherever its threads are."""
        if process.dead:
            return
        process.dead = True
        for word in process.last_words:
            word()

    def freeze(self, process: Process, seconds: float) -> None:
        """Let a process stand still, as SIGSTOP or a suspended machine would."""
        process.frozen_until = max(process.frozen_until, self.now + seconds)

    def pause(self) -> None:
        """Let others go on here. Raises Died in a process that was killed meanwhile."""
        task = self._current
        if task is None:
            return
        if not task.process.dead:
            self._hub.switch()
        if task.process.dead:
            raise Died

    def wait(self, ready: Callable[[], bool] | None, seconds: float) -> None:
        """Let time pass for the current task: until it is ready, for so many seconds at most."""
        task = self._current
        if task is None:
            self.now += seconds
            return
        task.ready, task.wake_at = ready, self.now + seconds
        self.pause()
        task.ready, task.wake_at = None, 0.0

    def run(self, until: Callable[[], bool], *, most_steps: int) -> bool:
        """Go on until a condition holds; False when it did not within so many steps."""
        for _ in range(most_steps):
            self.steps += 1
            if self.violations or until():
                return True
            self._happen()
            runnable = [task for task in self._tasks if self._may_run(task)]
            if not runnable:
                self._skip()
                continue
            task = runnable[self.chance.pick(len(runnable))]
            self._tasks.remove(task)
            self._resume(task)
            if not task.body.dead:
                self._tasks.append(task)  # behind the others: always the first is everybody in turn
        return False

    def end(self) -> None:
        """Let every task die, so that nothing of this world is left."""
        for task in self._tasks:
            task.process.dead = True
        for task in list(self._tasks):
            while not task.body.dead:
                self._resume(task)

    def _resume(self, task: Task) -> None:
        self._current = task
        try:
            task.body.switch()
        finally:
            self._current = None

    def _may_run(self, task: Task) -> bool:
        if task.process.dead:
            return True  # to find out and end
        if task.process.frozen_until > self.now:
            return False
        return task.wake_at <= self.now or (task.ready is not None and task.ready())

    def _happen(self) -> None:
        while self._later and self._later[0][0] <= self.now:
            heapq.heappop(self._later)[2]()

    def _skip(self) -> None:
        """Nobody has anything to do now: go to the next moment at which somebody has."""
        moments = [max(task.wake_at, task.process.frozen_until) for task in self._tasks]
        moments += [self._later[0][0]] if self._later else []
        self.now = max(self.now, min(moments, default=self.now + 1.0))

"""A Redis that can be killed and come back."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench import Bench, redis_server

from worker.simulator import Simulator


class Mortal:
    """A Redis of this test's own, on which a bench works, and which can be killed and come back."""

    def __init__(self, directory: Path, simulator: Simulator, *, appendonly: bool) -> None:
        self._directory = directory
        self._appendonly = appendonly
        self._life = ExitStack()
        url = self._live()
        self.bench = Bench(url=url, simulator=simulator, directory=directory)

    def _live(self) -> str:
        return self._life.enter_context(redis_server(self._directory, appendonly=self._appendonly))

    def dies_and_comes_back(self, *, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Kill -9 and start on what is on disk."""
        self._life.close()
        self._life = ExitStack()
        meanwhile()
        self._live()

    def snapshot(self) -> None:
        """Bring what is known now onto the disk; what follows will be forgotten."""
        self.bench.redis.save()

    def end(self) -> None:
        """Stop everything."""
        self.bench.close()
        self._life.close()

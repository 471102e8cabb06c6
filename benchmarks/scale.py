"""`make scale`: more of everything. What a prompt costs then, and how much memory its worker and its Redis need.

Each scenario fills a Redis, starts workers in front of a fresh API, and watches them until the last prompt is settled.
Linux only, for it reads /proc.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import redis

from benchmarks.contenders import LANE, SETTINGS, read_ids
from benchmarks.measure import MEGABYTE, Child, Cost, running
from benchmarks.prompts import params_of, read_questions, system_text, write_questions
from worker.embedded import EmbeddedServer

FILL = 1000
"""Prompts per pipeline, at most."""

FILL_BYTES = 4_000_000
QUICK_API = {"BATCHMILL_ANTHROPIC__REQUESTS_PER_MINUTE": "1000000"}
"""The limit of an account would be what is measured where there are hundreds of batches."""

QUESTIONS = 20_000
"""So many different ones; who needs more begins again."""


@dataclass(frozen=True, slots=True)
class Load:
    """What waits in Redis: `count` prompts of so many bytes, dealt out to `lanes`, each with metadata of so many."""

    count: int
    prompt_bytes: int = 1600
    metadata_bytes: int = 0
    lanes: tuple[str, ...] = (LANE,)


@dataclass(frozen=True, slots=True)
class Sample:
    """How far it was: seconds since the workers began to work, prompts settled, what each worker had used."""

    at: float
    settled: int
    workers: tuple[Cost, ...]
    redis_bytes: int

    @property
    def cpu(self) -> float:
        """CPU seconds of all workers."""
        return sum(worker.cpu for worker in self.workers)


class Site:
    """A Redis and an API, for one scenario."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        server = stack.enter_context(EmbeddedServer.start(directory / "redis", max_memory_bytes=16 << 30))
        api = self._run(["worker", "simulate", "--port", "0", "--json"], {})
        self.client: Any = redis.Redis.from_url(server.url)
        self._env = {"REDIS_URL": server.url, "ANTHROPIC_BASE_URL": str(json.loads(api.first_line())["url"])}

    def fill(self, load: Load) -> None:
        """Enqueue."""
        questions = self._directory / "questions"
        write_questions(questions, min(QUESTIONS, load.count))
        system = system_text(load.prompt_bytes)
        metadata = json.dumps({"note": "m" * load.metadata_bytes}) if load.metadata_bytes else None
        most = max(1, min(FILL, FILL_BYTES // load.prompt_bytes))
        pipe = self.client.pipeline(transaction=False)
        for number, question in zip(range(load.count), _again_and_again(questions), strict=False):
            fields = {"params": json.dumps(params_of(question, system)), "id": f"p-{number}"}
            if metadata is not None:
                fields["metadata"] = metadata
            pipe.xadd(_stream(load.lanes[number % len(load.lanes)]), fields)
            if len(pipe) == most:
                pipe.execute()
        pipe.execute()

    def memory(self) -> int:
        """Return the bytes that Redis has in use."""
        return int(self.client.info("memory")["used_memory"])

    def weigh(self, lane: str = LANE) -> int:
        """Return the bytes that a lane's stream takes."""
        return int(self.client.memory_usage(_stream(lane), samples=0) or 0)

    def work(self, load: Load, *, replicas: int = 1, every: int = 0, **settings: str) -> list[Sample]:
        """Let workers empty the lanes; returns a sample of the beginning, one `every` so many prompts, one of the end.

        Raises SystemExit when a worker dies, or unless there is one row for every prompt.
        """
        sinks = {"BATCHMILL_SINKS__RESULTS__PATH": str(self._directory / "results/{lane}/{batch}.jsonl")}
        env = (
            SETTINGS
            | QUICK_API
            | sinks
            | self._env
            | {f"BATCHMILL_{key.upper()}": value for key, value in settings.items()}
        )
        for lane in load.lanes:
            env.setdefault(f"BATCHMILL_LANES__{lane.upper()}__MAX_AGE", "1s")
        workers = [self._run(["worker", "run"], env) for _ in range(replicas)]
        while not self._left(load, "due"):
            _wait(workers)
        began = time.monotonic()
        samples = [self._sample(0.0, 0, workers)]
        while samples[-1].settled < load.count:
            settled = load.count - self._left(load, "prompts")
            if settled == load.count or (every and settled >= samples[-1].settled + every):
                samples.append(self._sample(time.monotonic() - began, settled, workers))
            _wait(workers)
        print(f"  peak RSS {', '.join(f'{worker.peak() / MEGABYTE:.0f}' for worker in workers)} MB", flush=True)
        for worker in workers:
            worker.stop()
        ids = list(read_ids(self._directory))
        if len(ids) != load.count or len(set(ids)) != load.count:
            raise SystemExit(f"{len(ids)} rows, {len(set(ids))} of them different, for {load.count} prompts")
        return samples

    def _run(self, words: Sequence[str], env: dict[str, str]) -> Child:
        return self._stack.enter_context(running(words, env=env, log=self._directory / "log"))

    def _left(self, load: Load, what: str) -> int:
        pipe = self.client.pipeline(transaction=False)
        for lane in load.lanes:
            key = _stream(lane).replace("prompts", what)
            if what == "prompts":
                pipe.xlen(key)
            else:
                pipe.zcard(key)
        return sum(pipe.execute())

    def _sample(self, at: float, settled: int, workers: list[Child]) -> Sample:
        return Sample(at, settled, tuple(worker.look() for worker in workers), self.memory())


def run_million(site: Site, scale: float) -> None:
    """A million prompts that all wait when the worker starts: does the last cost what the first did."""
    load = Load(int(1_000_000 * scale))
    site.fill(load)
    samples = site.work(load, every=load.count // 10)
    print("| prompts settled | us of CPU a prompt | RSS MB | Redis MB |\n|---|---|---|---|")
    for before, after in pairwise(samples):
        each = (after.cpu - before.cpu) / (after.settled - before.settled) * 1e6
        print(f"| {after.settled:,} | {each:.1f} | {_rss(after)} | {after.redis_bytes / MEGABYTE:,.0f} |")
    first, middle, last = samples[0], samples[len(samples) // 2], samples[-1]
    halves = (
        (end.cpu - begin.cpu) / (end.settled - begin.settled) * 1e6 for begin, end in ((first, middle), (middle, last))
    )
    print("  us of CPU a prompt in the first and in the second half: " + ", ".join(f"{each:.1f}" for each in halves))


def run_lanes(site: Site, scale: float) -> None:
    """Two hundred lanes, each with a little."""
    load = Load(int(50_000 * scale), lanes=tuple(f"lane{number}" for number in range(200)))
    site.fill(load)
    _tell(load, site.work(load))


def run_metadata(site: Site, scale: float) -> None:
    """Every prompt with 10 KB of metadata, which its row repeats."""
    load = Load(int(20_000 * scale), metadata_bytes=10_000)
    site.fill(load)
    _tell(load, site.work(load))


def run_large(site: Site, scale: float) -> None:
    """Prompts of 200 KB."""
    load = Load(int(3000 * scale), prompt_bytes=200_000)
    site.fill(load)
    _tell(load, site.work(load))


def run_replicas(_: Site, scale: float) -> None:
    """Four lanes, and one, two and four workers."""
    load = Load(int(100_000 * scale), lanes=("a", "b", "c", "d"))
    for replicas in (1, 2, 4):
        with tempfile.TemporaryDirectory(prefix="scale-") as directory, ExitStack() as stack:
            fresh = Site(Path(directory), stack)
            fresh.fill(load)
            print(f"  {replicas} of them:")
            _tell(load, fresh.work(load, replicas=replicas))


def run_memory(site: Site, scale: float) -> None:
    """What a waiting prompt costs Redis, by its size; and what is left of it when it is settled."""
    print("| bytes of params | bytes in Redis | over |\n|---|---|---|")
    for size in (400, 800, 1600, 2400, 5000, 20_000, 200_000):
        load = Load(int(min(20_000, 400_000_000 // size) * scale), prompt_bytes=size)
        site.fill(load)
        each = site.weigh() / load.count
        entry = site.client.xrange(_stream(LANE), count=200)
        params = sum(len(fields[b"params"]) for _, fields in entry) / len(entry)
        print(f"| {params:,.0f} | {each:,.0f} | {each / params - 1:.0%} |", flush=True)
        site.client.execute_command("FLUSHALL", "SYNC")
    load = Load(int(100_000 * scale))
    site.fill(load)
    print(f"  filled with {load.count:,}: {site.memory() / MEGABYTE:,.1f} MB")
    for sample in site.work(load, every=load.count // 5)[1:]:
        print(f"  {sample.settled:,} settled: {sample.redis_bytes / MEGABYTE:,.1f} MB")


SCENARIOS: dict[str, Callable[[Site, float], None]] = {
    "million": run_million,
    "lanes": run_lanes,
    "metadata": run_metadata,
    "large": run_large,
    "replicas": run_replicas,
    "memory": run_memory,
}


def main() -> None:
    """Run the scenarios that were asked for, all if none was."""
    parser = argparse.ArgumentParser(prog="make scale", description=__doc__)
    parser.add_argument("scenario", nargs="*", choices=[*SCENARIOS, []], help="; ".join(SCENARIOS))
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of prompts (1)")
    asked = parser.parse_args()
    for name in asked.scenario or SCENARIOS:
        print(f"\n{name}: {SCENARIOS[name].__doc__}", flush=True)
        with tempfile.TemporaryDirectory(prefix="scale-") as directory, ExitStack() as stack:
            SCENARIOS[name](Site(Path(directory), stack), asked.scale)


def _tell(load: Load, samples: Sequence[Sample]) -> None:
    first, last = samples[0], samples[-1]
    each = (last.cpu - first.cpu) / load.count * 1e6
    print(
        f"  {load.count:,} prompts in {last.at:.1f} s, {load.count / last.at:,.0f} a second; "
        f"{each:.1f} us of CPU a prompt; RSS at the end {_rss(last)} MB",
        flush=True,
    )


def _rss(sample: Sample) -> str:
    return ", ".join(f"{worker.rss / MEGABYTE:.0f}" for worker in sample.workers)


def _stream(lane: str) -> str:
    return f"batchmill:{{{lane}}}:prompts"


def _again_and_again(questions: Path) -> Iterator[str]:
    while True:
        yield from read_questions(questions)


def _wait(workers: Sequence[Child]) -> None:
    for worker in workers:
        if worker.process.poll() is not None:
            raise SystemExit("a worker died")
    time.sleep(0.02)


if __name__ == "__main__":
    main()

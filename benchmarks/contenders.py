"""Who takes part, and how each is started: in front of an API of its own, from the same prompts."""

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import redis

from benchmarks.measure import Cost, running
from benchmarks.prompts import params_of, read_questions, system_text
from worker.embedded import EmbeddedServer

LANE = "bench"
FILL = 1000
"""Prompts per pipeline while the lane is filled."""

SETTINGS = {
    "ANTHROPIC_API_KEY": "sk-ant-bench",
    "BATCHMILL_HTTP__PORT": "0",
    "BATCHMILL_LANES__BENCH__MAX_AGE": "1s",
    "BATCHMILL_POLL__INTERVAL": "1s",
}
"""Batches of 10,000 are the default. The other two look once a second as well."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done: `questions` is a file, `prompt_bytes` the size of each prompt."""

    count: int
    prompt_bytes: int
    questions: Path
    directory: Path


@dataclass(frozen=True, slots=True)
class Run:
    """How one contender did it. Seconds of wall time and of CPU; the API's and Redis' CPU are not in `cost`."""

    wall: float
    cost: Cost
    calls: int
    api_cpu: float
    redis_cpu: float


Contender = Callable[[Job, str], tuple[float, Cost, float]]
"""Does the job in front of a URL; returns wall seconds, its cost, and Redis' CPU seconds."""


def run(contender: Contender, job: Job) -> Run:
    """Let one contender do the job in front of a fresh API, and check that it has. Raises SystemExit if not."""
    log = job.directory / "log"
    with running(["worker", "simulate", "--port", "0", "--json"], env={}, log=log) as api:
        url = str(json.loads(api.first_line())["url"])
        wall, cost, redis_cpu = contender(job, url)
        with urllib.request.urlopen(f"{url}/simulator/state") as answer:  # noqa: S310 - our own loopback address
            calls = sum(json.load(answer)["requests"].values())
        api_cpu = api.stop().cpu
    ids = set(read_ids(job.directory))
    if len(ids) != job.count:
        raise SystemExit(f"{len(ids)} of {job.count} prompts have a row, see {job.directory}")
    return Run(wall=wall, cost=cost, calls=calls, api_cpu=api_cpu, redis_cpu=redis_cpu)


def script(module: str) -> Contender:
    """A script that is given everything as words."""

    def do(job: Job, url: str) -> tuple[float, Cost, float]:
        words = [
            f"benchmarks.{module}",
            url,
            str(job.questions),
            str(job.prompt_bytes),
            str(job.directory / "rows.jsonl"),
        ]
        began = time.monotonic()
        with running(words, env={}, log=job.directory / "log") as child:
            cost = child.cost()
        return time.monotonic() - began, cost, 0.0

    return do


def batchmill(job: Job, url: str) -> tuple[float, Cost, float]:
    """Fill a lane of a server that the daemon would embed, start the daemon, wait until the lane is empty."""
    with EmbeddedServer.start(job.directory / "redis", max_memory_bytes=8 << 30) as server:
        client = redis.Redis.from_url(server.url)
        fill(client, job)
        before = _redis_cpu(client)
        sinks = {"BATCHMILL_SINKS__RESULTS__PATH": str(job.directory / "results/{lane}/{batch}.jsonl")}
        env = SETTINGS | sinks | {"REDIS_URL": server.url, "ANTHROPIC_BASE_URL": url}
        began = time.monotonic()
        with running(["worker", "run"], env=env, log=job.directory / "log") as daemon:
            while client.xlen(f"batchmill:{{{LANE}}}:prompts") or not client.exists("batchmill:lanes"):
                if daemon.process.poll() is not None:
                    raise SystemExit(f"the daemon died, see {job.directory}/log")
                time.sleep(0.02)
            wall = time.monotonic() - began
            cost = daemon.stop()
        return wall, cost, _redis_cpu(client) - before


def fill(client: "redis.Redis", job: Job) -> None:
    """XADD every prompt."""
    system = system_text(job.prompt_bytes)
    pipe = client.pipeline(transaction=False)
    for number, question in enumerate(read_questions(job.questions)):
        params = json.dumps(params_of(question, system))
        pipe.xadd(f"batchmill:{{{LANE}}}:prompts", {"params": params, "id": f"p-{number}"})
        if len(pipe) == FILL:
            pipe.execute()
    pipe.execute()


def _redis_cpu(client: "redis.Redis") -> float:
    used = client.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


def read_ids(directory: Path) -> Iterator[str]:
    """Yield the prompt of every row that a contender has left."""
    for path in [*directory.glob("rows.jsonl"), *directory.glob("results/**/*.jsonl")]:
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)["id"]


CONTENDERS: dict[str, Contender] = {"plain": script("plain"), "floor": script("floor"), "batchmill": batchmill}

"""`make stages`: each stage of a prompt's life beside the physical limit of it, in one run.

A limit does the least that could be called the same: it moves the bytes and hardly looks at them. Stages run in this
process, Redis and the API in others, so that the CPU time of a stage is its own.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import limits
from benchmarks.mill import Mill, milling
from benchmarks.prompts import params_of, read_questions, system_text
from worker.client import Producer
from worker.core.model import State
from worker.drainer import Drainer

PROMPT_BYTES = 1600
OPEN_BATCHES = 1000
LANES = ("none", "gzip", "zstd")
"""Named after how their results are compressed."""

POLLED = "polled"


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds of wall time, and of this process's CPU."""

    wall: float
    cpu: float


def take_time(do: Callable[[], object]) -> Took:
    """Do something once."""
    wall, cpu = time.monotonic(), time.process_time()
    do()
    return Took(time.monotonic() - wall, time.process_time() - cpu)


def main() -> None:
    """Measure every stage, print a table."""
    parser = argparse.ArgumentParser(prog="make stages", description=__doc__)
    parser.add_argument("--prompts", type=int, default=50_000, help="in each lane, at most 100,000 (50,000)")
    count = parser.parse_args().prompts
    with milling(count, (*LANES, POLLED)) as (mill, api, directory):
        print(f"{count:,} prompts of {PROMPT_BYTES:,} bytes; us of CPU a prompt, or a batch where it says so\n")
        print("| stage | batchmill | its limit | of the limit | seconds |\n|---|---|---|---|---|")
        Stages(mill, api, directory, count).run()


class Stages:
    """The stages, in the order in which a prompt goes through them."""

    def __init__(self, mill: Mill, api: str, directory: Path, count: int) -> None:
        self._mill = mill
        self._api = api
        self._directory = directory
        system = system_text(PROMPT_BYTES)
        self._prompts = [{"params": params_of(each, system)} for each in read_questions(directory / "questions")]
        self._count = count

    def run(self) -> None:
        """Measure and print."""
        first = LANES[0]
        stream, client = self._mill.stream(first), self._mill.client
        encoded = [json.dumps(prompt["params"]).encode() for prompt in self._prompts]
        least = take_time(lambda: limits.xadd(client, "limit", encoded))
        self._tell("enqueue", take_time(lambda: self._enqueue(first)), least)
        least = take_time(lambda: [None for _ in limits.xrange(client, stream)])
        self._tell("look and seal", take_time(lambda: self._mill.seal(first)), least)
        body = self._body("limit")
        least = take_time(lambda: limits.ask(self._api, "POST", limits.BATCHES, body))
        self._tell("build and upload", take_time(lambda: self._mill.step(first, State.SEALED)), least)
        entry_ids = [entry_id for page in limits.xrange(client, "limit") for entry_id, _ in page]
        least_settling = take_time(lambda: limits.xdel(client, "limit", entry_ids))
        settled = self._drain(first)
        self._tell("settle (in every drain)", settled, least_settling)
        for lane in LANES[1:]:
            self._enqueue(lane)
            self._mill.seal(lane)
            self._mill.step(lane, State.SEALED)
            self._drain(lane)
        self._poll(POLLED)

    def _drain(self, lane: str) -> Took:
        """Drain a lane; returns what settling took of it."""
        self._mill.await_end(lane)
        remote_id = self._mill.batches(lane)[0].remote_id or ""
        least = take_time(lambda: limits.download(self._api, remote_id, self._directory / "limit.jsonl"))
        settling: list[Took] = []
        settle = Drainer._settle  # noqa: SLF001 - a stopwatch on a step within a step

        def settle_timed(*args: Any) -> None:
            settling.append(take_time(lambda: settle(*args)))

        Drainer._settle = settle_timed  # type: ignore[method-assign,assignment] # noqa: SLF001 - the same
        try:
            drained = take_time(lambda: self._mill.step(lane, State.ENDED))
        finally:
            Drainer._settle = settle  # type: ignore[method-assign] # noqa: SLF001 - the same
        if self._mill.batches(lane):
            raise SystemExit(f"the lane {lane} is not drained")
        self._tell(f"drain to a file, {lane}", drained, least)
        if lane == LANES[0]:
            by_sdk = take_time(lambda: limits.iterate_results(self._api, remote_id, self._directory / "sdk.jsonl"))
            self._tell("the same with the SDK's results()", by_sdk, least)
        return settling[0]

    def _poll(self, lane: str) -> None:
        """Ask once how a thousand batches are; all of them have ended."""
        for number in range(OPEN_BATCHES):
            self._enqueue(lane, self._prompts[number % self._count : number % self._count + 1])
            self._mill.seal(lane)
            limits.ask(self._api, "POST", "/simulator/batches", b'{"count":1}')
        self._mill.take_over(lane)
        least = take_time(lambda: limits.ask(self._api, "GET", f"{limits.BATCHES}?limit={OPEN_BATCHES}"))
        took = take_time(lambda: self._mill.step(lane, State.IN_PROGRESS))
        self._tell(f"poll {OPEN_BATCHES:,} batches, us a batch", took, least, OPEN_BATCHES)

    def _enqueue(self, lane: str, prompts: list[dict[str, Any]] | None = None) -> None:
        with Producer(self._mill.url, lane=lane) as producer:
            producer.enqueue_many(self._prompts if prompts is None else prompts)

    def _body(self, stream: str) -> bytes:
        """Make the body that all of a stream's prompts have."""
        request = b'{"custom_id":"%b","params":%b}'
        pages = limits.xrange(self._mill.client, stream)
        return b'{"requests":[%b]}' % b",".join(
            request % (entry_id, fields[b"params"]) for page in pages for entry_id, fields in page
        )

    def _tell(self, stage: str, ours: Took, limit: Took, count: int | None = None) -> None:
        each, least = (took.cpu / (count or self._count) * 1e6 for took in (ours, limit))
        print(f"| {stage} | {each:.1f} | {least:.1f} | {limit.cpu / ours.cpu:.0%} | {ours.wall:.2f} |", flush=True)


if __name__ == "__main__":
    main()

"""batchmill taken apart: every role in this process, stepped by hand, Redis and the API beside it."""

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from benchmarks.measure import running
from benchmarks.prompts import write_questions
from worker.actors import QUEUE_OF
from worker.clock import Clock
from worker.config import load_config
from worker.core.model import Batch, State
from worker.embedded import EmbeddedServer
from worker.telemetry import Telemetry
from worker.wiring import ROLES, build

LEASE = 2.0
ENOUGH = 1_000_000


@contextmanager
def milling(count: int, lanes: Sequence[str]) -> Iterator[tuple["Mill", str, Path]]:
    """Set a mill up, with a Redis and an API of its own; yields it, the API's URL, and a folder with `questions`."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        write_questions(directory / "questions", count)
        with (
            EmbeddedServer.start(directory / "redis", max_memory_bytes=8 << 30) as server,
            running(["worker", "simulate", "--port", "0", "--json"], env={}, log=directory / "log") as api,
        ):
            url = str(json.loads(api.first_line())["url"])
            mill = Mill(server=server.url, api=url, directory=directory, lanes=lanes)
            yield mill, url, directory
            mill.close()


class Mill:
    """Lanes of which each ends in a file of its own, compressed as the lane is called."""

    def __init__(self, *, server: str, api: str, directory: Path, lanes: Sequence[str]) -> None:
        self.url = server
        self.client: Any = redis.Redis.from_url(server)
        overrides = {
            "redis.url": server,
            "anthropic.base_url": api,
            "anthropic.requests_per_minute": str(ENOUGH),
            "anthropic.max_in_flight_requests": str(ENOUGH),
            "poll.interval": "50ms",
            "submit.max_unposted": "1000",
        }
        for lane in lanes:
            overrides |= {
                f"lanes.{lane}.max_age": "0s",
                f"lanes.{lane}.max_count": "100000",
                f"lanes.{lane}.sinks": lane,
                f"sinks.{lane}.type": "file",
                f"sinks.{lane}.path": str(directory / lane / "{batch}.jsonl"),
                f"sinks.{lane}.compression": lane if lane in ("gzip", "zstd") else "none",
            }
        config = load_config(
            path=None, environ={"ANTHROPIC_API_KEY": "sk-ant-bench"}, cwd=directory, overrides=overrides
        )
        self.app = build(config, url=server, telemetry=Telemetry(version="bench"), clock=Clock(), roles=ROLES)
        self.app.rescuer.step()

    def close(self) -> None:
        """Close every connection."""
        self.app.close()
        self.client.close()

    def stream(self, lane: str) -> str:
        """Return the key of a lane's prompts."""
        return self.app.ledger.store.keys.prompts(lane)

    def batches(self, lane: str) -> list[Batch]:
        """Return what is under way in a lane."""
        live = self.app.ledger.batches.live(lane)
        return self.app.ledger.batches.get_many([(lane, uid) for uid in live])

    def seal(self, lane: str) -> None:
        """Seal all that waits."""
        batcher = self.app.batcher
        while batcher is not None and batcher.step(lane) is not None:
            pass

    def step(self, lane: str, state: State) -> None:
        """Claim what is due in a lane, and take one step of what is in a state."""
        claims = self.app.ledger.batches.claim(lane, limit=ENOUGH, lease=LEASE)
        if chosen := [claim for claim in claims if claim.state is state]:
            self.app.steps[QUEUE_OF[state]](chosen)

    def take_over(self, lane: str) -> None:
        """Let the newest remote batches be those of what is sealed, as if each had been posted."""
        assert self.app.api is not None  # noqa: S101 - every role is played
        ledger = self.app.ledger
        listing = self.app.api.newer_than(None, not_before=0.0)
        claims = {claim.uid: claim.fence for claim in ledger.batches.claim(lane, limit=ENOUGH, lease=LEASE)}
        for batch, remote in zip(self.batches(lane), listing.batches, strict=False):
            ledger.batches.submit(
                batch, fence=claims[batch.uid], head="", head_at=0.0, durably=lambda write: write(None)
            )
            ledger.batches.accept(batch, batch.attempt + 1, remote, delay=0.0, workspace_id="")

    def await_end(self, lane: str) -> None:
        """Poll until everything open has ended, and can be claimed again."""
        while any(batch.state is State.IN_PROGRESS for batch in self.batches(lane)):
            self.step(lane, State.IN_PROGRESS)
            time.sleep(0.1)
        time.sleep(LEASE)

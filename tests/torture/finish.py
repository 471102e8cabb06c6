"""The end of a run: trouble is taken away, everything is let finish, and a last prompt proves that every lane works."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import redis
from chaos import Chaos
from evidence import Billing, read_billing, read_leftovers, read_logs, read_rows, read_states, read_temporary
from producers import MARK, Producers
from stage import LANES, Stage
from verdict import Evidence

from worker.ledger.keys import Keys
from worker.sinks.file import STALE_SECONDS

END_STUCK_SECONDS = 2.0
HASTEN_SECONDS = 30.0


class Finish:
    """Ends one run and gathers the evidence. `patience` is the seconds after which what still goes on is stuck."""

    def __init__(self, stage: Stage, chaos: Chaos, producers: Producers, *, patience: float) -> None:
        self._stage = stage
        self._chaos = chaos
        self._producers = producers
        self._patience = patience
        self._keys = Keys("batchmill:")
        self.unclean: list[str] = []
        self.seconds = 0.0

    def run(self, allow_last: Callable[[], object]) -> Evidence:
        """Let everything finish; `allow_last` lets the producers enqueue their last prompts."""
        began = time.monotonic()
        self._chaos.end()
        self._until(self._all_up, began)
        self._until(self._chaos.healed, began)
        self._until(lambda: self._producers.done, began)
        self._let_finish(began)
        self._stop_daemons()
        stale = time.time() - STALE_SECONDS - 60
        for file in read_temporary(self._stage.results):
            os.utime(file, (stale, stale))
        allow_last()
        self._until(lambda: self._producers.done, began)
        self._let_finish(began)
        self._stop_daemons()
        self.seconds = time.monotonic() - began
        return self._gather()

    def _until(self, condition: Callable[[], object], began: float) -> bool:
        """Keep everybody on their feet until a condition holds."""
        while not condition():
            if time.monotonic() - began > self._patience:
                return False
            self._chaos.step()
            time.sleep(0.02)
        return True

    def _all_up(self) -> bool:
        processes = self._stage.processes()
        expected = len(self._stage.names) + 2
        return len(processes) == expected and all(process.alive for process in processes)

    def _let_finish(self, began: float) -> None:
        """Wait until nothing is left; the API ends stuck batches, and what was put off for long comes due."""
        ended_at = hastened_at = float("-inf")

        def rests() -> bool:
            nonlocal ended_at, hastened_at
            now = time.monotonic()
            if now - ended_at > END_STUCK_SECONDS:
                ended_at = now
                self._stage.ask_api("POST", "faults", [{"kind": "end_now"}])
            if now - hastened_at > HASTEN_SECONDS:
                hastened_at = now
                self._hasten()
            return self._is_idle()

        self._until(rests, began)

    def _hasten(self) -> None:
        """Let batches come due that trouble has put off for minutes: a claim is allowed at any time."""
        with suppress(redis.RedisError), self._stage.redis.client() as client:
            for lane in LANES:
                members: Any = client.zrange(self._keys.due(lane), 0, -1, withscores=True)
                due = {member: 0 for member, score in members if score != float("inf")}
                if due:
                    client.zadd(self._keys.due(lane), due, xx=True)

    def _is_idle(self) -> bool:
        with suppress(redis.RedisError), self._stage.redis.client() as client:
            return all(
                not client.xlen(self._keys.prompts(lane)) and not client.zcard(self._keys.due(lane)) for lane in LANES
            )
        return False

    def _stop_daemons(self) -> None:
        stopped = {name: process for name, process in self._stage.daemons.items() if process is not None}
        for process in stopped.values():
            process.signal(signal.SIGTERM)
        for name, process in stopped.items():
            in_time = process.gone(40.0)
            end = time.monotonic() + 1.0
            while process.pid not in self._stage.nursery.statuses and time.monotonic() < end:
                time.sleep(0.01)
            status = self._stage.nursery.statuses.pop(process.pid, None)
            if not in_time or status != 0:
                self.unclean.append(f"{name}: exit status {status}")
                process.signal(signal.SIGKILL)
            process.close()
            self._stage.daemons[name] = None

    def _gather(self) -> Evidence:
        stage = self._stage
        with stage.redis.client() as client:
            states = read_states(client, LANES)
            waiting = [(lane, client.xlen(self._keys.prompts(lane))) for lane in LANES]
            keys = read_leftovers(client)
            policy: Any = client.config_get("appendfsync")
            if policy.get("appendfsync") != "everysec":
                keys.append(f"appendfsync was left {policy.get('appendfsync')}")
        self._producers.stop()
        left = [f"process {pid}" for pid in stage.close()]
        return Evidence(
            asked=self._producers.asked,
            rows=read_rows(stage.results),
            billing=read_billing(stage.account, first_mark=MARK),
            stuck=[
                *(f"{lane}: {uid} is {state}" for lane, uid, state in states if state != "held"),
                *(f"{lane}: {many} prompts" for lane, many in waiting if many),
                *([] if self._producers.done else ["producers: not all prompts went in"]),
            ],
            held=[f"{lane}: {uid}" for lane, uid, state in states if state == "held"],
            leftover_keys=keys,
            leftover_files=[str(file) for file in read_temporary(stage.results)],
            leftover_processes=left,
            broken_logs=read_logs(stage.directory)[1],
            unclean_exits=self.unclean,
        )


def billing_line(billing: Billing) -> str:
    """Say in a line what the API has seen."""
    return (
        f"{billing.batches} batches of ours and {billing.strangers} of strangers over {billing.lives} lives of the "
        f"API, {billing.committed.total()} prompts committed, {billing.billed.total()} billed"
    )

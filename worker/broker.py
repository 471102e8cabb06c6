"""The broker for knocks: dramatiq's, hardened so that no trouble of Redis kills a thread of it.

A knock says "look at this batch" and is worth nothing by itself: lost, doubled or late ones are made good by the
lease. So nothing here is retried, delayed or kept for the dead.
"""

import time
from importlib.resources import files
from math import inf
from typing import Any

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker, _RedisConsumer
from dramatiq.errors import ConnectionClosed
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.connections import open_client
from worker.core.access import FROM_URL, RedisAccess

HEARTBEAT_MS = 15_000
DEAD_WORKER_MS = 120_000
IDLE_MS = 750
"""Longest pause of a queue without knocks between two looks."""

_TROUBLE = (redis.ConnectionError, redis.TimeoutError, redis.ResponseError)


class KnockConsumer(_RedisConsumer):
    """Turns every trouble of Redis into the one error that dramatiq's threads survive."""

    def __next__(self) -> Any:
        """Fetch the next knock, None when there is none now."""
        try:
            return super().__next__()
        except _TROUBLE as error:
            raise ConnectionClosed(error) from None

    def ack(self, message: Any) -> None:
        """Forget a knock that was followed."""
        try:
            super().ack(message)
        except _TROUBLE as error:
            raise ConnectionClosed(error) from None

    def nack(self, message: Any) -> None:
        """Forget a knock that failed: its batch comes due again."""
        self.ack(message)

    def requeue(self, messages: Any) -> None:
        """Put back what was fetched and not followed."""
        try:
            super().requeue(messages)
        except _TROUBLE as error:
            raise ConnectionClosed(error) from None


class KnockBroker(RedisBroker):
    """A RedisBroker without delay queues, whose script works on a full Redis, and that never runs KEYS.

    dramatiq finds orphans of dead workers by KEYS, which blocks Redis for a second per million keys (measured);
    `tidy` drops them by name instead, since their batches come due again anyway.
    """

    def __init__(self, *, url: str, prefix: str, access: RedisAccess = FROM_URL) -> None:
        client = open_client(
            url,
            prefix=prefix,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=5.0,
            socket_connect_timeout=2.0,
            health_check_interval=30,
            **access.options(url),
        )
        super().__init__(
            client=client,
            middleware=[],
            namespace=f"{prefix}{{knocks}}",
            heartbeat_timeout=HEARTBEAT_MS,
            maintenance_chance=0,
        )
        self._fetched: dict[str, set[bytes]] = {}
        self._beaten_at = -inf
        source = (files("dramatiq.brokers") / "redis" / "dispatch.lua").read_text("utf-8")
        self.scripts["dispatch"] = client.register_script("#!lua flags=allow-oom\n" + source)

    @property
    def consumer_class(self) -> type[KnockConsumer]:
        """The consumer that survives."""
        return KnockConsumer

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue, without the delay queue that dramatiq would add to it."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def enqueue(self, message: Any, *, delay: int | None = None) -> Any:
        """Send a knock. Raises dramatiq's ConnectionClosed when Redis is in trouble."""
        try:
            return super().enqueue(message, delay=delay)
        except _TROUBLE as error:
            raise ConnectionClosed(error) from None

    def do_fetch(self, queue_name: str, most: int) -> Any:
        """Fetch up to so many knocks; a consumer's own step.

        Where none wait, that is one command: dramatiq's script would take three to find nothing, and write a heartbeat.
        """
        now = time.monotonic()
        if now - self._beaten_at < HEARTBEAT_MS / 3000 and not self.client.llen(f"{self.namespace}:{queue_name}"):
            return []
        self._beaten_at = now
        return self._dispatch("fetch")(queue_name, most)

    def backlog(self, queue_name: str) -> int:
        """Return how many knocks nobody has fetched yet."""
        try:
            return int(self.client.llen(f"{self.namespace}:{queue_name}"))
        except _TROUBLE as error:
            raise ConnectionClosed(error) from None

    def tidy(self) -> int:
        """Forget workers that have not been heard of for two minutes and what they had fetched; returns how many.

        Also what this process fetched before the last time and never acknowledged: one of the replies was lost.
        """
        try:
            self._forget_lost()
            return self._tidy()
        except _TROUBLE as error:
            raise ConnectionClosed(error) from None

    def _forget_lost(self) -> None:
        """Forget our own old knocks; one that is still being followed needs its record no more than a lost one."""
        for queue in self.queues:
            acks = f"{self.namespace}:__acks__.{self.broker_id}.{queue}"
            fetched: Any = self.client.smembers(acks)
            lost = fetched & self._fetched.get(queue, set())
            if lost:
                self.client.hdel(f"{self.namespace}:{queue}.msgs", *lost)
                self.client.srem(acks, *lost)
            self._fetched[queue] = fetched - lost

    def _tidy(self) -> int:
        heartbeats = f"{self.namespace}:__heartbeats__"
        before = int(time.time() * 1000) - DEAD_WORKER_MS  # dramatiq stamps heartbeats with the workers' own clocks
        silent: Any = self.client.zrangebyscore(heartbeats, "-inf", before)
        dead = [worker.decode() for worker in silent]
        for worker in dead:
            for queue in self.queues:
                acks = f"{self.namespace}:__acks__.{worker}.{queue}"
                fetched = self.client.smembers(acks)
                if fetched:
                    self.client.hdel(f"{self.namespace}:{queue}.msgs", *fetched)
                self.client.delete(acks)
            self.client.zrem(heartbeats, worker)
        return len(dead)


def make_worker(broker: KnockBroker, *, queues: set[str], threads: int) -> dramatiq.Worker:
    """Build the in-process worker; it prefetches one knock per thread, since long ones must not hoard others."""
    worker = dramatiq.Worker(broker, queues=queues, worker_threads=threads, worker_timeout=IDLE_MS)
    worker.queue_prefetch = threads
    return worker

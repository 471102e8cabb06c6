"""Stores to test the ledger on, and shortcuts to a batch in the state that a test is about."""

import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from worker.core.grouping import Limits, Seal, Window, decide
from worker.core.model import Batch, Claim, RemoteBatch, RequestCounts, State
from worker.core.rulings import Ruling
from worker.embedded import EmbeddedServer, EmbeddedUnavailable
from worker.ledger.keys import PERMANENT, Keys
from worker.ledger.ledger import Ledger
from worker.ledger.store import LedgerRefusedError, Store

PREFIX = "batchmill:"
LANE = "default"
GOOD = b'{"model":"claude-haiku-4-5","max_tokens":10,"messages":[{"role":"user","content":"hi"}]}'
LIMITS = Limits(max_count=1000, max_bytes=1_000_000, max_age=300.0)
LANE_PERMANENT = ("prompts", "lane", "due", "fences", "settled", "dead", "unposted")
"""Keys of a lane that live as long as it does; what they hold dies with its batch or prompt (`ledger/keys.py`)."""


def wait_until(condition: Callable[[], object], description: str, *, seconds: float = 15.0) -> None:
    """Look every few milliseconds until `condition` holds, or fail."""
    give_up_at = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up_at:
            pytest.fail(f"still not after {seconds} s: {description}")
        threading.Event().wait(0.003)


def no_server(reason: str) -> None:
    """Skip on a laptop; a continuous integration without a server would test nothing and say it is well."""
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def real_server(directory: Path) -> Iterator[str]:
    """Start a real server with an append-only file; yields its URL."""
    program = shutil.which("redis-server")
    if program is None:
        with embedded_server(directory) as url:
            yield url
        return
    socket = directory / "s"
    command = [program, "--port", "0", "--unixsocket", str(socket), "--dir", str(directory)]
    command += ["--appendonly", "yes", "--save", "", "--daemonize", "no"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            with Redis(unix_socket_path=str(socket)) as client:
                wait_until(lambda: _answers(client), "redis-server answers")
            yield f"unix://{socket}"
        finally:
            process.terminate()


@contextmanager
def embedded_server(directory: Path) -> Iterator[str]:
    """Start the embedded Valkey; yields its URL."""
    try:
        server = EmbeddedServer.start(directory, max_memory_bytes=256 * 1024 * 1024)
    except EmbeddedUnavailable as error:
        no_server(f"there is no server to test on: {error}")
        raise
    with server:
        yield server.url


def _answers(client: "Redis") -> bool:
    with suppress(Exception):
        return bool(client.ping())
    return False


def incarnation_of(ledger: Ledger) -> str:
    """Return what the scripts see as the server's life; a fake has none that they could read."""
    try:
        return ledger.deployment.incarnation()
    except LedgerRefusedError:
        return "unknown"


def dump(store: Store) -> dict[str, Any]:
    """Return everything in Redis: each key's value and whether it will expire."""
    found: dict[str, Any] = {}
    for key in sorted(store.read("keys", "*")):
        kind = store.read("type", key).decode()
        read: dict[str, tuple[Any, ...]] = {
            "hash": ("hgetall", key),
            "zset": ("zrange", key, 0, -1, False, True),
            "stream": ("xrange", key),
            "set": ("smembers", key),
            "string": ("get", key),
        }
        found[key.decode()] = (store.read(*read[kind]), store.read("ttl", key) > 0)
    return found


def leaks(store: Store) -> list[str]:
    """Return what would stay in Redis for ever without a birth certificate in `ledger/keys.py`."""
    keys = Keys(PREFIX)
    names = [key.decode() for key in store.read("keys", "*")]
    found = [match[1] for name in names if (match := re.match(re.escape(PREFIX) + r"\{([^}]*)\}:", name))]
    allowed = {getattr(keys, noun) for noun in PERMANENT}
    strays = []
    for lane in set(found):
        due = {member.decode() for member in store.read("zrange", keys.due(lane), 0, -1)}
        fences = {member.decode() for member in store.read("hkeys", keys.fences(lane))}
        unposted = {member.decode() for member in store.read("zrange", keys.unposted(lane), 0, -1)}
        strays += [f"{uid} outlives its batch in {lane}" for uid in (fences | unposted) - due]
        strays += [f"{uid} is due in {lane} and has no record" for uid in due if keys.batch(lane, uid) not in names]
        allowed |= {getattr(keys, noun)(lane) for noun in LANE_PERMANENT}
        allowed |= {key(lane, uid) for uid in due for key in (keys.batch, keys.unusable)}
    return strays + [name for name in names if name not in allowed and store.read("ttl", name) == -1]


def settlement(entry_id: str, fate: str = "", attempt: int = 1, reason: str = "") -> tuple[str, Ruling]:
    """Say what becomes of an entry; without a fate it is done with."""
    return entry_id, Ruling(fate, reason, attempt)


def remote(name: str = "msgbatch_1", *, count: int = 3) -> RemoteBatch:
    """Build a remote batch that has just been created."""
    return RemoteBatch(
        id=name,
        status="in_progress",
        counts=RequestCounts(processing=count),
        created_at=1_795_348_800.0,
        expires_at=1_795_435_200.0,
    )


@dataclass(frozen=True)
class Rig:
    """A ledger with one recovered lane, and verbs that take a batch to the state a test is about."""

    ledger: Ledger
    lane: str = LANE

    @property
    def store(self) -> Store:
        """The store below the ledger."""
        return self.ledger.store

    @property
    def keys(self) -> Keys:
        """The names of its keys."""
        return self.ledger.store.keys

    def recover(self) -> None:
        """Let decisions through in this life of the server."""
        assert self.ledger.lanes.recovered(self.lane, incarnation_of(self.ledger), "none")

    def add(self, **fields: bytes | str) -> str:
        """Add one prompt to the lane as any producer would; returns its entry id."""
        entry = {"params": GOOD} | fields
        return str(self.store.write("xadd", self.keys.prompts(self.lane), entry).decode())

    def fill(self, count: int) -> list[str]:
        """Add prompts to the lane."""
        return [self.add() for _ in range(count)]

    def window(self, limits: Limits = LIMITS) -> Window:
        """Read the lane's window."""
        marks = self.ledger.lanes.marks(self.lane)
        window = Window(after=marks.cursor, limits=limits, incarnation=marks.incarnation)
        self.ledger.lanes.extend(self.lane, window)
        return window

    def decide(self, window: Window, *taken: int) -> Seal:
        """Decide to seal all of a window, or less of it to avoid the counts `taken`."""
        decision = decide(window, now=0.0, flush=True, taken=taken)
        assert isinstance(decision, Seal)
        return decision

    def try_seal(self, uid: str, window: Window, *, max_unposted: int = 8) -> str:
        """Commit a seal of all of a window."""
        return self.ledger.lanes.seal(self.lane, uid, window, self.decide(window), max_unposted=max_unposted)

    def seal(self, uid: str = "uid1", *, limits: Limits = LIMITS) -> Batch:
        """Seal the lane's window."""
        assert self.try_seal(uid, self.window(limits), max_unposted=1000) == "SEALED"
        return self.batch(uid)

    def sealed(self, count: int = 3, uid: str = "uid1") -> Batch:
        """Add prompts and seal them."""
        self.fill(count)
        return self.seal(uid)

    def batch(self, uid: str = "uid1") -> Batch:
        """Read a batch's record."""
        batch = self.ledger.batches.get(self.lane, uid)
        assert batch is not None
        return batch

    def claim(self, uid: str = "uid1") -> Claim:
        """Claim a batch, due or not."""
        self.store.write("zadd", self.keys.due(self.lane), {uid: 0})
        (claim,) = (one for one in self.ledger.batches.claim(self.lane, limit=100, lease=60.0) if one.uid == uid)
        return claim

    def due_in(self, uid: str = "uid1") -> float:
        """Return in how many seconds a batch comes due."""
        return float(self.store.read("zscore", self.keys.due(self.lane), uid)) / 1000 - self.store.now()

    def submit(self, batch: Batch, fence: str, *, head: str = "msgbatch_0") -> str:
        """Record the intent to post."""
        return self.ledger.batches.submit(
            batch, fence=fence, head=head, head_at=1_795_348_000.0, durably=lambda write: write(None)
        )

    def submitting(self, count: int = 3, uid: str = "uid1") -> Batch:
        """Add prompts, seal them and record the intent to post them."""
        batch = self.sealed(count, uid)
        assert self.submit(batch, self.claim(uid).fence) == "OK"
        return self.batch(uid)

    def accept(self, batch: Batch, answer: RemoteBatch | None = None) -> str:
        """Record the API's answer."""
        made = answer or remote(count=batch.count)
        return self.ledger.batches.accept(batch, batch.attempt, made, delay=30.0, workspace_id="wrkspc_1")

    def in_progress(self, count: int = 3, uid: str = "uid1") -> Batch:
        """Bring a batch as far as the API."""
        batch = self.submitting(count, uid)
        assert self.accept(batch, remote(f"msgbatch_{uid}", count=count)) == "OK"
        return self.batch(uid)

    def delivered(self, count: int = 3, uid: str = "uid1") -> tuple[Batch, Claim]:
        """Bring a batch to the point where its prompts are settled."""
        self.sealed(count, uid)
        return self.deliver(uid)

    def deliver(self, uid: str = "uid1") -> tuple[Batch, Claim]:
        """Take a sealed batch for delivered; whatever happens in between is not what the test is about."""
        self.put(uid, State.DELIVERED)
        self.store.write("zrem", self.keys.unposted(self.lane), uid)
        return self.batch(uid), self.claim(uid)

    def finish(self, batch: Batch, fence: str, *, retention: float = 60.0, dead_before: float = 0.0) -> str:
        """Settle whatever is left of a delivered batch, and close it."""
        left = [settlement(entry_id.decode()) for entry_id, _ in self.ledger.prompts.entries(batch)]
        self.ledger.prompts.settle(batch, left, fence=fence, now=0.0)
        return self.ledger.batches.finish(batch, fence=fence, retention=retention, dead_before=dead_before)

    def put(self, uid: str, state: State, **fields: str) -> Batch:
        """Write a state straight into a batch's record."""
        self.store.write("hset", self.keys.batch(self.lane, uid), mapping={"state": state.value, **fields})
        return self.batch(uid)

"""The rule set of deploy/redis, on a real server: enough for every job, and nothing beyond it."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from certificates import Certificates
from redis.exceptions import NoPermissionError
from rights import PASSWORDS, Watch, acl, allowed, default_user, denials, for_the_barrier, named_in_scripts, users
from security_rig import QUICK, Daemon, GuardedRedis, command, environment, guarded_redis, params, rows, wait_until

from worker.client import Producer, RedisAccess
from worker.ledger.scripts import read_scripts
from worker.simulator import Simulator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

STREAM = "batchmill:{default}:prompts"
UNSEEN = {"ping"}
"""Allowed although no job here needs it: redis-py asks a connection that was idle for 30 s whether it still stands."""

ASKED_IN_VAIN = {("batchmill", "config|get"), ("batchmill", "acl|getuser")}
"""How appendfsync is set: without an answer the operator's word (`redis.barrier`) holds. `check` asks for the other."""


@dataclass(slots=True)
class Job:
    """A deployment under the shipped users, TLS and all."""

    folder: Path
    server: GuardedRedis
    simulator: Simulator
    ca: Path
    expected: int = 0

    def access(self, user: str) -> RedisAccess:
        """Return how a user comes in."""
        return RedisAccess(user, PASSWORDS[user], tls_ca_file=str(self.ca))

    def client(self, user: str) -> Any:
        """Open a client of a user's own."""
        return redis.Redis.from_url(self.server.url, **self.access(user).options(self.server.url))

    def env(self, **settings: str) -> dict[str, str]:
        """Return the environment of the daemon and of an operator's commands."""
        (self.folder / "redis-password").write_text(PASSWORDS["batchmill"], "utf-8")
        redis_settings = {
            "redis.username": "batchmill",
            "redis.password_file": "redis-password",
            "redis.tls_ca_file": str(self.ca),
            "redis.barrier": "always",
        }
        more = {
            "REDIS_URL": self.server.url,
            "ANTHROPIC_BASE_URL": self.simulator.url,
            "ANTHROPIC_API_KEY": "sk-ant-least",
        }
        spelled = {name.replace("__", "."): value for name, value in settings.items()}
        return environment(QUICK | redis_settings | spelled, more)

    def produce(self, count: int) -> None:
        """Let both kinds of producers enqueue."""
        with Producer(self.server.url, access=self.access("enqueuer")) as enqueuer:
            for number in range(count):
                enqueuer.enqueue(json.loads(params()), id=f"e{self.expected}-{number}", metadata={"n": number})
        plain = self.client("producer")
        for number in range(count):
            plain.xadd(STREAM, {"params": params(), "id": f"p{self.expected}-{number}"})
        plain.close()
        self.expected += 2 * count

    def await_rows(self) -> None:
        """Wait for every prompt's row."""
        wait_until(lambda: len(rows(self.folder)) >= self.expected, description=f"{self.expected} rows")

    def operate(self, *words: str) -> Any:
        """Run an operator's command that has to succeed; returns what it printed as JSON."""
        ended = command(*words, "--json", folder=self.folder, env=self.env())
        assert ended.returncode == 0, (words, ended)
        return json.loads(ended.stdout)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    """A Redis with the shipped users, and an API."""
    folder = tmp_path_factory.mktemp("job")
    certificates = Certificates(folder)
    with (
        guarded_redis(
            folder / "redis", acl=acl(), default=default_user(), issued=certificates.issue("redis"), ca=certificates.ca
        ) as server,
        Simulator(ends_after=0.2, poll_hint=0) as simulator,
    ):
        server.admin.config_set("appendfsync", "always")
        yield Job(folder, server, simulator, certificates.ca)


@pytest.fixture(scope="module")
def used(job: Job) -> set[str]:
    """Do the main job, the operator's work, and what follows crashes; returns every command that took."""
    old_worker = "batchmill:{knocks}:__acks__.gone.submit"
    job.server.admin.zadd("batchmill:{knocks}:__heartbeats__", {"gone": 1})
    job.server.admin.sadd(old_worker, "a")
    job.server.admin.config_resetstat()
    watch = Watch(job.server)
    daemon = Daemon(folder=job.folder, env=job.env(anthropic__exclusive_workspace="true")).ready()
    try:
        _work(job)
        _operate(job)
    finally:
        assert daemon.stop() == 0, daemon.err
    assert not job.server.admin.exists(old_worker)
    _lose_redis(job, watch)
    return watch.end()


def _work(job: Job) -> None:
    """Everything that can become of a prompt: sent, in doubt, refused, retried, buried, unusable."""
    inject = job.simulator.control.inject
    inject({"kind": "commit_then_status", "on": "create", "status": 500})
    inject({"kind": "rows", "result": "errored", "error_type": "invalid_request_error", "fraction": 0.1})
    inject({"kind": "rows", "result": "errored", "error_type": "overloaded_error", "fraction": 0.1, "after": 1})
    inject({"kind": "status", "on": "create", "status": 400, "error_type": "invalid_request_error", "after": 1})
    inject({"kind": "status", "on": "create", "status": 401, "error_type": "authentication_error", "after": 4})
    plain = job.client("producer")
    plain.xadd(STREAM, {"params": "no JSON"})
    plain.close()
    job.expected += 1
    job.produce(20)
    job.await_rows()
    job.produce(5)
    job.await_rows()


def _operate(job: Job) -> None:
    """What a person does."""
    assert job.operate("status")["lanes"]
    job.operate("pause")
    (job.folder / "more.jsonl").write_text(params() + "\n", "utf-8")
    job.operate("enqueue", "more.jsonl")
    job.expected += 1
    job.operate("flush")
    job.operate("resume")
    job.await_rows()
    settled = job.operate("batches", "list", "--settled")
    job.operate("batches", "show", settled[0]["uid"])
    letters = job.operate("dead", "list")
    job.operate("dead", "show", letters[0]["letter_id"])
    redriven = next(letter for letter in letters if letter["reason"] == "invalid_request_error")
    job.operate("dead", "redrive", "--id", redriven["letter_id"])
    job.expected += 1
    job.await_rows()
    job.operate("dead", "drop", "--all", "--yes")
    job.operate("check")


def _lose_redis(job: Job, watch: Watch) -> None:
    """Redis dies under a worker without a barrier, while a batch is open: recovery by token."""
    daemon = Daemon(folder=job.folder, env=job.env(redis__barrier="none"), name="second").ready()
    try:
        job.simulator.control.inject({"kind": "stuck", "on": "create"})
        job.produce(3)
        wait_until(lambda: job.operate("batches", "list", "--state", "in_progress"), description="a batch is open")
        denied = denials(job.server)
        job.server.stop()
        job.server.start("--appendfsync", "always")
        watch.attached()
        job.simulator.control.end()
        job.await_rows()
        assert denied | denials(job.server) <= ASKED_IN_VAIN
    finally:
        assert daemon.stop() == 0, daemon.err


def test_the_whole_job_needs_no_right_that_is_not_given(job: Job, used: set[str]) -> None:
    """Both producers, the daemon, an operator, a restart of Redis and a recovery by token: every prompt has its row."""
    assert used
    assert len(rows(job.folder)) == job.expected
    assert job.simulator.control.ledger()["prompts_billed_twice"] == 0
    assert denials(job.server) <= ASKED_IN_VAIN


def test_no_right_is_given_that_nobody_needs(used: set[str]) -> None:
    """Each command of the rule set was seen at work, but those that are named with their reason."""
    assert set().union(*map(allowed, users())) - used == UNSEEN


def test_the_rights_for_the_barrier_are_just_what_it_takes(tmp_path: Path) -> None:
    """A daemon that may set appendfsync for the moment of a submission: with them nothing is asked in vain."""
    certificates = Certificates(tmp_path)
    rules = acl(*for_the_barrier())
    issued = certificates.issue("redis")
    with (
        guarded_redis(tmp_path / "redis", acl=rules, issued=issued, ca=certificates.ca) as server,
        Simulator(ends_after=0.1, poll_hint=0) as simulator,
    ):
        job = Job(tmp_path, server, simulator, certificates.ca)
        server.admin.config_resetstat()
        watch = Watch(server)
        daemon = Daemon(folder=tmp_path, env=job.env(redis__barrier="auto")).ready()
        try:
            job.produce(2)
            job.await_rows()
        finally:
            assert daemon.stop() == 0
        assert '"kind":"appendfsync"' in daemon.err
        assert denials(server) == set()
        assert {right.removeprefix("+") for right in for_the_barrier()} - watch.end() == set()


def test_every_command_of_a_script_is_allowed() -> None:
    """A rare branch must not be the first to find out."""
    assert named_in_scripts() <= {name.partition("|")[0] for name in allowed("batchmill")}


def test_the_enqueuer_may_run_the_scripts_that_are_shipped() -> None:
    """The rules name them by their digests."""
    texts = [read_scripts()[name].text.encode() for name in ("enqueue", "enroll")]
    digests = [hashlib.sha1(text, usedforsecurity=False).hexdigest() for text in texts]
    assert re.findall(r"evalsha\|(\w+)", users()["enqueuer"]) == digests


def test_without_a_password_nobody_comes_in(tmp_path: Path) -> None:
    """The file as it is shipped opens nothing."""
    acl = "".join(f"{line}\n" for line in users().values())
    with guarded_redis(tmp_path / "redis", acl=acl, default=default_user()) as server:
        for user in ("default", *users()):
            client = redis.Redis.from_url(server.url, username=user, password="")
            with pytest.raises((redis.AuthenticationError, redis.ResponseError)):
                client.ping()
            client.close()


FORBIDDEN = [
    f"XRANGE {STREAM} - +",
    f"XREVRANGE {STREAM} + -",
    f"XREAD STREAMS {STREAM} 0",
    f"XDEL {STREAM} 1-1",
    f"XTRIM {STREAM} MAXLEN 0",
    f"XINFO STREAM {STREAM}",
    f"DEL {STREAM}",
    f"UNLINK {STREAM}",
    f"SET {STREAM} x",
    f"GET {STREAM}",
    f"DUMP {STREAM}",
    f"COPY {STREAM} batchmill:{{default}}:id:x",
    f"RENAME {STREAM} batchmill:{{default}}:id:x",
    f"EXPIRE {STREAM} 0",
    f"SADD {STREAM} x",
    "XADD other:{default}:prompts * params {}",
    "XADD batchmill:{default}:dead * params {}",
    "HSET batchmill:deployment id x",
    "HGETALL batchmill:{default}:lane",
    "SMEMBERS batchmill:lanes",
    "SREM batchmill:lanes default",
    "SET batchmill:deployment x",
    "EVAL return(1) 0",
    "FCALL f 0",
    "FLUSHALL",
    "FLUSHDB",
    "KEYS *",
    "SCAN 0",
    "RANDOMKEY",
    "INFO",
    "CONFIG GET *",
    "ACL LIST",
    "MONITOR",
    "CLIENT LIST",
    "SHUTDOWN",
    "SUBSCRIBE a",
    "PUBLISH a b",
    "SELECT 1",
]


@pytest.mark.parametrize("user", ["producer", "enqueuer"])
def test_a_producer_can_do_nothing_but_enqueue(job: Job, user: str) -> None:
    """It reads no prompt, deletes none, and learns nothing of the server."""
    client = job.client(user)
    let_through = []
    for line in FORBIDDEN:
        try:
            client.execute_command(*line.split())
        except NoPermissionError:
            continue
        except redis.ConnectionError as error:
            pytest.fail(f"{line}: {error}")
        let_through.append(line)
    job.server.admin.acl_log_reset()
    client.close()
    assert let_through == []


def test_no_rule_keeps_a_producer_from_trimming(job: Job) -> None:
    """What docs/security.md admits: should Redis learn to forbid it, the rule set has to."""
    client = job.client("producer")
    client.xadd("batchmill:{trimmed}:prompts", {"params": "a"})
    client.execute_command("XADD", "batchmill:{trimmed}:prompts", "MAXLEN", 0, "*", "params", "b")
    assert job.server.admin.xlen("batchmill:{trimmed}:prompts") == 0
    client.close()


def test_an_enqueuer_runs_no_script_of_its_own(job: Job) -> None:
    """It may load one, since the server forgets ours when it is restarted, but not run it."""
    client = job.client("enqueuer")
    digest = client.script_load("while true do end")
    with pytest.raises(NoPermissionError):
        client.evalsha(digest, 0)
    client.close()
    job.server.admin.acl_log_reset()


def test_the_daemon_reads_no_other_keys_and_no_settings(job: Job) -> None:
    """A Redis that is shared stays shared; a leaked password of the daemon gives nobody the server."""
    client = job.client("batchmill")
    for line in (
        "GET other",
        "CONFIG GET requirepass",
        "CONFIG SET dir /",
        "FLUSHALL",
        "KEYS *",
        "ACL LIST",
        "SHUTDOWN",
    ):
        with pytest.raises(NoPermissionError):
            client.execute_command(*line.split())
    client.close()
    job.server.admin.acl_log_reset()

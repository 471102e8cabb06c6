import json
import random
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from evidence import Billing, read_billing, read_leftovers, read_logs, read_rows, read_states, read_temporary
from processes import RedisProcess
from producers import MARK, Prompt, write
from verdict import Evidence, judge

from worker.simulator import Simulator

CHANCE = random.Random(5)
PROMPTS = [write(number, CHANCE) for number in range(6)]
LOST = "lost: prompts without a row"
DOUBLED = "doubled: prompts with more than one row"
PAID_TWICE = "paid twice: prompts billed more than once"
FOREIGN = "foreign: rows or bills that nobody asked for"
MIXED_UP = "mixed up: rows with another prompt's answer or metadata"
UNDELIVERED = "paid for, and no answer delivered"
UNPAID = "delivered an answer that was not paid for"


class Scene:
    """What a run leaves on disk: an account of the API that has answered six prompts, and a file with their rows."""

    def __init__(self, directory: Path) -> None:
        self.account, self.results = directory / "account", directory / "results"
        self.results.mkdir()
        self.pay(PROMPTS)
        self.write("first", [row(prompt) for prompt in PROMPTS])

    def pay(self, prompts: list[Prompt], uid: str = "k7m2q9x4t8w1z3b5") -> None:
        """Let the API process prompts of ours once (more)."""
        with Simulator(keep=self.account, ends_after=0.0) as simulator:
            requests = [
                {"custom_id": f"abcdef_{uid}_01_1-{prompt.number}", "params": json.loads(prompt.params)}
                for prompt in prompts
            ]
            headers = {"x-api-key": "sk-ant-x", "anthropic-version": "2026-10-21"}
            body = json.dumps({"requests": requests}).encode()
            asked = urllib.request.Request(f"{simulator.url}/v1/messages/batches", data=body, headers=headers)  # noqa: S310  # ours
            urllib.request.urlopen(asked).close()  # noqa: S310  # our own

    def write(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Write a result file."""
        (self.results / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))

    def found(self) -> set[str]:
        """Judge; returns the kinds of failure that were found."""
        evidence = Evidence(
            asked={prompt.id: prompt for prompt in PROMPTS},
            rows=read_rows(self.results),
            billing=read_billing(self.account, first_mark=MARK),
        )
        verdict = judge(evidence)
        shown = {name for name, failures in verdict.failures.items() if failures}
        assert verdict.good == (not shown)
        assert all(name in "\n".join(verdict.lines()) for name in shown)
        return shown


def row(prompt: Prompt, **changes: Any) -> dict[str, Any]:
    """Write the row that the file sink would have for a prompt."""
    text = f"A simulated answer to {len(prompt.params)} bytes of params, CRC-32 {prompt.checksum:08x}. And more."
    message = {"content": [{"type": "text", "text": text}]}
    result = {"type": "succeeded", "message": message}
    tree = {"id": prompt.id, "custom_id": "x", "metadata": {"n": prompt.number}, "result": result}
    return tree | changes


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A run that went well."""
    return Scene(tmp_path)


def test_a_run_that_went_well_has_no_failures(scene: Scene) -> None:
    """Every prompt has one row, which the API was paid for once."""
    assert scene.found() == set()


def test_a_lost_row_is_seen(scene: Scene) -> None:
    """A prompt without a row, which was paid for all the same."""
    scene.write("first", [row(prompt) for prompt in PROMPTS[1:]])
    assert scene.found() == {LOST, UNDELIVERED}


def test_a_doubled_row_is_seen(scene: Scene) -> None:
    """Also across files."""
    scene.write("second", [row(PROMPTS[3])])
    assert scene.found() == {DOUBLED}


def test_a_prompt_that_was_paid_twice_is_seen(scene: Scene) -> None:
    """Whatever token the second batch carries: the prompt itself is marked."""
    scene.pay(PROMPTS[2:4], uid="zzzzzzzzzzzzzzzz")
    assert scene.found() == {PAID_TWICE}


@pytest.mark.parametrize("kind", ["errored", "expired", "canceled"])
def test_an_answer_that_was_paid_for_and_thrown_away_is_seen(scene: Scene, kind: str) -> None:
    """The row says that it failed, the API says that it did not."""
    rows = [row(prompt) for prompt in PROMPTS]
    scene.write("first", [*rows[1:], row(PROMPTS[0], result={"type": kind})])
    assert scene.found() == {UNDELIVERED}


def test_an_answer_that_nobody_paid_for_is_seen(scene: Scene) -> None:
    """The account knows nothing of it."""
    shutil.rmtree(scene.account)
    scene.pay(PROMPTS[1:])
    assert scene.found() == {UNPAID}


def test_a_row_that_nobody_asked_for_is_seen(scene: Scene) -> None:
    """A stranger's result must not come out of our sink."""
    scene.write("second", [row(PROMPTS[0], id="stranger-0")])
    assert scene.found() == {FOREIGN}


@pytest.mark.parametrize(
    "changes", [{"metadata": {"n": 5}}, {"metadata": None}, {"result": row(PROMPTS[1])["result"]}], ids=str
)
def test_an_answer_to_another_prompt_is_seen(scene: Scene, changes: dict[str, Any]) -> None:
    """The answer quotes the checksum of what was asked, the metadata its number."""
    scene.write("first", [row(PROMPTS[0], **changes), *(row(prompt) for prompt in PROMPTS[1:])])
    assert scene.found() == {MIXED_UP}


def test_what_was_never_finished_is_a_failure() -> None:
    """Everything that is only gathered counts as well."""
    nothing = Billing()
    for name in ("stuck", "held", "leftover_keys", "leftover_files", "leftover_processes", "broken_logs"):
        assert not judge(Evidence(asked={}, rows=[], billing=nothing, **{name: ["something"]})).good
    assert not judge(Evidence(asked={}, rows=[], billing=nothing, unclean_exits=["something"])).good
    assert judge(Evidence(asked={}, rows=[], billing=nothing)).good


@pytest.fixture
def server(tmp_path: Path, needs_redis: None) -> Iterator[redis.Redis]:  # noqa: ARG001  # skips
    """A real Redis, empty."""
    process = RedisProcess(tmp_path / "redis")
    process.start()
    with process.client() as client:
        yield client
    process.close()


def allowed(client: Any) -> None:
    """Leave what may be left when all is settled."""
    client.hset("batchmill:deployment", "id", "abcdef")
    client.sadd("batchmill:lanes", "default")
    client.hset("batchmill:waiting", "total", "0")
    client.hset("batchmill:{default}:lane", "cursor", "1-1")
    client.zadd("batchmill:{default}:settled", {"uid": 1})
    client.xadd("batchmill:{default}:dead", {"id": "x"})
    client.set("batchmill:{default}:batch:uid", "x", ex=60)
    client.set("batchmill:{default}:id:name:with:colons", "x", ex=60)
    client.set("batchmill:{default}:remote:msgbatch_1", "x", ex=60)
    client.xdel("batchmill:{default}:prompts", client.xadd("batchmill:{default}:prompts", {"id": "x"}))
    client.zadd("batchmill:{knocks}:__heartbeats__", {"worker": client.time()[0] * 1000})
    client.sadd("batchmill:{knocks}:__acks__.worker.drain", "x")


LEFT: dict[str, Callable[[Any], Any]] = {
    "stranger": lambda client: client.set("something", "x", ex=60),
    "batchmill:in_flight": lambda client: client.hset("batchmill:in_flight", "default uid", "3"),
    "batchmill:barrier_mark": lambda client: client.set("batchmill:barrier_mark", "everysec"),
    "prompts": lambda client: client.xadd("batchmill:{default}:prompts", {"id": "x"}),
    "due": lambda client: client.zadd("batchmill:{default}:due", {"uid": 1}),
    "fences": lambda client: client.hset("batchmill:{default}:fences", "uid", "1"),
    "unposted": lambda client: client.zadd("batchmill:{default}:unposted", {"uid": 1}),
    "batch without an end": lambda client: client.hset("batchmill:{default}:batch:other", "state", "sealed"),
    "unusable without an end": lambda client: client.hset("batchmill:{default}:unusable:other", "1-1", "x"),
    "id without an end": lambda client: client.set("batchmill:{default}:id:other", "1-1"),
    "remote without an end": lambda client: client.set("batchmill:{default}:remote:other", "uid"),
    "unknown, though it ends": lambda client: client.set("batchmill:{default}:novel:other", "uid", ex=60),
    "knocks": lambda client: client.rpush("batchmill:{knocks}:drain", "x"),
    "acks of nobody": lambda client: client.sadd("batchmill:{knocks}:__acks__.other.drain", "x"),
    "heartbeats": lambda client: client.zadd("batchmill:{knocks}:__heartbeats__", {"worker": 1}),
}


def test_what_may_remain_is_no_leftover(server: redis.Redis) -> None:
    """Records with an end of life, the lane's marks, dead letters."""
    allowed(server)
    assert read_leftovers(server) == []


@pytest.mark.parametrize("name", LEFT)
def test_a_leftover_key_is_seen(server: redis.Redis, name: str) -> None:
    """One complaint for each key that should be gone, or should end."""
    allowed(server)
    LEFT[name](server)
    assert len(read_leftovers(server)) == 1


def test_a_batch_that_is_stuck_or_held_is_seen(server: redis.Redis) -> None:
    """By what Redis still has to look at."""
    client: Any = server
    client.zadd("batchmill:{default}:due", {"one": 1, "other": "+inf"})
    client.hset("batchmill:{default}:batch:one", mapping={"state": "submitting", "doubt": "lost"})
    client.hset("batchmill:{default}:batch:other", mapping={"state": "held", "reason": "gone"})
    found = read_states(server, ["default", "bulk"])
    assert [(lane, state) for lane, _, state in found] == [("default", "submitting"), ("default", "held")]
    assert "doubt=lost" in found[0][1]
    assert "reason=gone" in found[1][1]


def test_temporary_files_and_broken_logs_are_seen(tmp_path: Path) -> None:
    """A delivery that never ended, an exception that nobody foresaw."""
    (tmp_path / "results" / "default").mkdir(parents=True)
    (tmp_path / "results" / "default" / ".uid.0123456789abcdef.tmp").touch()
    (tmp_path / "daemon-0.log").write_text(
        '{"timestamp":1,"event":"batch.sealed","lane":"default"}\n'
        '{"timestamp":1,"event":"doubt.resolved","resolution":"adopted"}\n'
        '{"timestamp":1,"event":"Restarting consumer in 3.0 seconds."}\n'
        '{"timestamp":1,"level":"error","event":"role.failed","role":"drainer"}\nTraceback (most recent call last):\n'
    )
    assert len(read_temporary(tmp_path / "results")) == 1
    told, broken = read_logs(tmp_path)
    events = ("batch.sealed", "doubt.resolved adopted", "dramatiq: Restarting consumer in", "role.failed")
    assert told == dict.fromkeys(events, 1)
    assert len(broken) == 2

"""Nothing that a daemon writes, answers or leaves behind holds a secret or a prompt, whatever happens to it."""

import json
import resource
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from canaries import (
    CONTENT,
    KEY,
    METADATA,
    PRODUCER,
    PROMPT,
    QUOTE,
    REDIS_PASSWORD,
    SECRETS,
    TOKEN,
    files_below,
    params,
    seen_in,
)
from security_rig import QUICK, Daemon, GuardedRedis, environment, guarded_redis, series, wait_until

from worker.simulator import Simulator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

STREAM = "batchmill:{default}:prompts"
BY_RIGHT = ("results", "redis", "secrets", "given")
REFUSALS = (400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 503, 504, 529)


@dataclass(slots=True)
class Scene:
    """A daemon with canaries in all its pockets, and everything it answered and printed."""

    folder: Path
    server: GuardedRedis
    simulator: Simulator
    daemon: Daemon
    env: dict[str, str]
    answers: list[str] = field(default_factory=list)
    listed: list[str] = field(default_factory=list)
    proc: dict[str, bytes] = field(default_factory=dict)

    def wait_event(self, event: str, *, more_than: int = 0) -> None:
        """Wait until the log holds a line of this event, more often than so many times."""
        sought = f'"event":"{event}"'
        wait_until(lambda: self.daemon.err.count(sought) > more_than, description=f"the log tells of {event}")

    def ask(self) -> None:
        """Keep every answer of the ops endpoints."""
        for path in ("/", "/livez", "/readyz", "/metrics", "/statusz", f"/{PROMPT[:0]}nothing"):
            self.answers += [str(self.daemon.get(path)), str(self.daemon.get(path, Authorization=f"Bearer {TOKEN}"))]

    def command(self, *commands: tuple[str, ...]) -> None:
        """Keep what commands say."""
        self.listed.append(series(*commands, folder=self.folder, env=self.env))

    def add(self, **fields: Any) -> None:
        """XADD an entry of these fields."""
        self.server.admin.xadd(STREAM, fields)

    def idle(self) -> bool:
        """Whether everything that was added is settled."""
        return not self.server.admin.xlen(STREAM) and not self.server.admin.zcard("batchmill:{default}:due")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Drive a daemon at DEBUG through all that can go wrong, then let it crash."""
    folder = tmp_path_factory.mktemp("scene")
    secrets = folder / "secrets"
    for name in ("secrets", "given", "tmp", "home"):
        (folder / name).mkdir()
    for name, secret in (("key", KEY), ("redis", REDIS_PASSWORD), ("token", TOKEN)):
        (secrets / name).write_text(secret, "utf-8")
    settings = QUICK | {
        "log.level": "debug",
        "log.format": "json",
        "anthropic.api_key_file": str(secrets / "key"),
        "redis.username": "mill",
        "redis.password_file": str(secrets / "redis"),
        "redis.barrier": "none",
        "http.bind": "0.0.0.0",  # noqa: S104 - so that the token matters
        "http.token_file": str(secrets / "token"),
        "lanes.default.max_count": "5",
        "submit.horizon": "300ms",
        "submit.overload_horizon": "100ms",
        "submit.reconcile_interval": "50ms",
        "park.probe": "100ms",
        "lanes.default.max_attempts": "2",
    }
    acl = f"user mill on >{REDIS_PASSWORD} ~* &* +@all\n"
    with (
        guarded_redis(folder / "redis", acl=acl) as server,
        Simulator(ends_after=0.1, poll_hint=0, workspaces={KEY: "wrkspc_canary"}) as simulator,
    ):
        more = {
            "REDIS_URL": server.url,
            "ANTHROPIC_BASE_URL": simulator.url,
            "ANTHROPIC_LOG": "debug",
            "PYTHONWARNINGS": "always",
            "TMPDIR": str(folder / "tmp"),
            "HOME": str(folder / "home"),
        }
        env = environment(settings, more)
        daemon = Daemon(folder=folder, env=env, preexec_fn=_ask_for_cores).ready()
        made = Scene(folder, server, simulator, daemon, env)
        try:
            _drive(made)
            yield made
        finally:
            daemon.close()


def _ask_for_cores() -> None:
    """Be a machine whose crashes leave core files."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


def _drive(scene: Scene) -> None:
    pid = scene.daemon.process.pid
    scene.proc = {name: Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ", "comm", "limits")}
    _unusable_prompts(scene)
    _a_careless_api(scene)
    scene.ask()
    _commands(scene)
    _redis_in_trouble(scene)
    _what_nobody_foresaw(scene)
    scene.ask()
    scene.daemon.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: "Current thread" in scene.daemon.err, description="the stacks are dumped")
    scene.daemon.process.send_signal(signal.SIGHUP)
    scene.wait_event("config.reloaded")
    scene.daemon.process.send_signal(signal.SIGSEGV)
    assert scene.daemon.wait() == -signal.SIGSEGV


def _unusable_prompts(scene: Scene) -> None:
    """Each is refused for a reason, and the reason is no quotation."""
    deep = "[" * 200 + "]" * 200
    scene.add(params=PROMPT)
    scene.add(params=f'["{PROMPT}"]', id=PRODUCER)
    scene.add(params=json.dumps({"messages": [PROMPT]}))
    scene.add(params=params(stream=True))
    scene.add(params=params(max_tokens=PROMPT))
    scene.add(params=params()[:-1] + f',"x":{deep}}}')
    scene.add(params=params().encode() + b"\xff")
    scene.add(params=params(), metadata=f"{{{METADATA}")
    scene.add(params=params(), id=PRODUCER * 40)
    scene.add(params=params(), deadline=METADATA)
    scene.add(params=params(), traceparent=METADATA, reply_to=METADATA + " /")
    scene.add(**{PROMPT: METADATA})
    wait_until(scene.idle, description="the unusable prompts are settled")
    scene.wait_event("prompts.refused")


def _a_careless_api(scene: Scene) -> None:
    """Whatever it says, it quotes prompt and key: in messages, types, bodies, lines."""
    inject = scene.simulator.control.inject
    for status in REFUSALS:
        for kind in ("status", "commit_then_status"):
            if kind == "commit_then_status" and status < 500:
                continue
            inject({"kind": kind, "on": "create", "status": status, "message": QUOTE, "error_code": None})
            scene.add(params=params(), id=PRODUCER, metadata=json.dumps(METADATA))
            wait_until(scene.idle, description=f"settled after {kind} {status}")
    bodies = ({"body": QUOTE}, {"body": json.dumps({"id": QUOTE, "type": QUOTE, "error": {"type": QUOTE}})})
    shapes: list[dict[str, Any]] = [
        *({"kind": "garbage", "on": on, **body} for on in ("create", "list", "retrieve", "results") for body in bodies),
        *({"kind": "status", "on": on, "status": 500, "message": QUOTE} for on in ("list", "retrieve", "results")),
        {"kind": "status", "on": "create", "status": 400, "error_type": QUOTE, "message": "no", "error_code": QUOTE},
        {"kind": "rows", "result": "errored", "error_type": "api_error", "message": QUOTE, "fraction": 1.0},
        {"kind": "rows", "result": "errored", "error_type": QUOTE, "message": QUOTE, "fraction": 1.0, "times": 2},
        {"kind": "rows", "result": "errored", "error_type": "invalid_request_error", "message": QUOTE, "fraction": 1.0},
        {"kind": "drop_reply", "on": "create"},
        {"kind": "reset_before", "on": "create"},
        {"kind": "duplicate_line", "on": "results"},
        {"kind": "foreign_line", "on": "results"},
        {"kind": "cut_results", "on": "results", "mid_line": True},
    ]
    for fault in shapes:
        inject({"times": 1, **fault})
        scene.add(params=params(), id=PRODUCER, metadata=json.dumps(METADATA))
        wait_until(scene.idle, description=f"settled after {fault}")
    for event in ("submission.refused", "submission.doubted", "lane.parked", "results.truncated"):
        scene.wait_event(event)


def _commands(scene: Scene) -> None:
    """What a person looks at; only `dead show` is asked for a prompt."""
    lines = [
        PROMPT,
        json.dumps([PROMPT]),
        json.dumps({"params": {"stream": PROMPT}}),
        json.dumps({"params": {}, "id": 7}),
    ]
    (scene.folder / "given" / "bad.jsonl").write_text("\n".join(lines), "utf-8")
    (scene.folder / "given" / "good.jsonl").write_text(params(), "utf-8")
    uid = scene.server.admin.zrange("batchmill:{default}:settled", 0, 0)[0].decode()
    scene.command(
        ("status",),
        ("status", "--json"),
        ("top",),
        ("batches", "list", "--settled", "--json"),
        ("batches", "list", "--settled"),
        ("batches", "show", uid),
        ("batches", "show", uid, "--json"),
        ("dead", "list"),
        ("dead", "list", "--json"),
        ("dead", "drop", "--all"),
        ("check",),
        ("check", "--json"),
        ("enqueue", "given/bad.jsonl"),
    )
    scene.simulator.control.inject({"kind": "status", "on": "list", "status": 401, "message": QUOTE})
    scene.command(("check",))


def _redis_in_trouble(scene: Scene) -> None:
    """Full, frozen for a while, refusing, and gone."""
    admin = scene.server.admin
    used = admin.info("memory")["used_memory"]
    admin.config_set("maxmemory", max(1, used // 2))
    scene.command(("enqueue", "given/bad.jsonl"), ("enqueue", "given/good.jsonl"), ("status",))
    scene.ask()
    admin.config_set("maxmemory", 0)
    scene.server.stop()
    scene.wait_event("redis.lost")
    scene.ask()
    scene.command(("status",), ("enqueue", "given/good.jsonl"))
    scene.server.start()
    scene.add(params=params(), id=PRODUCER)
    wait_until(scene.idle, description="settled after a restart of Redis")


def _what_nobody_foresaw(scene: Scene) -> None:
    """Data of ours that somebody else has written: each role meets it in its own way."""
    admin = scene.server.admin
    admin.hset("batchmill:{broken}:lane", mapping={"cursor": PROMPT, "parked": PROMPT})
    admin.hset("batchmill:{knocks}:submit.msgs", PROMPT, PROMPT)
    admin.rpush("batchmill:{knocks}:submit", PROMPT)
    for number, state in enumerate(("sealed", "submitting", "in_progress", "ended", "delivered", PROMPT)):
        admin.hset(f"batchmill:{{broken}}:batch:x{number}", mapping={"state": state, "first": PROMPT, "count": QUOTE})
        admin.zadd("batchmill:{broken}:due", {f"x{number}": 1})
    admin.hset("batchmill:in_flight", PROMPT, METADATA)
    admin.set("batchmill:waiting", PROMPT)
    admin.sadd("batchmill:lanes", "broken")
    before = scene.daemon.err.count('"event":"role.failed"')
    scene.wait_event("role.failed", more_than=before + 3)
    scene.ask()
    scene.command(("status",), ("batches", "list", "--lane", "broken"))


def test_the_log_holds_no_canary_whatever_happens(scene: Scene) -> None:
    """At DEBUG, with the SDK's own log asked for: neither secrets nor prompts, nor what a producer calls them."""
    assert scene.daemon.err.count("\n") > 500
    assert seen_in([scene.daemon.err, scene.daemon.out]) == set()


def test_no_answer_over_http_holds_a_canary(scene: Scene) -> None:
    """Metrics, status, health and refusals."""
    assert any("batchmill_prompts_buried_total" in answer for answer in scene.answers)
    assert any("200" in answer and '"lanes"' in answer for answer in scene.answers)
    assert seen_in(scene.answers) == set()


def test_no_command_shows_a_prompt_unasked(scene: Scene) -> None:
    """Lists show whose prompt it was, by the producer's own name for it; its words are shown by `dead show` alone."""
    assert any(PRODUCER in listed for listed in scene.listed)
    assert seen_in(scene.listed, but=[PRODUCER]) == set()


def test_no_file_is_left_that_holds_a_canary(scene: Scene) -> None:
    """Beside results, Redis' data and the files of secrets themselves; the folder for temporary files is looked at."""
    left = files_below(scene.folder, but=BY_RIGHT)
    assert {name: seen_in([text]) for name, text in left.items() if seen_in([text])} == {}


def test_a_crash_leaves_no_core_file(scene: Scene) -> None:
    """Its memory held everything; the machine was asked for one."""
    assert b"Max core file size        0 " in scene.proc["limits"]
    assert [path.name for path in scene.folder.rglob("core*")] == []


def test_nothing_stands_in_the_process_table(scene: Scene) -> None:
    """With secrets in files neither the command line nor the environment holds one."""
    assert seen_in(scene.proc.values()) == set()


def test_knocks_hold_no_prompt(scene: Scene) -> None:
    """What dramatiq keeps are names of batches; the canary that the scene itself has put there is gone."""
    admin = scene.server.admin
    kept: list[bytes] = []
    for key in admin.scan_iter("batchmill:{knocks}*"):
        match admin.type(key):
            case b"hash":
                kept += [word for pair in admin.hgetall(key).items() for word in pair]
            case b"list":
                kept += admin.lrange(key, 0, -1)
            case b"set":
                kept += admin.smembers(key)
    assert seen_in([word for word in kept if word != PROMPT.encode()]) == set()


def test_a_dead_letters_reason_is_a_word(scene: Scene) -> None:
    """Whatever the API called it."""
    letters = scene.server.admin.xrange("batchmill:{default}:dead", "-", "+")
    reasons = {fields[b"batchmill.reason"] for _, fields in letters}
    assert len(reasons) > 3
    assert seen_in(reasons) == set()
    assert not [reason for reason in reasons if b" " in reason]


def test_the_canaries_were_there(scene: Scene) -> None:
    """The results are the customer's: there each is found, or this whole file would prove nothing."""
    results = b"".join(path.read_bytes() for path in (scene.folder / "results").rglob("*.jsonl"))
    assert seen_in([results]) >= {METADATA, PRODUCER}
    assert seen_in([scene.server.admin.get("batchmill:waiting") or b"", *SECRETS, *CONTENT]) == {*SECRETS, *CONTENT}

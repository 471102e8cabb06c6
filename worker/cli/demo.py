"""`batchmill demo`: the main job end to end on this machine, without a key and without a Redis."""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.cli.settings import EX_FAILED, EX_OK, EX_UNAVAILABLE, complain

if TYPE_CHECKING:
    from worker.ledger.ledger import Ledger

LANE = "demo"
DIRECTORY = Path(".batchmill/demo")
RESULTS = Path("results") / LANE
MOST = 1_000_000
PATIENCE = 300.0
"""Seconds without any progress after which the demo gives up and shows the daemon's log."""

EPILOG = """\
example:
  batchmill demo --count 5000
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the `demo` command."""
    parser = subparsers.add_parser(
        "demo",
        help="everything on this machine, without a key or a Redis",
        description="Run real text through an embedded Redis, the daemon and the simulator, and leave result files.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--count", type=_count, default=2000, metavar="N", help="prompts to send (default: 2000)")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Run the demo; returns 0 when every prompt has its row, 1 otherwise, 69 without a server to embed."""
    from worker.embedded import EmbeddedFailed, EmbeddedServer, EmbeddedUnavailable
    from worker.ledger.ledger import Ledger
    from worker.ledger.store import Store

    DIRECTORY.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(EmbeddedServer.start(DIRECTORY.resolve(), max_memory_bytes=1 << 30))
        except (EmbeddedUnavailable, EmbeddedFailed) as error:
            return complain(str(error), EX_UNAVAILABLE)
        ledger = Ledger.over(Store.connect(server.url, "batchmill:"))
        stack.callback(ledger.store.close)
        log = stack.enter_context((DIRECTORY / "daemon.log").open("w", encoding="utf-8"))
        api = stack.enter_context(_process(["simulate", "--port", "0", "--json", "--seed", _seed()], {}, log))
        api_url = str(json.loads(_first_line(api))["url"])
        daemon = stack.enter_context(_process(["run"], _settings(server.url, api_url), log))
        ops_url = _first_line(daemon)
        if not ops_url:
            return complain(f"the daemon did not start; see {DIRECTORY / 'daemon.log'}", EX_FAILED)
        print(f"Redis      an embedded server in {DIRECTORY}/")
        print(f"API        the simulator on {api_url}")
        print(f"daemon     process {daemon.pid}, metrics on {ops_url}/metrics")
        before = set(RESULTS.glob("*.jsonl"))
        left = ledger.lanes.length(LANE)
        if left:
            print(f"           and {left} prompts that an earlier run left behind")
        done = _follow(ledger, server.url, args.count, left, daemon)
        return _tell(done, args.count + left, sorted(set(RESULTS.glob("*.jsonl")) - before), time.monotonic() - began)


def _follow(ledger: "Ledger", url: str, new: int, left: int, daemon: "subprocess.Popen[str]") -> bool:
    """Enqueue the prompts and show how they fare; True when the lane is empty again."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from worker.client import Producer
    from worker.core.model import State

    count = new + left
    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as bars, Producer(url, lane=LANE) as producer:
        steps = {name: bars.add_task(name, total=count) for name in ("enqueued", "submitted", "settled")}
        bars.advance(steps["enqueued"], left)
        producer.enqueue_many(_prompts(new), tell=lambda _: bars.advance(steps["enqueued"]))
        settled, moved_at = -1, time.monotonic()
        while settled < count and time.monotonic() - moved_at < PATIENCE and daemon.poll() is None:
            lane = ledger.reads.figures([LANE], {}).lanes[0]
            live = ledger.batches.get_many([(LANE, uid) for uid in ledger.batches.live(LANE)])
            waiting = lane.depth + sum(b.count for b in live if b.state in (State.SEALED, State.SUBMITTING))
            unsettled = ledger.lanes.length(LANE)
            if count - unsettled != settled:
                settled, moved_at = count - unsettled, time.monotonic()
            bars.update(steps["submitted"], completed=max(0, count - waiting))
            bars.update(steps["settled"], completed=max(0, settled))
            time.sleep(0.1)
    return settled >= count


def _tell(done: bool, count: int, files: list[Path], seconds: float) -> int:  # noqa: FBT001 - it is the outcome
    rows: dict[str, int] = {}
    example: dict[str, Any] | None = None
    ids: set[str] = set()
    for file in files:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                rows[row["result"]["type"]] = rows.get(row["result"]["type"], 0) + 1
                ids.add(row["id"])
                example = example or row
    total = sum(rows.values())
    outcomes = ", ".join(f"{number} {kind}" for kind, number in sorted(rows.items()))
    print(f"{count} prompts in, {total} rows out ({outcomes or 'none'}), {len(ids)} distinct ids, {seconds:.1f} s")
    if files:
        plural = "" if len(files) == 1 else "s"
        print(f"results    {len(files)} file{plural} in {RESULTS}/, the first is {files[0]}")
    if example and example["result"]["type"] == "succeeded":
        print(f"for one    {example['id']}: {example['result']['message']['content'][0]['text'][:100]}…")
    if done and total == count == len(ids):
        return EX_OK
    return complain(f"not every prompt has its one row; the daemon's log is {DIRECTORY / 'daemon.log'}", EX_FAILED)


def _prompts(count: int) -> Iterator[dict[str, Any]]:
    """Yield prompts made of the docstrings of Python's standard library, which every machine has."""
    import ast
    import sysconfig

    made = 0
    while made < count:
        for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
            try:
                tree = ast.parse(path.read_text("utf-8"))
            except (SyntaxError, UnicodeDecodeError):
                continue
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and (text := ast.get_docstring(node)):
                    name = f"{path.stem}.{getattr(node, 'name', 'module')}"
                    yield _prompt(made, name, text)
                    made += 1
                    if made == count:
                        return


def _prompt(number: int, name: str, text: str) -> dict[str, Any]:
    question = f"Say in one sentence what {name} of Python's standard library is for:\n\n{text}"
    params = {
        "model": "claude-haiku-4-5",
        "max_tokens": 200,
        "messages": [{"role": "user", "content": question}],
    }
    return {"params": params, "metadata": {"number": number, "about": name}}


def _settings(redis_url: str, api_url: str) -> dict[str, str]:
    return {
        "REDIS_URL": redis_url,
        "ANTHROPIC_BASE_URL": api_url,
        "ANTHROPIC_API_KEY": "sk-ant-demo",
        "BATCHMILL_HTTP__PORT": "0",
        "BATCHMILL_LANES__DEMO__MAX_COUNT": "500",
        "BATCHMILL_LANES__DEMO__MAX_AGE": "1s",
        "BATCHMILL_POLL__INTERVAL": "1s",
        "BATCHMILL_LOG__FORMAT": "json",
    }


@contextlib.contextmanager
def _process(words: list[str], settings: dict[str, str], log: Any) -> "Iterator[subprocess.Popen[str]]":
    """Run a command of ours beside this one, and stop it in order at the end."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("BATCHMILL_", "ANTHROPIC_"))}
    ours.pop("PORT", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", *words],
        env=ours | settings,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        cwd=Path.cwd(),
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=40)
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _first_line(process: "subprocess.Popen[str]") -> str:
    return process.stdout.readline().strip() if process.stdout is not None else ""


def _seed() -> str:
    """Return a new seed: a simulator that starts anew must not give the ids of the last one's batches again."""
    return str(int.from_bytes(os.urandom(4), "big"))


def _count(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"a number from 1 to {MOST}")
    return int(text)

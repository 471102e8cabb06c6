"""`make flames`: where the CPU time of the three hot paths goes, as flame graphs in docs/flames and as a list.

py-spy looks at this process from outside, 400 times a second, which a system must allow: be root, or set
kernel.yama.ptrace_scope to 0.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.contenders import LANE, Job, fill
from benchmarks.mill import milling
from worker.core.model import State

FOLDER = Path(__file__).parents[1] / "docs" / "flames"
RATE = "400"
PROMPT_BYTES = 1600
TOP = 12

_TITLE = re.compile(r">[^<>]*py-spy[^<>]* record [^<>]*<")
"""py-spy calls a graph by its own command line, which is that of one machine."""

_LINE = re.compile(r":\d+\)")


def main() -> None:
    """Profile each path once."""
    parser = argparse.ArgumentParser(prog="make flames", description=__doc__)
    parser.add_argument("--prompts", type=int, default=100_000, help="at most 100,000 (100,000)")
    count = parser.parse_args().prompts
    FOLDER.mkdir(parents=True, exist_ok=True)
    with milling(count, (LANE,)) as (mill, _, directory):
        fill(mill.client, Job(count, PROMPT_BYTES, directory / "questions", directory))
        _profile("seal", lambda: mill.seal(LANE), count)
        _profile("submit", lambda: mill.step(LANE, State.SEALED), count)
        mill.await_end(LANE)
        _profile("drain", lambda: mill.step(LANE, State.ENDED), count)
        if mill.batches(LANE):
            raise SystemExit("the lane is not drained")


def _profile(path: str, do: Callable[[], None], count: int) -> None:
    """Do something under py-spy; write its flame graph, print its dearest functions."""
    graph, raw = FOLDER / f"{path}.svg", FOLDER / f"{path}.raw"
    spies = [_spy(graph, "flamegraph"), _spy(raw, "raw")]
    time.sleep(2)
    started = time.process_time()
    do()
    took = (time.process_time() - started) / count * 1e6
    for spy in spies:
        spy.send_signal(signal.SIGINT)
        spy.wait()
    if not raw.exists():
        raise SystemExit("py-spy saw nothing: does this system let it look at a process?")
    print(f"\n{path}: {took:.1f} us of CPU a prompt; of that, in the function itself and all it calls:")
    for function, share in _dearest(raw.read_text(encoding="utf-8")):
        print(f"  {share * took:5.1f}  {function}")
    raw.unlink()
    graph.write_text(_TITLE.sub(f">{path}<", graph.read_text(encoding="utf-8")), encoding="utf-8")


def _spy(output: Path, form: str) -> "subprocess.Popen[bytes]":
    words = ["py-spy", "record", "--pid", str(os.getpid()), "--rate", RATE, "--format", form, "--output", str(output)]
    return subprocess.Popen(
        [str(Path(sys.executable).with_name(words[0])), *words[1:], "--duration", "600"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _dearest(raw: str) -> list[tuple[str, float]]:
    shares: Counter[str] = Counter()
    total = 0
    for line in raw.splitlines():
        stack, _, samples = line.rpartition(" ")
        if "benchmarks/mill.py" in stack:
            total += int(samples)
            for function in {_LINE.sub(")", frame) for frame in stack.split(";")}:
                if "(worker/" in function:
                    shares[function] += int(samples)
    return [(function, samples / total) for function, samples in shares.most_common(TOP)]


if __name__ == "__main__":
    main()

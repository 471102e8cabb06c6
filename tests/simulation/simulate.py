"""Runs many worlds: `python tests/simulation/simulate.py --seeds 10000`. A seed that fails is repeated, shrunk, told.

Exit status 0 if no promise was broken, 1 if one was, 2 for wrong usage.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from life import Outcome, run
from mutations import MUTATIONS
from servers import own_redis
from shrink import shrink

CHUNK = 25


def main(words: Sequence[str] | None = None) -> int:
    """Run, report, and return the exit status."""
    asked = _parse(words)
    if asked.seed is not None or asked.play:
        return _show(asked)
    began = time.monotonic()
    struck: Counter[str] = Counter()
    failed: list[Outcome] = []
    done = 0
    for outcomes in _run_all(asked.first, asked.seeds, asked.processes, asked.bug):
        done += len(outcomes)
        for outcome in outcomes:
            struck += outcome.struck
            if outcome.violations:
                failed.append(outcome)
                print(f"seed {outcome.seed}: {outcome.violations[0]}", flush=True)
        if asked.stop and failed:
            break
    seconds = time.monotonic() - began
    print(f"{done} worlds, {len(failed)} in which a promise was broken; {60 * done / seconds:.0f} a minute")
    print("faults that struck:", ", ".join(f"{name} {times}" for name, times in sorted(struck.items())))
    if failed:
        print(f"look at one: python {Path(__file__).name} --seed {failed[0].seed} --shrink")
    return 1 if failed else 0


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1000, help="how many worlds (1000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--processes", type=int, default=2, help="how many at a time (2)")
    parser.add_argument("--stop", action="store_true", help="stop at the first that fails")
    parser.add_argument("--seed", type=int, help="only this one, with its timeline")
    parser.add_argument("--shrink", action="store_true", help="with --seed: make it as simple as it can be and fail")
    parser.add_argument("--play", type=Path, help="play choices that --shrink has written")
    parser.add_argument("--bug", default="", help="plant the bug whose name contains this: see mutations.py")
    return parser.parse_args(words)


def _show(asked: argparse.Namespace) -> int:
    with own_redis() as client, _planted(asked.bug):
        outcome = run(client, asked.seed or 0, json.loads(asked.play.read_text()) if asked.play else None)
        if asked.shrink and outcome.violations:
            kind = _kind(outcome)
            script = shrink(outcome.choices, lambda choices: _kind(run(client, asked.seed, choices)) == kind)
            outcome = run(client, asked.seed, script)
            print(f"choices that are not harmless: {len(script) - script.count(0)} of {len(script)}")
            if asked.play is None:
                Path(f"seed-{asked.seed}.json").write_text(json.dumps(script))
    print("\n".join(outcome.timeline))
    print(*outcome.violations or ["no promise was broken"], sep="\n")
    return 1 if outcome.violations else 0


def _kind(outcome: Outcome) -> str:
    """Return what makes two failures the same: the words, without names and numbers."""
    words = outcome.violations[0].split() if outcome.violations else []
    return " ".join(word for word in words if word.isalpha())


def _run_all(first: int, seeds: int, processes: int, bug: str) -> Iterator[list[Outcome]]:
    chunks = [range(at, min(at + CHUNK, first + seeds)) for at in range(first, first + seeds, CHUNK)]
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(_run_chunk, chunks, [bug] * len(chunks))


def _run_chunk(seeds: range, bug: str) -> list[Outcome]:
    with own_redis() as client, _planted(bug):
        return [run(client, seed).brief() for seed in seeds]


def _planted(bug: str) -> AbstractContextManager[None]:
    if not bug:
        return nullcontext()
    return next(mutation for mutation in MUTATIONS if bug in mutation.name).planted()


if __name__ == "__main__":
    sys.exit(main())

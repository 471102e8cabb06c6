"""`python -m benchmarks`: the plain script, the floor and batchmill, one after the other, again and again."""

import argparse
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.contenders import CONTENDERS, Job, Run, run
from benchmarks.measure import wait_until_idle
from benchmarks.prompts import write_questions
from benchmarks.tables import describe_machine, describe_start, ratios, table

RESULTS = Path(__file__).parent / "RESULTS.md"
JOBS = ((20_000, 1600), (100_000, 1600), (100_000, 2400))


def main() -> None:
    """Run what was asked for, print it, and write it down if it was everything."""
    asked = _parse()
    jobs = [(asked.prompts, asked.bytes)] if asked.prompts else JOBS
    starting = {
        name: median(run.cost.cpu for run in each)
        for name, each in _compare(0, jobs[0][1], asked.runs, "no prompts").items()
    }
    sections = [describe_machine(), describe_start(starting)]
    for count, prompt_bytes in jobs:
        title = f"{count:,} prompts of {prompt_bytes:,} bytes"
        runs = _compare(count, prompt_bytes, asked.runs, title)
        sections.append(f"## {title}\n\n{table(count, runs)}\n\n{ratios(count, runs, starting)}")
        print(f"\n{sections[-1]}\n", flush=True)
    if asked.write:
        RESULTS.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
        print(f"written to {RESULTS}")


def _compare(count: int, prompt_bytes: int, times: int, title: str) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        questions = Path(directory) / "questions"
        write_questions(questions, count)
        for turn in range(times):
            for name, contender in CONTENDERS.items():
                with tempfile.TemporaryDirectory(dir=directory) as place:
                    runs[name].append(run(contender, Job(count, prompt_bytes, questions, Path(place))))
                last = runs[name][-1]
                print(
                    f"{title}, {turn + 1} of {times}: {name:<9} {last.wall:6.1f} s, {last.cost.cpu:5.1f} CPU s",
                    flush=True,
                )
                wait_until_idle()
    return runs


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--prompts", type=int, help="one job of so many prompts, instead of the three of RESULTS.md")
    parser.add_argument("--bytes", type=int, default=1600, help="of each of them (1600)")
    parser.add_argument("--runs", type=int, default=5, help="of each contender, in turns (5)")
    parser.add_argument("--write", action="store_true", help="write benchmarks/RESULTS.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()

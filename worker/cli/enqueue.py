"""`batchmill enqueue`: a file of prompts into a lane."""

import argparse
import contextlib
import math
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from worker.cli.arguments import add_command, add_json_flag, lane
from worker.cli.prompt_lines import read_lines
from worker.cli.reach import find_url, need_config, trouble_told
from worker.cli.settings import EX_FAILED, EX_OK, EX_UNAVAILABLE, EX_USAGE, add_config_flags, complain
from worker.cli.showing import clean, number, print_json

if TYPE_CHECKING:
    from worker.client import Outcome

MOST_TOLD = 20
EX_INTERRUPTED = 130
EXAMPLE = """\
batchmill enqueue prompts.jsonl --lane bulk
jq -c '{id: .name, params: {model: "claude-haiku-4-5", max_tokens: 1024,
  messages: [{role: "user", content: .text}]}}' books.json | batchmill enqueue -
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the `enqueue` command."""
    parser = add_command(
        subparsers,
        "enqueue",
        help="put prompts from a JSONL file into a lane",
        description=(
            'One prompt a line: {"params": {…}, "id"?, "metadata"?, "deadline"?, "reply_to"?, "traceparent"?}, or the '
            "bare params of a Messages request. With an id a prompt goes in once, however often it is enqueued; the "
            "API's own batch lines, with custom_id for id, are understood too."
        ),
        example=EXAMPLE,
    )
    add_config_flags(parser)
    parser.add_argument("file", metavar="FILE", help="JSONL, - for standard input")
    parser.add_argument("--lane", type=lane, default="default", metavar="LANE", help="(default: default)")
    parser.add_argument("--wait", action="store_true", help="while there is no room, wait instead of stopping")
    add_json_flag(parser)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Enqueue; returns 0 when every line is in, 1 when one was refused or there is no room, 69 without Redis."""
    from worker.client import Producer

    config = need_config(args)
    url = find_url(config)
    with contextlib.ExitStack() as stack:
        stack.enter_context(trouble_told(url))
        try:
            file = sys.stdin.buffer if args.file == "-" else stack.enter_context(Path(args.file).open("rb"))
        except OSError as error:
            return complain(f"{args.file}: {error.strerror}", EX_USAGE)
        producer = stack.enter_context(Producer(url, args.lane, prefix=config.redis.prefix, access=config.redis.access))
        tally = Tally(tell=lambda text: print(text, file=sys.stderr))
        advance = stack.enter_context(_progress(file))
        status = _enqueue(producer, tally, tally.follow(file, advance), math.inf if args.wait else 0.0)
    tally.show(args.lane, as_json=args.json)
    return status


def _enqueue(producer: Any, tally: "Tally", prompts: Iterator[Any], patience: float) -> int:
    from worker.client import QueueFull, Unreachable

    try:
        producer.enqueue_many(prompts, tell=tally.hear, patience=patience)
    except QueueFull:
        told = f"no room: {_ranges(tally.left)} and all lines behind {tally.last} are not in; try them later, or --wait"
        return complain(told, EX_FAILED)
    except Unreachable as error:
        if not error.in_doubt:
            return complain(f"{error}; nothing was sent", EX_UNAVAILABLE)
        told = (
            f"Redis did not answer: {_ranges(tally.left)} may or may not be in, all lines behind {tally.last} are not"
        )
        return complain(told, EX_UNAVAILABLE)
    except OSError as error:
        return complain(f"cannot read on ({error.strerror}): all lines behind {tally.last} are not in", EX_FAILED)
    except KeyboardInterrupt:
        return complain(f"interrupted: a few lines behind {tally.last} may be in, the rest is not", EX_INTERRUPTED)
    return EX_FAILED if tally.counts["refused"] else EX_OK


class Tally:
    """What became of the lines of a file. `tell` gets a sentence for each of the first refusals."""

    def __init__(self, *, tell: Callable[[str], None]) -> None:
        self.counts: Counter[str] = Counter()
        self.left: list[int] = []
        self.last = 0
        self._tell = tell
        self._asked: deque[int] = deque()

    def follow(self, file: IO[bytes], advance: Callable[[int], None]) -> Iterator[dict[str, Any]]:
        """Yield the prompts of a file, noting whose fates will be told."""
        for line in read_lines(file):
            advance(line.nbytes)
            if line.prompt is None:
                self._refuse(line.number, line.reason)
            else:
                self._asked.append(line.number)
                yield line.prompt

    def hear(self, outcome: "Outcome") -> None:
        """Take in the fate of the next prompt."""
        line = self.last = self._asked.popleft()
        if outcome.fate == "refused":
            self._refuse(line, outcome.reason)
            return
        self.counts[outcome.fate.value] += 1
        if outcome.fate in ("full", "in_doubt"):
            self.left.append(line)

    def show(self, lane: str, *, as_json: bool) -> None:
        """Print the counts."""
        counts = {name: self.counts[name] for name in ("enqueued", "duplicate", "refused", "full", "in_doubt")}
        if as_json:
            print_json({"lane": lane, **counts})
            return
        words = {"enqueued": "enqueued", "duplicate": "duplicate", "refused": "refused"}
        told = [f"{number(counts[name])} {word}" for name, word in words.items()]
        told += [f"{number(counts['full'])} found no room"] if counts["full"] else []
        told += [f"{number(counts['in_doubt'])} may or may not be in"] if counts["in_doubt"] else []
        print(f"{lane}: {', '.join(told)}")

    def _refuse(self, line: int, reason: str) -> None:
        self.counts["refused"] += 1
        if self.counts["refused"] <= MOST_TOLD:
            self._tell(f"line {line}: {clean(reason)}")
        elif self.counts["refused"] == MOST_TOLD + 1:
            self._tell("further refusals are only counted")


def _ranges(lines: list[int]) -> str:
    """Spell ascending line numbers, neighbours as ranges."""
    found: list[list[int]] = []
    for line in lines:
        if found and line == found[-1][1] + 1:
            found[-1][1] = line
        else:
            found.append([line, line])
    told = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in found)
    return f"line{'s' if len(lines) > 1 else ''} {told}"


@contextlib.contextmanager
def _progress(file: IO[bytes]) -> Iterator[Callable[[int], None]]:
    """Draw a progress bar on stderr, if that is a terminal; yields what is to be told of bytes read."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    import os
    import stat

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    found = os.fstat(file.fileno())
    total = found.st_size if stat.S_ISREG(found.st_mode) else None
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("enqueue", total=total)
        yield lambda nbytes: progress.advance(task, nbytes)

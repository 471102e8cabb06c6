"""`batchmill top`: lanes and batches, live."""

import argparse
import contextlib
import os
import select
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from worker.cli.arguments import add_command, add_json_flag
from worker.cli.reach import Reached, reach
from worker.cli.settings import EX_OK, add_config_flags
from worker.cli.showing import clean, number, print_json
from worker.cli.status import HEAD, complaints, in_words, row

if TYPE_CHECKING:
    from rich.console import Group

    from worker.core.model import Batch

REFRESH_SECONDS = 1.0
MOST_BATCHES = 20
EXAMPLE = """\
batchmill top        # q or Ctrl-C ends it
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the `top` command."""
    parser = add_command(
        subparsers,
        "top",
        help="a live view in the terminal",
        description="Show lanes and open batches, anew each second. Without a terminal it prints once.",
        example=EXAMPLE,
    )
    add_config_flags(parser)
    add_json_flag(parser)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Show until q; returns 0, or ends with 69 when Redis is away at the start, 78 misconfigured."""
    with reach(args) as there:
        facts = _report(there)
        if args.json:
            print_json(facts)
        elif sys.stdout.isatty() and sys.stdin.isatty():
            with contextlib.suppress(KeyboardInterrupt):
                _live(there)
        else:
            print(in_words(facts))
    return EX_OK


def _report(there: Reached) -> dict[str, Any]:
    from worker.core.report import report

    return report(there.figures(), in_flight_limit=there.config.anthropic.max_in_flight_requests)


def _live(there: Reached) -> None:
    from rich.live import Live

    from worker.ledger.store import LedgerUnavailableError

    with _keys() as pressed, Live(screen=True, auto_refresh=False) as screen:
        while True:
            try:
                batches, now = _open_batches(there), there.ledger.store.now()
                screen.update(draw(_report(there), batches, now), refresh=True)
            except LedgerUnavailableError as error:
                screen.update(f"{error}; trying again", refresh=True)
            if pressed(REFRESH_SECONDS) in ("q", "Q", "\x03", "\x1b"):
                return


def _open_batches(there: Reached) -> "list[Batch]":
    """Return the batches that are not settled, those that need a person first, then the oldest."""
    from worker.core.model import State

    batches = there.ledger.batches
    found = batches.get_many([(lane, uid) for lane in there.lanes() for uid in batches.live(lane)])
    return sorted(found, key=lambda batch: (batch.state is not State.HELD, batch.sealed_at))


def draw(facts: dict[str, Any], batches: "list[Batch]", now: float) -> "Group":
    """Draw the report and the first batches."""
    from rich.console import Group
    from rich.text import Text

    from worker.cli import batch_words

    told = complaints(facts)
    flight = f"in flight {number(facts['in_flight_requests'])} of {number(facts['in_flight_limit'])} prompts"
    return Group(
        Text(f"batchmill   {flight}   q ends", style="bold"),
        _table(HEAD, [row(lane) for lane in facts["lanes"].values()]),
        _table(batch_words.HEAD, [batch_words.row(batch, now) for batch in batches[:MOST_BATCHES]]),
        Text(f"… and {number(len(batches) - MOST_BATCHES)} more" if len(batches) > MOST_BATCHES else ""),
        Text("\n".join(told) or "healthy", style="bold red" if told else "green"),
    )


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for word in head:
        table.add_column(word.removeprefix(">"), justify="right" if word.startswith(">") else "left", no_wrap=True)
    for cells in rows:
        table.add_row(*(Text(clean(cell)) for cell in cells))  # as text: what a producer writes is no markup
    return table


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Read single keys for the length of the block; yields a wait of some seconds that returns a key or nothing."""
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([descriptor], [], [], seconds)
        return (
            (os.read(descriptor, 1).decode("latin-1") or "q") if ready else ""
        )  # a terminal that is gone has seen enough

    try:
        tty.setcbreak(descriptor)
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

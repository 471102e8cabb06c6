"""`batchmill dead`: prompts that were given up on; look at them, put them back, or let them go."""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING

from worker.cli.arguments import add_command, add_json_flag, add_lane_flag, age, count
from worker.cli.reach import Reached, reach, stop
from worker.cli.settings import EX_FAILED, EX_OK, EX_USAGE, add_config_flags, complain
from worker.cli.showing import DASH, number, pairs, print_json, size, span, table

if TYPE_CHECKING:
    from worker.ledger.dead_letters import DeadLetter

CHUNK = 200
EXAMPLE = """\
batchmill dead list --reason no_model
batchmill dead show 1795339565553-0
batchmill dead redrive --reason expired --lane bulk
batchmill dead drop --older-than 14d --dry-run
"""
HEAD = ("dead letter", "lane", "prompt", "reason", ">age", ">attempt", ">size", "batch")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the `dead` command."""
    parser = add_command(
        subparsers,
        "dead",
        help="list, show, redrive and drop dead letters",
        description="Dead letters: prompts that were given up on, with the reason, for `dead_retention`.",
        example=EXAMPLE,
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    listing = add_command(
        verbs,
        "list",
        help="dead letters, oldest first",
        description="List dead letters, oldest first in each lane.",
        example="batchmill dead list --older-than 1d --json",
    )
    _add_filters(listing)
    listing.add_argument("--limit", type=count, default=50, metavar="N", help="at most so many (default: 50)")
    listing.set_defaults(func=list_)
    showing = add_command(
        verbs,
        "show",
        help="one dead letter with its prompt",
        description="Show all fields of a dead letter. The prompt is among them.",
        example="batchmill dead show 1795339565553-0 --json | jq -r .params",
    )
    add_config_flags(showing)
    add_lane_flag(showing)
    showing.add_argument("id", metavar="ID", help="of the dead letter, as `dead list` shows it")
    showing.set_defaults(func=show)
    redriving = add_command(
        verbs,
        "redrive",
        help="put dead letters back into their lane",
        description="Put dead letters back into their lane, with fresh attempts.",
        example="batchmill dead redrive --all --lane bulk\nbatchmill dead redrive --id 1795339565553-0",
    )
    redriving.set_defaults(func=redrive)
    dropping = add_command(
        verbs,
        "drop",
        help="delete dead letters for good",
        description="Delete dead letters for good, prompts and all. It asks first.",
        example="batchmill dead drop --older-than 14d --yes",
    )
    dropping.add_argument("--yes", action="store_true", help="do not ask")
    dropping.set_defaults(func=drop)
    for verb in (redriving, dropping):
        _add_filters(verb)
        verb.add_argument("--id", action="append", default=[], metavar="ID", help="this dead letter; may be repeated")
        verb.add_argument("--all", action="store_true", help="whatever the filters leave, or everything")
        verb.add_argument("--dry-run", action="store_true", help="only say how many there are")
    for verb in (listing, showing, redriving, dropping):
        add_json_flag(verb)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    add_config_flags(parser)
    add_lane_flag(parser)
    parser.add_argument("--reason", metavar="WORD", help="buried for this reason only")
    parser.add_argument("--older-than", type=age, metavar="AGE", help="buried at least so long ago, such as 30m or 7d")


def list_(args: argparse.Namespace) -> int:
    """List dead letters; returns 0, or ends with 69 without Redis, 78 misconfigured, 1 for an unknown lane."""
    with reach(args) as there:
        now = there.ledger.store.now()
        every = (letter for lane in there.lanes(args.lane) for letter in _filtered(there, args, lane, now))
        found = list(islice(every, args.limit + 1))
    shown = found[: args.limit]
    if args.json:
        print_json([asdict(letter) for letter in shown])
    elif not shown:
        print("no such dead letters")
    else:
        print(table(HEAD, (_row(letter, now) for letter in shown)))
        if len(found) > len(shown):
            print(f"… and more: --limit is {args.limit}")
    return EX_OK


def show(args: argparse.Namespace) -> int:
    """Show a dead letter; returns 0, or ends with 1 when there is none."""
    with reach(args) as there:
        lane = _locate(there, args.id, args.lane)
        fields = None if lane is None else there.ledger.dead_letters.show(lane, args.id)
        if lane is None or fields is None:
            stop(f"there is no dead letter {args.id} (any more)")
    if args.json:
        print_json({"lane": lane, **fields})
    else:
        print(pairs({"lane": lane, **fields}))
    return EX_OK


def redrive(args: argparse.Namespace) -> int:
    """Put dead letters back; returns 0, 1 when one of the ids is unknown, 2 when nothing says which are meant."""
    return _act(args, "redriven", "put back into its lane")


def drop(args: argparse.Namespace) -> int:
    """Delete dead letters; returns 0, 1 when refused or when one of the ids is unknown, 2 when nothing says which."""
    return _act(args, "dropped", "deleted")


def _act(args: argparse.Namespace, word: str, told: str) -> int:
    if not (args.id or args.all or args.reason or args.older_than is not None):
        return complain("say which: --id, --reason, --older-than, or --all", EX_USAGE)
    if args.id and (args.all or args.reason or args.older_than is not None):
        return complain("--id names dead letters one by one: it goes with --lane alone", EX_USAGE)
    with reach(args) as there:
        now = there.ledger.store.now()
        asks = word == "dropped" and not args.yes
        if args.dry_run or asks:
            total = sum(1 for _ in _choose(there, args, now))
            if args.dry_run:
                return _tell(args, {"found": total}, f"{_letters(total)} would be {told}")
            if total and not _agreed(f"Delete {_letters(total)} for good?"):
                return complain("nothing was deleted", EX_FAILED)
        done = _in_chunks(there, word, _choose(there, args, now))
    status = _tell(args, {word: done}, f"{_letters(done)} {told}")
    if args.id and done < len(set(args.id)):
        return complain(f"{len(set(args.id)) - done} of the ids are of no dead letter (any more)", EX_FAILED)
    return status


def _in_chunks(there: Reached, word: str, chosen: Iterator[tuple[str, str]]) -> int:
    """Redrive or drop what is chosen, lane by lane."""
    letters, done = there.ledger.dead_letters, 0
    act = letters.redrive if word == "redriven" else letters.drop
    for lane, pairs_of_lane in groupby(chosen, key=itemgetter(0)):
        ids = (letter_id for _, letter_id in pairs_of_lane)
        while chunk := list(islice(ids, CHUNK)):
            done += act(lane, chunk)
    return done


def _choose(there: Reached, args: argparse.Namespace, now: float) -> Iterator[tuple[str, str]]:
    """Yield lane and id of the dead letters that are meant; what is buried after `now` is not among them."""
    if args.id:
        places = [(_locate(there, letter_id, args.lane), letter_id) for letter_id in dict.fromkeys(args.id)]
        yield from ((lane, letter_id) for lane, letter_id in places if lane is not None)
        return
    for lane in there.lanes(args.lane):
        yield from ((lane, letter.letter_id) for letter in _filtered(there, args, lane, now))


def _locate(there: Reached, letter_id: str, wanted: str | None) -> str | None:
    """Return the lane of a dead letter; ids are given out by lane, so that two may have the same one."""
    entry_id = _entry_id(letter_id)
    found = [lane for lane in there.lanes(wanted) if there.ledger.dead_letters.show(lane, entry_id) is not None]
    if len(found) > 1:
        stop(f"there is a dead letter {letter_id} in each of {', '.join(found)}: say which --lane", EX_USAGE)
    return found[0] if found else None


def _filtered(there: Reached, args: argparse.Namespace, lane: str, now: float) -> "Iterator[DeadLetter]":
    return there.ledger.dead_letters.list(lane, reason=args.reason, before=now - (args.older_than or 0.0))


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise SystemExit(complain("nobody is there to ask: say --yes", EX_USAGE))
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _entry_id(text: str) -> str:
    milliseconds, _, sequence = text.partition("-")
    if not (milliseconds.isdecimal() and sequence.isdecimal() and text.isascii()):
        raise SystemExit(complain(f"{text!r} is not the id of a dead letter, such as 1795339565553-0", EX_USAGE))
    return text


def _tell(args: argparse.Namespace, facts: dict[str, int], text: str) -> int:
    if args.json:
        print_json(facts)
    else:
        print(text)
    return EX_OK


def _letters(total: int) -> str:
    return f"{number(total)} dead letter{'' if total == 1 else 's'}"


def _row(letter: "DeadLetter", now: float) -> tuple[str, ...]:
    return (
        letter.letter_id,
        letter.lane,
        letter.prompt_id or DASH,
        letter.reason,
        span(now - letter.buried_at),
        str(letter.attempt),
        size(letter.nbytes),
        letter.batch or DASH,
    )

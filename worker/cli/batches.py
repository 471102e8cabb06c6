"""`batchmill batches`: look at batches, end them early, and decide what no rule can."""

import argparse
from typing import TYPE_CHECKING, Any

from worker.cli.arguments import add_command, add_json_flag, add_lane_flag, count
from worker.cli.reach import Reached, reach, stop
from worker.cli.settings import EX_OK, add_config_flags
from worker.cli.showing import print_json, table

if TYPE_CHECKING:
    from worker.batches_api import BatchesApi
    from worker.core.model import Batch, RemoteBatch

STATES = ("sealed", "submitting", "in_progress", "canceling", "ended", "delivered", "held", "settled")
EXAMPLE = """\
batchmill batches list --state held
batchmill batches show k7m2q9x4t8w1z3b5
batchmill batches cancel msgbatch_01HkcTjaV5uDC8jWR4ZsDV8d
batchmill batches resolve k7m2q9x4t8w1z3b5 --resubmit
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the `batches` command."""
    parser = add_command(
        subparsers,
        "batches",
        help="list, show, cancel, delete and resolve batches",
        description="Batches, by batchmill's id or the API's.",
        example=EXAMPLE,
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_list(verbs)
    for name, run, help_text, description in (
        ("show", show, "all there is to know of a batch", "Show the record of one batch."),
        (
            "cancel",
            cancel,
            "ask the API to end a batch early",
            "What already runs completes and is delivered; the prompts that are canceled get a row that says so.",
        ),
        (
            "delete",
            delete,
            "delete the remote batch of a settled one",
            "Delete what the API keeps of a settled batch. Its rows are in the sinks, its record here stays.",
        ),
        (
            "resolve",
            resolve,
            "decide what becomes of a held batch",
            "A held batch needs a decision that no rule can take; `batches show` has the evidence.",
        ),
    ):
        verb = add_command(
            verbs, name, help=help_text, description=description, example=f"batchmill batches {name} {_SAMPLES[name]}"
        )
        add_config_flags(verb)
        verb.add_argument("id", metavar="ID", help="batchmill's id of the batch, or the API's")
        if name == "resolve":
            choice = verb.add_mutually_exclusive_group(required=True)
            choice.add_argument(
                "--resubmit", action="store_true", help="submit it again; what ran before is paid twice"
            )
            choice.add_argument("--bury", action="store_true", help="give it up; its prompts become dead letters")
        add_json_flag(verb)
        verb.set_defaults(func=run)


_SAMPLES = {
    "show": "k7m2q9x4t8w1z3b5 --json",
    "cancel": "k7m2q9x4t8w1z3b5",
    "delete": "msgbatch_01HkcTjaV5uDC8jWR4ZsDV8d",
    "resolve": "k7m2q9x4t8w1z3b5 --bury",
}


def _add_list(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_command(
        verbs,
        "list",
        help="batches, newest first",
        description="List the batches that are not settled; with --settled, those that are.",
        example="batchmill batches list --lane bulk --state in_progress\nbatchmill batches list --settled --limit 10",
    )
    add_config_flags(parser)
    add_lane_flag(parser)
    parser.add_argument("--state", choices=STATES, help="in this state only")
    parser.add_argument("--settled", action="store_true", help="settled ones, as far as retention keeps them")
    parser.add_argument("--limit", type=count, default=50, metavar="N", help="at most so many (default: 50)")
    add_json_flag(parser)
    parser.set_defaults(func=list_)


def list_(args: argparse.Namespace) -> int:
    """List batches; returns 0, or ends with 69 without Redis, 78 misconfigured, 1 for an unknown lane."""
    from worker.cli.batch_words import HEAD, facts, row

    with reach(args) as there:
        batches = _find_all(there, args)
        now = there.ledger.store.now()
    shown = batches[: args.limit]
    if args.json:
        print_json([facts(batch) for batch in shown])
    elif not batches:
        print("no such batches")
    else:
        print(table(HEAD, (row(batch, now) for batch in shown)))
        if len(batches) > len(shown):
            print(f"… and more: --limit is {args.limit}")
    return EX_OK


def show(args: argparse.Namespace) -> int:
    """Show one batch; returns 0, or ends with 1 when there is none."""
    from worker.cli.batch_words import facts, in_full

    with reach(args) as there:
        batch = _need(there, args.id)
        now = there.ledger.store.now()
    if args.json:
        print_json(facts(batch))
    else:
        print(in_full(batch, now))
    return EX_OK


def cancel(args: argparse.Namespace) -> int:
    """Cancel a remote batch; returns 0, or ends with 1 when that is impossible, 69, 77 or 78."""
    from worker.cli.reach_api import reach_api
    from worker.core.lifecycle import Event
    from worker.core.model import State

    with reach(args) as there:
        batch = _need(there, args.id)
        if batch.state not in (State.IN_PROGRESS, State.CANCELING) or batch.remote_id is None:
            stop(f"batch {batch.uid} is {batch.state}: only one that is in progress can be canceled")
        with reach_api(there.config) as api:
            remote = _cancel(api, batch.remote_id)
        if batch.state is State.IN_PROGRESS:
            # a fact, told early: else the next poll finds it out
            event = Event.CANCEL if remote.status == "canceling" else None
            there.ledger.batches.advance(batch, event)
    return _tell(args, batch, {"remote_status": remote.status}, f"the remote batch is {remote.status}")


def _cancel(api: "BatchesApi", remote_id: str) -> "RemoteBatch":
    """Cancel; one that has ended by now needs no canceling, and the API's no says less than that."""
    from worker.batches_api import Refused

    try:
        return api.cancel(remote_id)
    except Refused:
        remote = api.retrieve(remote_id).remote
        if remote.status != "ended":
            raise
        return remote


def delete(args: argparse.Namespace) -> int:
    """Delete the remote batch of a settled one; returns 0, or ends with 1 when that is impossible, 69, 77 or 78."""
    from worker.cli.reach_api import reach_api
    from worker.core.model import State

    with reach(args) as there:
        batch = _need(there, args.id)
        if batch.state is not State.SETTLED:
            stop(f"batch {batch.uid} is {batch.state}: its results are needed until it is settled")
        if batch.remote_id is None:
            stop(f"batch {batch.uid} has no remote batch")
        with reach_api(there.config) as api:
            api.delete(batch.remote_id)
    return _tell(args, batch, {"deleted": batch.remote_id}, f"{batch.remote_id} is deleted")


def resolve(args: argparse.Namespace) -> int:
    """Resubmit or bury a held batch; returns 0, or ends with 1 when it is not held (any more)."""
    from worker.core.intake import Flaw
    from worker.core.lifecycle import Event
    from worker.core.model import State

    with reach(args) as there:
        batch = _need(there, args.id)
        if batch.state is not State.HELD:
            stop(f"batch {batch.uid} is {batch.state}: only a held batch is resolved by hand")
        if args.resubmit:
            answer = there.ledger.batches.advance(batch, Event.RESUBMIT, unposted=batch.count, **_FORGOTTEN)
        else:
            answer = there.ledger.batches.end(
                batch,
                Event.BURY,
                fence="",
                ended_at=None,
                max_attempts=there.config.lane(batch.lane).max_attempts,
                reason=Flaw.ABANDONED.value,
            )
        if answer != "OK":
            stop(f"batch {batch.uid} has moved on while you decided; look again")
    if args.resubmit:
        return _tell(args, batch, {"resolved": "resubmit"}, "will be submitted again")
    return _tell(args, batch, {"resolved": "bury"}, f"given up; its {batch.entries} prompts become dead letters")


_FORGOTTEN: dict[str, Any] = {
    **dict.fromkeys(("remote_id", "workspace_id", "created_at", "expires_at", "ended_at", "judged_at"), ""),
    **dict.fromkeys(("counts", "reason", "doubt", "doubt_at"), ""),
    "failures": "0",
}
"""What a batch that is submitted again no longer knows of its remote batch."""


def _find_all(there: Reached, args: argparse.Namespace) -> "list[Batch]":
    """Return one more than wanted where there are more, newest first."""
    found = []
    for lane in there.lanes(args.lane):
        if args.settled or args.state == "settled":
            found += there.ledger.reads.settled(lane, args.limit + 1)
        else:
            live = there.ledger.batches.get_many([(lane, uid) for uid in there.ledger.batches.live(lane)])
            found += [batch for batch in live if args.state in (None, batch.state.value)]
    return sorted(found, key=lambda batch: batch.sealed_at, reverse=True)


def _need(there: Reached, name: str) -> "Batch":
    batch = there.ledger.batches.find(name, there.lanes())
    if batch is None:
        stop(f"there is no batch {name!r} (any more): settled ones are kept for `retention`")
    return batch


def _tell(args: argparse.Namespace, batch: "Batch", facts: dict[str, str], text: str) -> int:
    if args.json:
        print_json({"batch": batch.uid, "lane": batch.lane, **facts})
    else:
        print(f"batch {batch.uid}: {text}")
    return EX_OK

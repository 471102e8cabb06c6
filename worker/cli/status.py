"""`batchmill status`: lanes, batches, dead letters and what is wrong, once."""

import argparse
from collections.abc import Mapping
from typing import Any

from worker.cli.arguments import add_command, add_json_flag, add_lane_flag
from worker.cli.reach import reach
from worker.cli.settings import EX_OK, add_config_flags
from worker.cli.showing import DASH, number, print_json, size, span, table

EXAMPLE = """\
batchmill status
batchmill status --json | jq '.lanes.default.depth'
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the `status` command."""
    parser = add_command(
        subparsers,
        "status",
        help="lanes, depth, age of the oldest prompt, batches by state, dead letters, health",
        description="Show where every prompt is and what keeps it there.",
        example=EXAMPLE,
    )
    add_config_flags(parser)
    add_lane_flag(parser)
    add_json_flag(parser)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the report; returns 0, or ends with 69 without Redis, 78 misconfigured, 1 for an unknown lane."""
    from worker.core.report import report

    with reach(args) as there:
        figures = there.figures(there.lanes(args.lane) if args.lane else None)
    facts = report(figures, in_flight_limit=there.config.anthropic.max_in_flight_requests)
    if args.json:
        print_json(facts)
    else:
        print(in_words(facts))
    return EX_OK


def in_words(facts: Mapping[str, Any]) -> str:
    """Put the report into a table and what follows from it."""
    pending = [f"{sink} {number(count)}" for sink, count in facts["sink_pending_batches"].items() if count]
    return "\n".join(
        [
            table(HEAD, (row(lane) for lane in facts["lanes"].values())),
            "",
            f"in flight: {number(facts['in_flight_requests'])} of {number(facts['in_flight_limit'])} prompts",
            *([f"batches that wait for a sink: {', '.join(pending)}"] if pending else []),
            *(complaints(facts) or ["healthy"]),
        ]
    )


EMPTIED_SECONDS = 7 * 86_400.0
"""For so long it is said that Redis was emptied; results of that time can be fetched by hand for 29 days."""

HEAD = ("lane", ">waiting", ">oldest", ">stored", "batches", ">dead", "state")


def row(lane: Mapping[str, Any]) -> tuple[str, ...]:
    """Put one lane of the report into words."""
    batches = [f"{number(count)} {state}" for state, count in lane["batches"].items() if count]
    state = f"paused: {lane['paused']}" if lane["paused"] else f"parked: {lane['parked']}" if lane["parked"] else "open"
    return (
        lane["lane"],
        number(lane["depth"]),
        span(lane["oldest_prompt_age_seconds"]),
        size(lane["bytes"]),
        ", ".join(batches) or DASH,
        number(lane["dead_letters"]),
        state,
    )


def complaints(facts: Mapping[str, Any]) -> list[str]:
    """Say what needs a person, and what that person can do."""
    told = []
    if facts["redis_evicting"]:
        told.append("! Redis may evict prompts: set its maxmemory-policy to noeviction")
    if facts["redis_emptied_at"] and facts["read_at"] - facts["redis_emptied_at"] < EMPTIED_SECONDS:
        ago = span(facts["read_at"] - facts["redis_emptied_at"])
        told.append(
            f"! Redis was found emptied {ago} ago: what it held is forgotten, "
            f"{number(facts['orphaned_batches'])} remote batches are nobody's now; restore a backup if there is one"
        )
    for lane in facts["lanes"].values():
        if lane["parked"]:
            told.append(
                f"! lane {lane['lane']} is parked ({lane['parked']}); `batchmill resume` ends it before a probe does"
            )
        if lane["held"]:
            told.append(
                f"! lane {lane['lane']} holds {number(lane['held'])} batches that need a decision: "
                "`batchmill batches list --state held`, then `batchmill batches resolve`"
            )
    return told

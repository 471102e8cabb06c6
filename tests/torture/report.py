"""What a sceptic reads: what was done to whom, at which moments, what the API did, and the verdict."""

from collections import Counter
from collections.abc import Mapping, Sequence

from chaos import AIMS, Chaos
from evidence import Billing
from finish import billing_line
from proxy import AFTER, BEFORE, Proxy
from verdict import Verdict

WIDTH = 110


def describe(
    *,
    chaos: Chaos,
    proxy: Proxy,
    ended: Mapping[str, int],
    counts: Mapping[str, int],
    told: Mapping[str, int],
    billing: Billing,
    prompts: int,
    rows: Mapping[str, int],
) -> list[str]:
    """Describe what was done."""
    return [
        f"Prompts: {prompts} enqueued, rows {dict(rows)}",
        *_list("", counts),
        f"Kills (SIGKILL): {chaos.total}",
        *_list("", chaos.kills),
        *_list("", {"redis came back without what it had not synced": chaos.power_cuts}),
        f"Freezes (SIGSTOP, longer than the lease): {chaos.pauses.total()}",
        *_list("", chaos.pauses),
        "Kills by moment (before: the request was not passed on yet; after: it was, its reply was not):",
        *_table(chaos.moments),
        "Freezes by moment:",
        *_list("", {name: many for name, many in chaos.moments.items() if " frozen at " in name}),
        "Network:",
        *_list("", proxy.events),
        "The API: " + billing_line(billing),
        *_list("POSTs that ended ", billing.posts),
        *_list("fault struck: ", chaos.struck),
        f"  strangers' batches of equal size {chaos.strangers}",
        "What daemons told:",
        *_list("", told),
        "Ends of processes that nobody killed (and that were started again):",
        *_list("", ended),
    ]


def _table(moments: Mapping[str, int]) -> list[str]:
    names = [*dict.fromkeys(AIMS), "no special moment"]
    lines = [f"  {'moment':<20} {'daemon':>14} {'redis':>14} {'api':>14}"]
    for name in names:
        cells = []
        for victim in ("daemon", "redis", "api"):
            sides = [moments.get(f"{victim} at {name}, {side}", 0) for side in (BEFORE, AFTER)]
            plain = moments.get(f"{victim} at {name}", 0)
            cells.append(str(plain) if plain else f"{sides[0]} / {sides[1]}" if any(sides) else "-")
        lines.append(f"  {name:<20} {cells[0]:>14} {cells[1]:>14} {cells[2]:>14}")
    return lines


def _list(stem: str, counts: Mapping[str, int]) -> list[str]:
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return [f"  {stem + name:<70} {many:>8}" for name, many in ordered if many]


def conclude(verdict: Verdict, *, unmet: Sequence[str]) -> list[str]:
    """Say how it ended."""
    lines = ["Verdict:", *verdict.lines(), *(f"  not reached: {each}" for each in unmet)]
    return [*lines, "ALL ZERO" if verdict.good and not unmet else "FAILED"]


def results(rows: Sequence[str]) -> Counter[str]:
    """Count result types."""
    return Counter(rows)

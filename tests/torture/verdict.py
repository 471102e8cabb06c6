"""The verdict: what the producers asked for, against the rows that came out and what the API was paid for."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evidence import Billing, Row
from producers import Prompt

EXAMPLES = 8


@dataclass(slots=True)
class Evidence:
    """Everything that was found when all had come to rest."""

    asked: Mapping[str, Prompt]
    rows: Sequence[Row]
    billing: Billing
    stuck: Sequence[str] = ()
    held: Sequence[str] = ()
    leftover_keys: Sequence[str] = ()
    leftover_files: Sequence[str] = ()
    leftover_processes: Sequence[str] = ()
    broken_logs: Sequence[str] = ()
    unclean_exits: Sequence[str] = ()


@dataclass(slots=True)
class Verdict:
    """Every kind of failure by name, with what shows it; all of them must be empty."""

    failures: dict[str, list[str]] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether nothing at all went wrong."""
        return not any(self.failures.values())

    def lines(self) -> list[str]:
        """Spell it out, with a few examples of each failure."""
        told = []
        for name, shown in self.failures.items():
            told.append(f"  {name:<58} {len(shown):>6}")
            told += [f"      {each}" for each in shown[:EXAMPLES]]
        return told


def judge(evidence: Evidence) -> Verdict:
    """Judge what was found."""
    asked, rows, billing = evidence.asked, evidence.rows, evidence.billing
    times = Counter(row.id for row in rows)
    succeeded = {row.id for row in rows if row.result == "succeeded"}
    numbers = {prompt.number: prompt for prompt in asked.values()}
    paid_ids = {numbers[number].id for number in billing.billed if number in numbers}
    failures = {
        "lost: prompts without a row": sorted(asked.keys() - times.keys()),
        "doubled: prompts with more than one row": [
            f"{name}: {[row.file for row in rows if row.id == name]}" for name, many in times.items() if many > 1
        ],
        "paid twice: prompts billed more than once": [
            f"prompt-{number}: {', '.join(billing.where[number])}"
            for number, many in billing.billed.items()
            if many > 1
        ],
        "foreign: rows or bills that nobody asked for": [
            *sorted(times.keys() - asked.keys()),
            *(f"bill for mark {number}" for number in billing.billed if number not in numbers),
        ],
        "mixed up: rows with another prompt's answer or metadata": [
            f"{row.id} in {row.file}" for row in rows if row.id in asked and _is_mixed_up(row, asked[row.id])
        ],
        "paid for, and no answer delivered": sorted(paid_ids - succeeded),
        "delivered an answer that was not paid for": sorted((succeeded & asked.keys()) - paid_ids),
        "stuck: batches or prompts that never came to an end": list(evidence.stuck),
        "held: batches that wait for a human": list(evidence.held),
        "left over: keys in Redis": list(evidence.leftover_keys),
        "left over: temporary files in the sink": list(evidence.leftover_files),
        "left over: processes": list(evidence.leftover_processes),
        "unexpected errors in logs": list(evidence.broken_logs),
        "daemons that did not end in order when asked": list(evidence.unclean_exits),
    }
    return Verdict(failures)


def _is_mixed_up(row: Row, prompt: Prompt) -> bool:
    if row.number != prompt.number:
        return True
    return row.checksum is not None and row.checksum != f"{prompt.checksum:08x}"

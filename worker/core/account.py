"""The account of a drain: every prompt of the batch once, and what becomes of it.

It holds a few dozen bytes per prompt and no payload, so 100,000 prompts fit into some ten megabytes.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from worker.core.custom_id import pattern
from worker.core.entry_ids import entry_id_of, number_of, order
from worker.core.intake import Flaw
from worker.core.model import Batch, ResultType
from worker.core.rulings import SETTLED, Ruling


class Whose(StrEnum):
    """Whose a result line is."""

    OURS = "ours"
    FOREIGN = "foreign"
    DOUBLE = "double"


@dataclass(slots=True)
class Account:
    """Checks off result lines against the batch's range. `results` counts rows by result type."""

    batch: Batch
    deployment: str
    unusable: dict[str, Flaw]
    rulings: dict[int, Ruling] = field(default_factory=dict)
    results: Counter[ResultType] = field(default_factory=Counter)
    foreign: int = 0
    doubled: int = 0
    _ours: re.Pattern[str] = field(init=False)
    _first: int = field(init=False)
    _last: int = field(init=False)

    def __post_init__(self) -> None:
        """Spell once what every line is compared with."""
        self._ours = pattern(self.deployment, self.batch.uid)
        self._first, self._last = order(self.batch.first), order(self.batch.last)

    def identify(self, custom_id: str) -> tuple[Whose, str]:
        """Say whose line this is, and its entry id. A line is ours once; counting is done here."""
        match = self._ours.fullmatch(custom_id)
        if match is None:
            self.foreign += 1
            return Whose.FOREIGN, ""
        entry_id, milliseconds, sequence = match.groups()
        number = number_of(milliseconds, sequence)
        if not self._first <= number <= self._last or entry_id in self.unusable:
            self.foreign += 1
            return Whose.FOREIGN, ""
        if number in self.rulings:
            self.doubled += 1
            return Whose.DOUBLE, entry_id
        self.rulings[number] = SETTLED
        return Whose.OURS, entry_id

    def knows(self, entry_id: str) -> bool:
        """Whether a prompt has been accounted for."""
        return order(entry_id) in self.rulings

    def disclaim(self, entry_id: str) -> None:
        """Take back that a line is ours: there never was such an entry."""
        del self.rulings[order(entry_id)]
        self.foreign += 1

    def enter(self, entry_id: str, ruling: Ruling, result_type: ResultType) -> None:
        """Enter a ruling; a retried prompt has no result yet."""
        if ruling is not SETTLED:
            self.rulings[order(entry_id)] = ruling
        if ruling.fate != "retry":
            self.results[result_type] += 1

    @property
    def complete(self) -> bool:
        """Whether every prompt of the body has its line; ask before the unusable ones are entered."""
        return len(self.rulings) == self.batch.count

    @property
    def all_foreign(self) -> bool:
        """Whether the results are somebody else's altogether: a wrong adoption. A stream cut short proves nothing."""
        return self.foreign >= self.batch.count and not self.rulings

    def in_order(self) -> Iterator[tuple[str, Ruling]]:
        """Yield entry ids and rulings, ascending."""
        for number in sorted(self.rulings):
            yield entry_id_of(number), self.rulings[number]

    def reasons(self, fate: str) -> Counter[str]:
        """Count the prompts with this fate by reason."""
        return Counter(ruling.reason for ruling in self.rulings.values() if ruling.fate == fate)

    @property
    def parks(self) -> bool:
        """Whether a line says that the account is in trouble."""
        return any(ruling.parks for ruling in self.rulings.values())

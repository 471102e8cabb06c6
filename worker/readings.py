"""Reading a batch's results: line by line into the account, the rows of each page handed on, nothing held."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from worker.batches_api import BatchesApi, Complaint, Truncated
from worker.core.account import Account, Whose
from worker.core.cost import Price, PriceTable, Usage, cost_of
from worker.core.custom_id import Token, decode
from worker.core.intake import Flaw, describe_prompt, describe_unusable
from worker.core.model import Batch, Prompt, RemoteBatch, ResultType, State
from worker.core.rows import RowWriter, unusable_result
from worker.core.rulings import (
    SETTLED,
    Line,
    Result,
    Ruling,
    TokenUsage,
    UnreadableLineError,
    read_line,
    read_lines,
    read_results,
    rule,
)
from worker.ledger.ledger import Ledger

PAGE = 500
"""Most lines per page: one look into Redis and one write to the sinks each."""

PAGE_BYTES = 4 * 1024 * 1024

PEEK_LINES = 16
"""So many lines without a token of ours say that a remote batch is somebody else's."""

SPARE_LINES = 1000
"""A stream may have twice the lines that are due, and so many; what has more has no end."""

MOST_MODELS = 100
LONGEST_MODEL = 128
"""Characters. Models are counted by their names, which are the API's to choose."""

_T = TypeVar("_T")
Write = Callable[[Sequence[bytes]], None]


class GarbledError(Exception):
    """A result line cannot be read; the stream is not to be trusted and is read again."""


@dataclass(slots=True)
class Tally:
    """Tokens and money of one model; `microdollars` is None as soon as one price is unknown."""

    tiers: tuple[Price, ...]
    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    microdollars: int | None = 0

    def add(self, usage: Usage) -> None:
        """Count one result in."""
        self.input += usage.input
        self.output += usage.output
        self.cache_read += usage.cache_read
        self.cache_write_5m += usage.cache_write_5m
        self.cache_write_1h += usage.cache_write_1h
        price = cost_of(usage, self.tiers)
        self.microdollars = None if price is None or self.microdollars is None else self.microdollars + price


class Reading:
    """One pass over a batch's results. `waits` are the seconds each settled prompt has waited since it was enqueued."""

    def __init__(self, *, ledger: Ledger, account: Account, prices: PriceTable, now: float) -> None:
        self._ledger = ledger
        self._prices = prices
        self._now = now
        self._batch = account.batch
        self._rows = RowWriter(self._batch)
        self.account = account
        self.tallies: dict[str, Tally] = {}
        self.waits = array("d")
        self._lines = 0
        self._untorn: bool | None = None

    def read_results(self, api: BatchesApi, write: Write) -> None:
        """Stream the remote batch's results. Raises ApiError's kinds and GarbledError; proves nothing by itself."""
        with api.results(self._batch.remote_id or "") as lines:
            for page in _pages(lines, weigh=len):
                write(self._take(page))

    def read_unusable(self, write: Write) -> None:
        """Write the rows of the prompts that never reached the API."""
        for page in _pages(sorted(self.account.unusable)):
            described = self._ledger.prompts.describe(self._batch.lane, page)
            write([self._bury(entry_id, fields or {}) for entry_id, fields in zip(page, described, strict=True)])

    def _take(self, page: Sequence[bytes]) -> list[bytes]:
        ours: list[tuple[str, Line]] = []
        self._lines += len(page)
        if self._lines > 2 * self._batch.count + SPARE_LINES:
            raise GarbledError("lines without end")
        for line in _parse_page(page):
            whose, entry_id = self.account.identify(line.custom_id)
            if whose is Whose.OURS:
                ours.append((entry_id, line))
        described = self._ledger.prompts.describe(self._batch.lane, [entry_id for entry_id, _ in ours])
        results = read_results([line.result for _, line in ours])
        rows: list[bytes] = []
        for (entry_id, line), fields, result in zip(ours, described, results, strict=True):
            if fields is None and self._is_untorn():
                self.account.disclaim(entry_id)
                continue
            known = fields or {}
            prompt = describe_prompt(entry_id, known, known.get(b"id", b"").decode() or entry_id)
            ruling = rule(result, prompt, self._batch)
            if fields is None and ruling.fate == "retry" and self._batch.state is State.ENDED:
                # of an ended batch nothing is settled yet: somebody else deleted the prompt, it cannot be sent again
                ruling = SETTLED
            self._enter(entry_id, ruling, result, prompt)
            if ruling.fate != "retry":
                rows.append(self._rows.write(prompt, line.custom_id, line.result))
        return rows

    def _is_untorn(self) -> bool:
        """Whether all entries of the range are still there: then a line about one that is not is about none of them.

        Had it counted, it would stand in for a line that is missing, and that prompt would be lost.
        """
        if self._untorn is None:
            self._untorn = (
                self._batch.state is State.ENDED
                and sum(1 for _ in self._ledger.prompts.entries(self._batch)) == self._batch.entries
            )
        return self._untorn

    def _enter(self, entry_id: str, ruling: Ruling, result: Result, prompt: Prompt) -> None:
        self.account.enter(entry_id, ruling, _RESULT_TYPES.get(result.type, ResultType.ERRORED))
        if ruling.fate != "retry":
            self.waits.append(max(0.0, self._now - prompt.enqueued_at))
        if result.message is not None and result.message.usage is not None:
            self._add(result.message.model, result.message.usage)

    def _add(self, model: str, used: TokenUsage) -> None:
        written, hour = used.cache_creation_input_tokens or 0, 0
        if used.cache_creation is not None:
            hour = used.cache_creation.ephemeral_1h_input_tokens
            written = used.cache_creation.ephemeral_5m_input_tokens
        read = used.cache_read_input_tokens or 0
        tally = self.tallies.get(model) or self._tally(model)
        tally.add(Usage(used.input_tokens or 0, used.output_tokens or 0, read, written, hour))

    def _tally(self, model: str) -> Tally:
        if len(model) > LONGEST_MODEL or len(self.tallies) >= MOST_MODELS:
            model = "other"
        tiers = self._prices.tiers(model, self._batch.created_at or self._now)
        return self.tallies.setdefault(model, Tally(tiers))

    def _bury(self, entry_id: str, fields: dict[bytes, bytes]) -> bytes:
        flaw = self.account.unusable[entry_id]
        prompt = describe_unusable(entry_id, fields)
        self.account.enter(entry_id, Ruling("bury", flaw, prompt.attempt), ResultType.ERRORED)
        self.waits.append(max(0.0, self._now - prompt.enqueued_at))
        return self._rows.write(prompt, None, unusable_result(flaw))


_RESULT_TYPES = {kind.value: kind for kind in ResultType}


def look_for_token(api: BatchesApi, remote: RemoteBatch, deployment: str) -> Token | None:
    """Read whose an ended remote batch is from its first result lines: our token, None when none is of our making.

    One line that is not ours proves nothing, since a stream may begin with a line that belongs elsewhere: to rule our
    own batch out would pay for it again. Raises ApiError's kinds, Truncated also for results with too few lines to say.
    """
    seen = 0
    with api.results(remote.id) as lines:
        for line in islice(lines, PEEK_LINES):
            try:
                token = decode(parse_line(line).custom_id)
            except GarbledError:
                continue
            if token is not None and token.deployment == deployment:
                return token
            seen += 1
    if seen < min(PEEK_LINES, remote.counts.total):
        raise Truncated(Complaint("too few readable result lines to tell whose they are"))
    return None


def abandoned(ledger: Ledger, batch: Batch) -> dict[str, Flaw]:
    """Return every entry of a batch that an operator gave up, as unusable."""
    known = ledger.prompts.unusable(batch)
    entries = (entry_id.decode() for entry_id, _ in ledger.prompts.entries(batch))
    return {entry_id: known.get(entry_id, Flaw.ABANDONED) for entry_id in entries}


def _parse_page(page: Sequence[bytes]) -> list[Line]:
    try:
        return read_lines(page)
    except UnreadableLineError:
        raise GarbledError("garbled line") from None


def parse_line(raw: bytes) -> Line:
    """Read one line. Raises GarbledError."""
    try:
        return read_line(raw)
    except UnreadableLineError:
        raise GarbledError("garbled line") from None


def _pages(items: Iterable[_T], *, weigh: Callable[[_T], int] = lambda _: 0) -> Iterator[list[_T]]:
    page: list[_T] = []
    weight = 0
    for item in items:
        page.append(item)
        weight += weigh(item)
        if len(page) == PAGE or weight >= PAGE_BYTES:
            yield page
            page, weight = [], 0
    if page:
        yield page

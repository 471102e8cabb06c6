"""Reading a batch's results: line by line into the account, the rows of each page handed on, nothing held."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from worker.batches_api import BatchesApi, Complaint, Truncated
from worker.core.account import Account, Whose
from worker.core.cost import PriceTable, Usage
from worker.core.custom_id import Token, decode
from worker.core.intake import Flaw, describe_prompt, describe_unusable
from worker.core.model import Batch, Prompt, RemoteBatch, ResultType
from worker.core.rulings import (
    Line,
    Result,
    Ruling,
    TokenUsage,
    read_line,
    read_result,
    rule,
    spell_instant,
    unusable_result,
    write_row,
)
from worker.ledger.ledger import Ledger

PAGE = 500
"""Most lines per page: one look into Redis and one write to the sinks each."""

PAGE_BYTES = 4 * 1024 * 1024

_T = TypeVar("_T")
Write = Callable[[Sequence[bytes]], None]


class GarbledError(Exception):
    """A result line cannot be read; the stream is not to be trusted and is read again."""


@dataclass(slots=True)
class Tally:
    """Tokens and money of one model; `microdollars` is None as soon as one price is unknown."""

    tokens: list[int] = field(default_factory=lambda: [0, 0, 0, 0, 0])
    microdollars: int | None = 0


class Reading:
    """One pass over a batch's results. `waits` are the seconds each settled prompt has waited since it was enqueued."""

    def __init__(self, *, ledger: Ledger, account: Account, prices: PriceTable, now: float) -> None:
        self._ledger = ledger
        self._prices = prices
        self._now = now
        self._batch = account.batch
        self._ended_at = msgspec.json.encode(spell_instant(self._batch.ended_at))
        self.account = account
        self.tallies: dict[str, Tally] = {}
        self.waits = array("d")

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
        for raw in page:
            line = _parse(raw)
            whose, entry_id = self.account.identify(line.custom_id)
            if whose is Whose.OURS:
                ours.append((entry_id, line))
        described = self._ledger.prompts.describe(self._batch.lane, [entry_id for entry_id, _ in ours])
        rows: list[bytes] = []
        for (entry_id, line), fields in zip(ours, described, strict=True):
            known = fields or {}
            prompt = describe_prompt(entry_id, known, known.get(b"id", b"").decode() or entry_id)
            result = _parse_result(line)
            ruling = rule(result, prompt, self._batch)
            self._enter(entry_id, ruling, result, prompt)
            if ruling.fate != "retry":
                rows.append(write_row(self._batch, prompt, line.custom_id, bytes(line.result), self._ended_at))
        return rows

    def _enter(self, entry_id: str, ruling: Ruling, result: Result, prompt: Prompt) -> None:
        known = result.type in _RESULT_TYPES
        self.account.enter(entry_id, ruling, ResultType(result.type) if known else ResultType.ERRORED)
        if ruling.fate != "retry":
            self.waits.append(max(0.0, self._now - prompt.enqueued_at))
        if result.message is not None and result.message.usage is not None:
            self._add(result.message.model, result.message.usage)

    def _add(self, model: str, used: TokenUsage) -> None:
        tally = self.tallies.setdefault(model, Tally())
        written, hour = used.cache_creation_input_tokens or 0, 0
        if used.cache_creation is not None:
            hour = used.cache_creation.ephemeral_1h_input_tokens
            written = used.cache_creation.ephemeral_5m_input_tokens
        counts = (used.input_tokens or 0, used.output_tokens or 0, used.cache_read_input_tokens or 0, written, hour)
        tally.tokens = [total + count for total, count in zip(tally.tokens, counts, strict=True)]
        price = self._prices.cost(model, Usage(*counts), self._batch.created_at or self._now)
        tally.microdollars = None if price is None or tally.microdollars is None else tally.microdollars + price

    def _bury(self, entry_id: str, fields: dict[bytes, bytes]) -> bytes:
        flaw = self.account.unusable[entry_id]
        prompt = describe_unusable(entry_id, fields)
        self.account.enter(entry_id, Ruling("bury", flaw, prompt.attempt), ResultType.ERRORED)
        self.waits.append(max(0.0, self._now - prompt.enqueued_at))
        return write_row(self._batch, prompt, None, unusable_result(flaw), self._ended_at)


_RESULT_TYPES = frozenset(ResultType)


def first_token(api: BatchesApi, remote: RemoteBatch, deployment: str) -> Token | None:
    """Read whose an ended remote batch is: the first token of this deployment, None when no line of it has one.

    A single foreign line proves nothing, for one may stand among ours. Raises ApiError's kinds, Truncated also for
    results that are not all there: what was not read proves nothing.
    """
    foreign = 0
    with api.results(remote.id) as lines:
        for line in lines:
            try:
                token = decode(_parse(line).custom_id)
            except GarbledError:
                break
            if token is not None and token.deployment == deployment:
                return token
            foreign += 1
        else:
            if foreign >= max(1, remote.counts.total):
                return None
    raise Truncated(Complaint("results that do not tell whose they are"))


def abandoned(ledger: Ledger, batch: Batch) -> dict[str, Flaw]:
    """Return every entry of a batch that an operator gave up, as unusable."""
    known = ledger.prompts.unusable(batch)
    entries = (entry_id.decode() for entry_id, _ in ledger.prompts.entries(batch))
    return {entry_id: known.get(entry_id, Flaw.ABANDONED) for entry_id in entries}


def _parse(raw: bytes) -> Line:
    try:
        return read_line(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise GarbledError from None


def _parse_result(line: Line) -> Result:
    try:
        return read_result(line.result)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Result(type="unreadable")


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

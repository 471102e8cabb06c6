"""What a result cost, in whole micro-dollars. Integers throughout: money is never a float.

Prices are standard rates, written in USD per million tokens; a batch pays half. They are per model, dated and tiered
by prompt length. A model that is not in the table has an unknown cost, never a cost of 0.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import pairwise
from typing import NoReturn

import msgspec

# One unit is a micro-dollar per million tokens; both the million and the batch's half are divided out once, at the end.
_MILLION = 1_000_000
_BATCH_DIVISOR = 2
_MOST = 10**6 * _MILLION
_RATES = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
_KEYS = frozenset({"models", "from", "max_prompt_tokens", "source", *_RATES})
_DATED_OR_LATEST = re.compile(r"-(?:20\d{6}|latest)\Z")


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens of one result, none of them negative; `input` excludes what was read from or written to the cache."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0

    @property
    def prompt(self) -> int:
        """The length of the whole prompt, cached or not: what a length tier looks at."""
        return self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h


@dataclass(frozen=True, slots=True)
class Price:
    """Standard rates of one model from an instant on, up to a prompt length; in micro-dollars per million tokens."""

    since: float
    max_prompt_tokens: int | None
    rates: tuple[int, int, int, int, int]

    def cost(self, usage: Usage) -> int:
        """Return the batch cost in micro-dollars, rounded half up once."""
        fresh, answer, read, minutes, hour = self.rates
        exact = usage.input * fresh + usage.output * answer + usage.cache_read * read
        exact += usage.cache_write_5m * minutes + usage.cache_write_1h * hour
        divisor = _MILLION * _BATCH_DIVISOR
        return (exact + divisor // 2) // divisor


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Every known price, by model name without `claude-`."""

    prices: Mapping[str, tuple[Price, ...]]

    def cost(self, model: str, usage: Usage, at: float) -> int | None:
        """Return what `usage` cost in a batch at the instant `at`, in micro-dollars; None where no price is known."""
        return cost_of(usage, self.tiers(model, at))

    def tiers(self, model: str, at: float) -> tuple[Price, ...]:
        """Return the prices of a model at the instant `at`, the shortest prompts' first; none where none is known."""
        known = [price for price in self._of(model) if price.since <= at]
        current = max((price.since for price in known), default=at)
        return tuple(price for price in known if price.since == current)

    def _of(self, model: str) -> tuple[Price, ...]:
        """Find a model by its name without `claude-`, else without a date or `-latest` too; nothing else is guessed."""
        name = model.removeprefix("claude-")
        return self.prices.get(name) or self.prices.get(_DATED_OR_LATEST.sub("", name), ())


def cost_of(usage: Usage, tiers: tuple[Price, ...]) -> int | None:
    """Return what `usage` cost in a batch, in micro-dollars; None where no tier is long enough."""
    length = usage.prompt
    for price in tiers:
        if price.max_prompt_tokens is None or length <= price.max_prompt_tokens:
            return price.cost(usage)
    return None


def parse_prices(mapping: Mapping[str, object]) -> PriceTable:
    """Parse the shape of `prices.toml`: `{"price": [{"models": […], "input": "0.10", …}, …]}`.

    Rates are decimal strings, USD per million tokens, standard. Optional are `from` (a date, UTC; without one the price
    holds since ever), `max_prompt_tokens` and `source`. Raises ValueError naming the entry that cannot be used.
    """
    entries = mapping.get("price")
    if not isinstance(entries, list) or set(mapping) != {"price"}:
        raise ValueError("prices: expected one list of tables, [[price]]")
    found: dict[str, list[Price]] = {}
    for number, entry in enumerate(entries, start=1):
        where = f"prices: entry {number}"
        if not isinstance(entry, Mapping):
            _refuse(f"{where}: expected a table")
        models = _models(entry.get("models"), where)
        where = f"{where} ({', '.join(models)})"
        price = _price(entry, where)
        for model in models:
            found.setdefault(model, []).append(price)
    return PriceTable({model: _in_order(model, prices) for model, prices in found.items()})


def _in_order(model: str, prices: list[Price]) -> tuple[Price, ...]:
    """Sort by date, then the shortest tier first, so that the first that fits is the right one."""
    ordered = sorted(prices, key=lambda p: (p.since, p.max_prompt_tokens is None, p.max_prompt_tokens or 0))
    for one, next_one in pairwise(ordered):
        if (one.since, one.max_prompt_tokens) == (next_one.since, next_one.max_prompt_tokens):
            raise ValueError(f"prices: {model} has two prices for the same date and prompt length")
    return tuple(ordered)


def _models(value: object, where: str) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(model, str) and model for model in value):
        raise ValueError(f"{where}: models must be a list of names")
    return [model.removeprefix("claude-") for model in value]


def _price(entry: Mapping[str, object], where: str) -> Price:
    if unknown := sorted(set(entry) - _KEYS):
        raise ValueError(f"{where}: unknown key {unknown[0]}")
    tier = entry.get("max_prompt_tokens")
    if tier is not None and (not isinstance(tier, int) or isinstance(tier, bool) or tier <= 0):
        raise ValueError(f"{where}: max_prompt_tokens must be a positive number")
    a, b, c, d, e = (_rate(entry.get(name), f"{where}: {name}") for name in _RATES)
    return Price(since=_since(entry.get("from"), where), max_prompt_tokens=tier, rates=(a, b, c, d, e))


def _since(value: object, where: str) -> float:
    if value is None:
        return float("-inf")
    if not isinstance(value, date) or isinstance(value, datetime):
        _refuse(f"{where}: from must be a date")
    return datetime.combine(value, time(), UTC).timestamp()


def _rate(value: object, where: str) -> int:
    if not isinstance(value, str):
        _refuse(f'{where} must be a string such as "0.125": USD per million tokens')
    try:
        rate = Decimal(value) * _MILLION
    except ArithmeticError:
        _refuse(f"{where} is no decimal number")
    if not rate.is_finite() or not 0 <= rate <= _MOST or rate != rate.to_integral_value():
        _refuse(f"{where} must be an amount from 0 to {_MOST // _MILLION} in whole micro-dollars")
    return int(rate)


def _refuse(complaint: str) -> NoReturn:
    raise ValueError(complaint)

import tomllib
from datetime import UTC, datetime
from fractions import Fraction
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.cost import PriceTable, Usage, parse_prices

MILLION = 1_000_000
NOW = datetime(2026, 11, 22, tzinfo=UTC).timestamp()
EACH = Usage(input=MILLION, output=MILLION, cache_read=MILLION, cache_write_5m=MILLION, cache_write_1h=MILLION)


def shipped() -> PriceTable:
    """Parse the table that comes with batchmill."""
    return parse_prices(tomllib.loads(resources.files("worker.core").joinpath("prices.toml").read_text()))


def entry(**changes: object) -> dict[str, object]:
    """Build a usable entry, changed as the test wants it."""
    rates = {"input": "1", "output": "2", "cache_read": "0.1", "cache_write_5m": "1.25", "cache_write_1h": "2"}
    return {"models": ["toy-1"], **rates, **changes}


@pytest.mark.parametrize(
    ("model", "standard"),
    [  # in, out, write 5m, write 1h, read: USD per million tokens, as published
        ("fable-5-2", ("8", "40", "10", "16", "0.20")),
        ("fable-5-1", ("10", "50", "12.5", "20", "0.25")),
        ("mythos-5-1", ("10", "50", "12.5", "20", "0.25")),
        ("fable-5", ("10", "50", "12.5", "20", "1.00")),
        ("mythos-5", ("10", "50", "12.5", "20", "1.00")),
        ("opus-5-5", ("4", "20", "5", "8", "0.20")),
        ("opus-5", ("5", "25", "6.25", "10", "0.50")),
        ("opus-4-8", ("5", "25", "6.25", "10", "0.50")),
        ("opus-4-7", ("5", "25", "6.25", "10", "0.50")),
        ("opus-4-6", ("5", "25", "6.25", "10", "0.50")),
        ("opus-4-5", ("5", "25", "6.25", "10", "0.50")),
        ("sonnet-5-5", ("2", "10", "2.5", "4", "0.10")),
        ("sonnet-5", ("2", "10", "2.5", "4", "0.20")),
        ("sonnet-4-6", ("3", "15", "3.75", "6", "0.30")),
        ("sonnet-4-5", ("3", "15", "3.75", "6", "0.30")),
        ("haiku-4-5", ("1", "5", "1.25", "2", "0.10")),
    ],
)
def test_every_published_price_is_shipped_and_halved(model: str, standard: tuple[str, ...]) -> None:
    """A million tokens of each kind cost half of the standard rates, to the micro-dollar."""
    expected = sum(Fraction(rate) for rate in standard) * MILLION / 2
    assert shipped().cost(f"claude-{model}", EACH, NOW) == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("input", 500_000),
        ("output", 2_500_000),
        ("cache_read", 50_000),
        ("cache_write_5m", 625_000),
        ("cache_write_1h", 1_000_000),
    ],
)
def test_every_kind_of_token_has_its_own_rate(kind: str, expected: int) -> None:
    """Reads, both writes, input and output of haiku-4-5 are told apart."""
    assert shipped().cost("claude-haiku-4-5", Usage(**{kind: MILLION}), NOW) == expected


@pytest.mark.parametrize("model", ["claude-haiku-4-5-20251001", "claude-haiku-4-5", "haiku-4-5", "haiku-4-5-latest"])
def test_a_dated_name_and_an_alias_cost_the_same(model: str) -> None:
    """The prefix, a date and `-latest` are the only things a name may have besides."""
    assert shipped().cost(model, Usage(input=MILLION), NOW) == 500_000


@pytest.mark.parametrize(
    "model",
    [
        "",
        "claude-",
        "claude-haiku-4",
        "claude-haiku-4-5-2025",
        "claude-haiku-4-5-20251001-v1",
        "gpt-5",
        "haiku",
        "claude-opus-5-50",
        "anthropic.claude-haiku-4-5",
        "CLAUDE-HAIKU-4-5",
        "claude-mythos-5-2",
        "claude-opus-4-1",
    ],
)
def test_an_unknown_model_has_an_unknown_cost(model: str) -> None:
    """None and never 0: a wrong total looks right for a long time."""
    assert shipped().cost(model, EACH, NOW) is None


def test_a_price_begins_on_its_date() -> None:
    """Cache reads of sonnet-5-5 halved on 2026-10-07, 00:00 UTC."""
    change = datetime(2026, 10, 7, tzinfo=UTC).timestamp()
    read = Usage(cache_read=MILLION)
    assert shipped().cost("claude-sonnet-5-5", read, change - 1) == 100_000
    assert shipped().cost("claude-sonnet-5-5", read, change) == 50_000


def test_a_time_before_the_first_price_is_unknown() -> None:
    """A model has no price before it had one."""
    day = datetime(2026, 10, 7, tzinfo=UTC)
    table = parse_prices({"price": [entry(**{"from": day.date()})]})
    assert table.cost("toy-1", EACH, day.timestamp() - 1) is None


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (Usage(input=100_000), 5_000),
        (Usage(input=100_001), 25_000),
        (Usage(input=1, cache_read=99_999), 500),
        (Usage(input=1, cache_read=100_000), 2_500),
        (Usage(cache_write_5m=50_000, cache_write_1h=50_001), 31_250 // 2 + 25_000),
        (Usage(input=100_000, output=MILLION), 5_000 + 250_000),
    ],
)
def test_the_length_tier_looks_at_the_whole_prompt(usage: Usage, expected: int) -> None:
    """Cached tokens make a prompt of haiku-5-5 long, output does not; beyond 100,000 all of it costs more."""
    cost = shipped().cost("claude-haiku-5-5", usage, NOW)
    assert cost is not None
    assert abs(cost - expected) <= 1


def test_a_prompt_beyond_the_last_tier_is_unknown() -> None:
    """A table without an open end says nothing about longer prompts."""
    table = parse_prices({"price": [entry(max_prompt_tokens=10)]})
    assert table.cost("toy-1", Usage(input=10), NOW) == 5
    assert table.cost("toy-1", Usage(input=11), NOW) is None


@pytest.mark.parametrize(("tokens", "expected"), [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2)])
def test_halves_are_rounded_up_once(tokens: int, expected: int) -> None:
    """One token at half a micro-dollar costs one, two cost one, three cost two."""
    table = parse_prices({"price": [entry()]})
    assert table.cost("toy-1", Usage(input=tokens), NOW) == expected


@given(*[st.integers(0, 10**12)] * 5)
def test_money_is_exact_to_half_a_micro_dollar(a: int, b: int, c: int, d: int, e: int) -> None:
    """However large the usage, the sum is the exact one, rounded once."""
    cost = parse_prices({"price": [entry()]}).cost("toy-1", Usage(a, b, c, d, e), NOW)
    exact = (a + 2 * b + Fraction(c, 10) + Fraction(5 * d, 4) + 2 * e) / 2
    assert isinstance(cost, int)
    assert -Fraction(1, 2) < cost - exact <= Fraction(1, 2)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"input": 0.1}, "entry 1 \\(toy-1\\): input must be a string"),
        ({"input": "free"}, "input is no decimal number"),
        ({"input": "NaN"}, "input must be an amount"),
        ({"input": "-1"}, "input must be an amount"),
        ({"input": "1e999999999"}, "input"),
        ({"output": "0.0000001"}, "output must be an amount"),
        ({"cache_read": None}, "cache_read must be a string"),
        ({"models": []}, "entry 1: models"),
        ({"models": "toy-1"}, "entry 1: models"),
        ({"from": "2026-10-07"}, "from must be a date"),
        ({"from": datetime(2026, 10, 7, tzinfo=UTC)}, "from must be a date"),
        ({"max_prompt_tokens": 0}, "max_prompt_tokens"),
        ({"max_prompt_tokens": True}, "max_prompt_tokens"),
        ({"inptu": "1"}, "unknown key inptu"),
    ],
)
def test_an_unusable_entry_is_named(changes: dict[str, object], complaint: str) -> None:
    """A wrong price is refused with its place in the table, not guessed at."""
    with pytest.raises(ValueError, match=complaint):
        parse_prices({"price": [entry(**changes)]})


@pytest.mark.parametrize("mapping", [{}, {"price": {}}, {"price": ["toy"]}, {"price": [], "prize": 1}])
def test_a_table_of_another_shape_is_refused(mapping: dict[str, object]) -> None:
    """Something else than a list of tables holds no prices."""
    with pytest.raises(ValueError, match="prices: "):
        parse_prices(mapping)


def test_two_prices_for_the_same_case_are_refused() -> None:
    """Which of the two holds would be a guess."""
    with pytest.raises(ValueError, match="toy-1 has two prices"):
        parse_prices({"price": [entry(), entry(models=["toy-2", "claude-toy-1"])]})

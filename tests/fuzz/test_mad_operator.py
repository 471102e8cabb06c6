import io
import json
import random
import tomllib
from collections import UserDict
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fuzzing import chance, many
from hostile_entries import PARAMS, may_be_metadata, may_be_sent
from hostile_json import GOOD, NASTY, damage

from worker.cli.prompt_lines import read_lines
from worker.client.spelling import spell_or_refuse
from worker.config import Config, ConfigError, load_config
from worker.ledger.store import LedgerRefusedError, LedgerUnavailableError, Store

SHIPPED = (Path(__file__).parents[2] / "config" / "batchmill.toml").read_bytes()
ODD_SETTINGS = (
    *(
        "",
        " ",
        "0",
        "-1",
        "1.5",
        "1e9",
        "nan",
        "inf",
        "9" * 5000,
        "9" * 5000 + "d",
        "1" * 400,
        "0x" + "f" * 5000,
        "1_0",
    ),
    *("\u0663", "30s", "5 m", "1GiB", "true", "on", "{batch}", "{", "{0}{batch}", "{batch!r:>9}", "a\x00b", "\x1b[31m"),
    *("redis://u:p@ss@h/0", "unix://", "sk-ant-x", "a,b", "[", "'", '"', "é" * 3000, "\udcff", "../..", "/dev/null/x"),
)
NUMBERS = (b"9" * 400, b"9" * 5000, b"0x" + b"f" * 5000, b"inf", b"nan", b"-0.0", b"1e308", b"1979-05-27", b"[]", b"{}")
NESTED = (b"x = " + b"[" * 5000, b"x = " + b"{a=" * 3000, b"a." * 3000 + b"b = 1", b"[a" + b".b" * 3000 + b"]")


def load(folder: Path, text: bytes, environ: dict[str, str]) -> Config | tuple[str, ...]:
    """Load a configuration; returns it, or all that is wrong with it."""
    (folder / "odd.toml").write_bytes(text)
    try:
        return load_config(path="odd.toml", environ=environ, cwd=folder)
    except ConfigError as error:
        return error.problems


def odd_text(luck: random.Random) -> bytes:
    """Make a file: the shipped one with damage, or with some values that are none."""
    kind = luck.random()
    if kind < 0.1:
        return luck.choice((*NESTED, *NASTY))
    if kind < 0.6:
        return damage(luck, SHIPPED)
    lines = SHIPPED.split(b"\n")
    for at in luck.sample(range(len(lines)), k=2):
        name, equals, _ = lines[at].partition(b"=")
        if equals and not name.startswith(b"#"):
            lines[at] = name + b"= " + luck.choice((*NUMBERS, json.dumps(luck.choice(ODD_SETTINGS)).encode()))
    return b"\n".join(lines)


def odd_environment(luck: random.Random) -> dict[str, str]:
    """Make variables: names of ours and almost ours."""
    parts = (
        "",
        "LANES",
        "DEFAULT",
        "MAX_COUNT",
        "POLL",
        "INTERVAL",
        "SINKS",
        "RESULTS",
        "PATH",
        "REDIS",
        "URL",
        "X" * 999,
    )
    names = ["BATCHMILL_" + "__".join(luck.choices(parts, k=luck.choice((1, 2, 3, 3)))) for _ in range(2)]
    names += luck.sample(("PORT", "REDIS_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "CREDENTIALS_DIRECTORY"), k=1)
    return {name: luck.choice(ODD_SETTINGS) for name in names}


def test_thousands_of_configurations_load_or_say_what_is_wrong(tmp_path: Path) -> None:
    """A configuration, or sentences that name the place; never a traceback."""
    luck = chance()
    loaded = 0
    for _ in range(many(1500)):
        text, environ = odd_text(luck), odd_environment(luck) if luck.random() < 0.5 else {}
        found = load(tmp_path, text, environ)
        if isinstance(found, Config):
            loaded += 1
            assert isinstance(tomllib.loads(text.decode()), dict)
            continue
        assert found
        assert all("set_int_max" not in problem and problem.strip() == problem for problem in found)
    assert loaded


@pytest.mark.parametrize("text", [*NESTED, b"x = " + b"9" * 5000])
def test_a_file_that_python_gives_up_on_is_complained_about(tmp_path: Path, text: bytes) -> None:
    """The parser is recursive, and spells no number of thousands of digits."""
    found = load(tmp_path, text, {})
    assert isinstance(found, tuple)
    assert found[0].startswith("odd.toml: ")


@pytest.mark.parametrize("value", [b"9" * 400, b"0x" + b"f" * 5000, b"inf", b"-1"])
@pytest.mark.parametrize("name", [b"poll.interval", b"lanes.default.max_count", b"lanes.default.max_bytes"])
def test_a_number_beyond_all_bounds_is_out_of_bounds(tmp_path: Path, name: bytes, value: bytes) -> None:
    """It has no place in a double, and none in the complaint."""
    found = load(tmp_path, name + b" = " + value, {})
    assert isinstance(found, tuple)
    assert found[0].startswith(f"odd.toml: {name.decode()} must be ")


@pytest.mark.parametrize("place", ["x" * 5000, "no-folder"])
def test_credentials_that_cannot_be_looked_for_are_complained_about(tmp_path: Path, place: str) -> None:
    """Only where there are none is there nothing to complain about."""
    found = load(tmp_path, b"", {"CREDENTIALS_DIRECTORY": str(tmp_path / place)})
    missing = place == "no-folder"
    assert isinstance(found, Config) if missing else "the API key's file" in str(found)


@pytest.mark.parametrize(
    "prompt",
    [
        None,
        5,
        5.0,
        True,
        object(),
        iter([GOOD]),
        (each for each in [GOOD]),
        {1, 2},
        range(99),
        "text",
        b"bytes",
        [],
        {},
    ],
)
def test_what_is_no_prompt_is_refused_in_a_sentence(prompt: Any) -> None:
    """One of many that is nothing at all holds up nothing."""
    assert isinstance(spell_or_refuse(prompt), str)


@pytest.mark.parametrize(
    "given",
    [
        {"params": UserDict(GOOD)}, {"params": GOOD | {"x": object()}}, {"params": GOOD | {"x": float("nan")}},
        {"params": GOOD | {"x": 10**400}}, {"params": GOOD | {"x": 10**5000}}, {"params": GOOD | {"x": "\ud800"}},
        {"params": GOOD | {"x": b"x"}}, {"params": GOOD | {"x": Decimal(1)}}, {"params": {**GOOD, (1, 2): 3}},
        {"params": "\ud800"}, {"params": bytearray(PARAMS)}, {"params": [GOOD]}, {"params": GOOD, "id": 5},
        {"params": GOOD, "id": b"x"}, {"params": GOOD, "id": ""}, {"params": GOOD, "id": "\ud800"},
        {"params": GOOD, "metadata": object()}, {"params": GOOD, "metadata": "\ud800"},
        {"params": GOOD, "deadline": float("nan")}, {"params": GOOD, "deadline": float("inf")},
        {"params": GOOD, "deadline": 10**400}, {"params": GOOD, "deadline": -1}, {"params": GOOD, "deadline": True},
        {"params": GOOD, "deadline": datetime.now(UTC)}, {"params": GOOD, "reply_to": "a b"},
        {"params": GOOD, "traceparent": "a\r\nb"}, {"params": GOOD, "x" * 100_000: 1}, {"params": GOOD, None: 1},
    ],
)  # fmt: skip
def test_arguments_that_could_never_be_used_are_refused_in_a_sentence(given: dict[Any, Any]) -> None:
    """Short enough for a log, and without anything of the prompt."""
    refusal = spell_or_refuse(given)
    assert isinstance(refusal, str)
    assert 0 < len(refusal) < 200


def test_thousands_of_lines_are_prompts_or_refused() -> None:
    """Each line by itself, and what is let in is what the door would let in."""
    luck = chance()
    lines = [odd_line(luck).replace(b"\n", b" ") for _ in range(many(3000))]
    found = {line.number: line for line in read_lines(io.BytesIO(b"\n".join(lines)), longest=50_000)}
    assert len(found) == sum(bool(line.strip()) for line in lines)
    usable = 0
    for line in found.values():
        assert len(line.reason) < 300
        if line.prompt is None:
            continue
        spelled = spell_or_refuse(line.prompt)
        if isinstance(spelled, str):
            continue
        usable += 1
        assert may_be_sent(spelled[b"params"], room=10**9)
        assert b"metadata" not in spelled or may_be_metadata(spelled[b"metadata"])
        assert spelled[b"params"] in lines[line.number - 1]
    assert usable


def odd_line(luck: random.Random) -> bytes:
    """Make a line of a file for `batchmill enqueue`."""
    given: dict[str, Any] = {"params": GOOD}
    for name in luck.sample(("id", "custom_id", "metadata", "deadline", "reply_to", "Params", "traceparent"), k=2):
        given[name] = luck.choice((None, "a", 5, -1, 1e9, True, [], {"a": 1}, "a b", "\ud800", "x" * 300))
    whole = luck.choice((given, given, GOOD, [given], "text", None))
    raw = json.dumps(whole).encode()
    return luck.choice((raw, raw, damage(luck, raw), luck.choice(NASTY), raw + b"x" * 60_000))


@pytest.mark.parametrize(
    "url",
    ["redis://h:99999/0", "redis://h/0?socket_timeout=x", "redis://h/0?foo=bar", "redis://[::1", "redis://h:x/0",
     "rediss://h?ssl_cert_reqs=zzz", "redis://h?max_connections=x", "http://h", "", "redis://h?protocol=x"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_before_it_is_used(url: str) -> None:
    """What is wrong behind its question mark too."""
    with pytest.raises((LedgerRefusedError, LedgerUnavailableError)):
        Store.connect(url, "batchmill:").read("ping")

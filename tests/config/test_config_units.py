import math
import re

import pytest

from worker.config.units import choice, count, duration, flag, size, template, words

any_duration = duration("0s", "3650d")
any_size = size("0B", "16TB")


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("250ms", 0.25),
        ("30s", 30.0),
        ("5m", 300.0),
        ("24h", 86_400.0),
        ("7d", 604_800.0),
        ("1.5h", 5400.0),
        ("10", 10.0),
        (10, 10.0),
        (0.5, 0.5),
        (" 2 s ", 2.0),
        (0, 0.0),
    ],
)
def test_a_duration_becomes_seconds(written: object, seconds: float) -> None:
    """Units are optional, seconds are what a bare number means."""
    assert any_duration(written) == seconds


@pytest.mark.parametrize("written", ["", "s", "-1s", "1w", "1 h 30 m", "ten", True, None, [], -1, math.inf, math.nan])
def test_what_is_no_duration_is_refused(written: object) -> None:
    """Neither infinity nor a boolean is a time."""
    with pytest.raises(ValueError, match="must be a duration"):
        any_duration(written)


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("64MB", 64_000_000),
        ("1GiB", 2**30),
        ("2KiB", 2048),
        ("3kB", 3000),
        ("1TB", 10**12),
        ("512B", 512),
        ("1.5gb", 1_500_000_000),
        ("77", 77),
        (77, 77),
        ("1 MiB", 2**20),
    ],
)
def test_a_size_becomes_bytes(written: object, number: int) -> None:
    """MB counts in thousands, MiB in 1024s."""
    assert any_size(written) == number


@pytest.mark.parametrize("written", ["", "MB", "-1MB", "1m", "1 megabyte", 1.5, True, None, -1])
def test_what_is_no_size_is_refused(written: object) -> None:
    """A float of bytes or a bare `m` would be a guess."""
    with pytest.raises(ValueError, match="must be a size"):
        any_size(written)


@pytest.mark.parametrize("written", ["0s", "9ms", "61s", 61])
def test_a_duration_out_of_range_names_the_range(written: object) -> None:
    """The operator learns both ends in the words of the file."""
    with pytest.raises(ValueError, match="must be from 10ms to 1m"):
        duration("10ms", "1m")(written)


@pytest.mark.parametrize("written", ["10ms", "1m"])
def test_both_ends_of_a_range_belong_to_it(written: str) -> None:
    """From and to are inclusive."""
    assert duration("10ms", "1m")(written) == any_duration(written)
    assert size("10B", "20B")(10) == 10
    assert size("10B", "20B")("20B") == 20
    assert [count(1, 2)(number) for number in (1, 2)] == [1, 2]


def test_a_size_out_of_range_names_the_range() -> None:
    """The limit of the API is in the message."""
    with pytest.raises(ValueError, match="must be from 1kB to 250MB, not '251MB'"):
        size("1kB", "250MB")("251MB")


@pytest.mark.parametrize("written", [True, 1.0, "1.0", "one", None, "", "1__0", "²"])
def test_a_count_is_a_whole_number(written: object) -> None:
    """A boolean is no number here, although Python says so."""
    with pytest.raises(ValueError, match="must be a whole number"):
        count(0, 10)(written)


@pytest.mark.parametrize(("written", "number"), [("10_000", 10_000), (7, 7), (" 7 ", 7)])
def test_a_count_may_come_from_the_environment(written: object, number: int) -> None:
    """Variables hold strings, with underscores if one likes."""
    assert count(0, 100_000)(written) == number


@pytest.mark.parametrize("written", [-1, 100_001, "100001"])
def test_a_count_out_of_range_names_the_range(written: object) -> None:
    """Large limits are written as in the file."""
    with pytest.raises(ValueError, match="must be from 0 to 100_000"):
        count(0, 100_000)(written)


@pytest.mark.parametrize(("written", "value"), [(True, True), ("Yes", True), ("0", False), ("off", False)])
def test_a_flag_has_a_few_spellings(written: object, value: object) -> None:
    """Environments say 1 or yes where TOML says true."""
    assert flag(written) is value


@pytest.mark.parametrize("written", [1, 0, "maybe", "", None])
def test_what_is_no_flag_is_refused(written: object) -> None:
    """A number in a file is a mistake."""
    with pytest.raises(ValueError, match="must be true or false"):
        flag(written)


def test_a_wrong_word_is_answered_with_the_right_ones() -> None:
    """All the choices stand in the message."""
    with pytest.raises(ValueError, match="must be one of auto, json, not 'jsno'"):
        choice("auto", "json")("jsno")


@pytest.mark.parametrize("written", ["a, b", "a,b,", ["a", "b"]])
def test_a_list_may_be_separated_by_commas(written: object) -> None:
    """So that an environment variable can hold one."""
    assert words("[a-z]", "letters")(written) == ("a", "b")


@pytest.mark.parametrize("written", [5, ["A"], [1], "a;b"])
def test_a_list_of_something_else_is_refused(written: object) -> None:
    """Each word is checked."""
    with pytest.raises(ValueError, match="must be a list of letters"):
        words("[a-z]", "letters")(written)


@pytest.mark.parametrize("written", ["", "{batch_id}", "{}", "{lane", "{lane!r}", "{lane:>9}", "a\nb", 5])
def test_a_path_names_only_what_it_may(written: object) -> None:
    """A typo in braces would otherwise surface when the first results arrive."""
    with pytest.raises(ValueError, match=re.escape("only {lane}, {batch} may stand in braces")):
        template("lane", "batch")(written)


@pytest.mark.parametrize("written", ["redis://:hunter2@host", "sk-ant-hunter2", "x?password=hunter2"])
def test_a_secret_in_the_wrong_line_is_not_quoted(written: str) -> None:
    """A key pasted where a number belongs stays out of the error."""
    for parse in (any_duration, any_size, count(0, 1), flag, choice("a")):
        with pytest.raises(ValueError, match="must be") as caught:
            parse(written)
        assert "hunter2" not in str(caught.value)

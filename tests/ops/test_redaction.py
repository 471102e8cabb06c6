from dataclasses import dataclass
from pathlib import Path

import pytest

from worker.telemetry.redaction import LONGEST_FIELD, Redactor
from worker.telemetry.tracebacks import clip, describe, render


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("key sk-ant-api03-AbC_d-9 used", "key sk-ant-[redacted] used"),
        ("Authorization: Bearer abc.def", "Authorization: [redacted]"),
        ("authorization=Basic dXNlcjpwdw==", "authorization=[redacted]"),
        ("proxy-authorization: Token abc, next", "proxy-authorization: [redacted], next"),
        ("Authorization: bare", "Authorization: [redacted]"),
        ("{'x-api-key': 'abc123'}", "{'x-api-key': '[redacted]'}"),
        ("[(b'X-Api-Key', b'abc123')]", "[(b'X-Api-Key', b'[redacted]')]"),
        ("sent bearer abcdef123 along", "sent bearer [redacted] along"),
        ("redis://:p@ss/w#rd@db:6379/0", "redis://[redacted]@db:6379/0"),
        ("rediss://u:pw@db", "rediss://[redacted]@db"),
        ("https://u:p@host/x@y", "https://[redacted]@host/x@y"),
        ("https://host/a@b", "https://host/a@b"),
        ("redis://db?password=abc&db=1", "redis://db?password=[redacted]&db=1"),
        (
            "Command # 1 (XADD k params {'my prompt)'}) of pipeline caused error: OOM",
            "Command # 1 ([redacted]) of pipeline caused error: OOM",
        ),
        ("Command # 2 (XADD k params half a pro", "Command # 2 ([redacted]"),
        ("nothing to hide: batch.sealed, 5 MB", "nothing to hide: batch.sealed, 5 MB"),
    ],
)
def test_what_looks_like_a_secret_is_hidden_and_the_rest_stays(text: str, shown: str) -> None:
    """Keys, header values and the user part of URLs, however they are quoted."""
    assert Redactor().text(text) == shown


def test_known_secrets_are_hidden_wherever_they_appear() -> None:
    """A key of a gateway looks like nothing: its value itself is looked for, the longest first."""
    redactor = Redactor(["hunter", "hunter-two.x", "", "no"])
    assert redactor.text("a hunter-two.xb hunter no") == "a [redacted]b [redacted] no"


@pytest.mark.parametrize("name", ["authorization", "x-api-key", "API_KEY", "redis_password", "http.token", "cookie"])
def test_a_field_named_like_a_secret_is_hidden(name: str) -> None:
    """Also inside other fields."""
    hidden = "[redacted]" if "." not in name else "hunter"
    assert Redactor().field(name, "hunter") == hidden
    assert Redactor().field("headers", {name: "hunter"}) == {name: hidden}


@pytest.mark.parametrize("name", ["params", "messages", "metadata", "prompt", "body"])
def test_a_field_that_carries_a_prompt_is_withheld(name: str) -> None:
    """Whoever logs one by mistake logs nothing."""
    assert Redactor().field(name, {"content": "secret"}) == "[withheld]"
    assert Redactor().field("facts", [{name: "secret"}]) == [{name: "[withheld]"}]


def test_counts_and_limits_are_no_secrets() -> None:
    """`max_tokens` ends in a suspicious word and is a number."""
    facts = {"max_tokens": 5, "tokens": 7, "ratio": 0.5, "on": True, "reason": None, "path": Path("a/b")}
    assert Redactor().field("facts", facts) == {**facts, "path": "a/b"}


def test_objects_and_bytes_are_shown_as_what_they_are() -> None:
    """Their repr may hold a prompt."""

    @dataclass
    class Letter:
        text: str

    shown = Redactor().field("facts", [Letter("secret"), b"secret", ValueError("secret")])
    assert shown == ["<Letter>", "<6 bytes>", "ValueError: [message withheld]"]


def test_a_long_field_is_cut_and_its_secret_with_it() -> None:
    """A field holds at most a kilobyte, and the cut leaves no half of a URL's password readable."""
    redactor = Redactor()
    shown = redactor.text("x" * 5_000)
    assert (len(shown), shown[-1]) == (LONGEST_FIELD, "…")
    url = "y" * (LONGEST_FIELD - 20) + " redis://user:hunter22hunter22@db"
    assert "hunter" not in redactor.text(url)


@pytest.mark.timeout(3)
@pytest.mark.parametrize("bait", ["redis://", "Command # 1 (", "authorization: ", "://", "a", "sk-ant-", "?token="])
def test_text_made_to_be_slow_is_not(bait: str) -> None:
    """A search that starts anew at every bait would take seconds for a traceback of them."""
    redactor = Redactor()
    assert len(redactor.text(bait * 1_000_000)) <= LONGEST_FIELD
    assert len(redactor.text(bait * (60_000 // len(bait)), 8_192, clip=clip)) <= 8_192


def test_what_cannot_be_written_as_utf8_is_replaced() -> None:
    """A lone surrogate would lose the line."""
    assert Redactor().text("a\ud800b") == "a?b"


def test_deep_and_wide_fields_end_somewhere() -> None:
    """A field that contains itself is no endless loop, and a million items are fifty."""
    knot: list[object] = []
    knot.append(knot)
    assert Redactor().field("knot", knot) == [[[["<list>"]]]]
    wide = Redactor().field("wide", list(range(1_000_000)))
    assert isinstance(wide, list)
    assert len(wide) == 50


def test_an_exception_that_cannot_print_itself_is_still_described() -> None:
    """A broken __str__ loses the message, not the line."""

    class BrokenError(OSError):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert describe(BrokenError("x")) == (
        "test_an_exception_that_cannot_print_itself_is_still_described.<locals>.BrokenError: [message withheld]"
    )


def test_causes_are_followed_but_not_in_circles() -> None:
    """Two exceptions that caused each other are told once each."""
    first, second = TypeError("first"), TypeError("second")
    first.__cause__, second.__cause__ = second, first
    assert render(first) == "TypeError: second\n\nwhich led to:\n\nTypeError: first"


def test_the_members_of_a_group_are_named() -> None:
    """A group says which kinds it holds."""
    assert render(ExceptionGroup("secret", [TypeError("a"), ValueError("secret")])) == (
        "ExceptionGroup: [message withheld]\n  | TypeError: a\n  | ValueError: [message withheld]"
    )


def test_a_long_traceback_keeps_both_ends() -> None:
    """Where it came in, and where it broke."""
    cut = clip("entrance" + "x" * 9_000 + "the end", 90)
    assert len(cut) <= 90
    assert cut.startswith("entrance")
    assert cut.endswith("the end")

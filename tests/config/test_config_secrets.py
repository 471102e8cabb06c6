import pickle

import pytest

from worker.config import Config, Redis, Secret, redact_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:hunter2@host:6379/0", "redis://***@host:6379/0"),
        ("rediss://:hunter2@host", "rediss://***@host"),
        ("redis://hunter2@host", "redis://***@host"),
        ("redis://:hun@ter2@host/1", "redis://***@host/1"),
        ("redis://:hun/ter2@host/1", "redis://***@host/1"),
        (":hunter2@host", "***@host"),
        ("unix:///run/redis.sock?db=1&password=hunter2", "unix:///run/redis.sock?db=***&password=***"),
        ("redis://u:hunter2@host?password=hun@ter2", "redis://***"),
        ("redis://:hun?x=ter2@host", "redis://***"),
        ("http://127.0.0.1:8787", "http://127.0.0.1:8787"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_what_is_secret_in_it(url: str, shown: str) -> None:
    """User, password and query values are hidden, even where the URL is malformed."""
    assert redact_url(url) == shown


def test_a_secret_prints_as_stars() -> None:
    """No way of printing reaches the value."""
    key = Secret("hunter2")
    shown = [str(key), repr(key), f"{key}", f"{key!a}", f"{[key]}", format(key)]
    assert all("***" in text and "hunter2" not in text for text in shown)
    assert key.reveal() == "hunter2"


def test_secrets_compare_by_value_and_survive_a_process_boundary() -> None:
    """A configuration can be compared and handed to a subprocess."""
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1
    assert pickle.loads(pickle.dumps(Secret("a"))).reveal() == "a"  # noqa: S301  # our own bytes


def test_an_empty_secret_is_false() -> None:
    """Code that needs a key asks `if not key`."""
    assert not Secret("")
    assert Secret("a")


def test_a_printed_configuration_shows_no_password() -> None:
    """The URLs stay out of the repr, they may hold one."""
    config = Config(redis=Redis(url="redis://:hunter2@host"))
    assert "hunter2" not in repr(config)

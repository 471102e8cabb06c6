"""Who we are to Redis: what stands in the URL, what beside it, and every spelling that must not be seen."""

import pytest

from worker.core.access import FROM_URL, RedisAccess, passwords_in, user_in

FULL = RedisAccess("mill", "hunter2", "ca.pem", "mill.pem", "mill.key")


@pytest.mark.parametrize("url", ["redis://h/0", "rediss://h/0", "unix:///run/redis.sock"])
def test_a_url_that_says_all_is_left_alone(url: str) -> None:
    """An empty word would win over the one in the URL."""
    assert FROM_URL.options(url) == {}


def test_certificates_are_for_tls_alone() -> None:
    """redis-py refuses such words on a plain connection."""
    assert FULL.options("redis://h/0") == {"username": "mill", "password": "hunter2"}
    assert FULL.options("rediss://h/0") == {
        "username": "mill",
        "password": "hunter2",
        "ssl_ca_certs": "ca.pem",
        "ssl_certfile": "mill.pem",
        "ssl_keyfile": "mill.key",
    }


def test_the_key_may_be_in_the_file_of_its_certificate() -> None:
    """One file for both is usual."""
    both = RedisAccess(tls_cert_file="mill.pem").options("rediss://h/0")
    assert both == {"ssl_certfile": "mill.pem", "ssl_keyfile": "mill.pem"}


@pytest.mark.parametrize(
    ("url", "user"),
    [
        ("redis://mill:hunter2@h/0", "mill"),
        ("redis://h/0?username=mill", "mill"),
        ("redis://:hunter2@h/0", ""),
        ("redis://h/0", ""),
        ("redis://[h", ""),
    ],
)
def test_a_user_is_found_where_redis_py_looks_for_one(url: str, user: str) -> None:
    """In front of the host or behind the question mark; what is no URL names nobody."""
    assert user_in(url) == user


@pytest.mark.parametrize(
    ("url", "spellings"),
    [
        ("redis://u:p%40ss@h/0", ["p%40ss", "p@ss"]),
        ("redis://h/0?password=p%40ss", ["p@ss"]),
        ("redis://u:p@ss/word@h/0", ["p@ss/word"]),
        ("redis://u@h/0", []),
        ("redis://h/0", []),
        ("redis://[h", []),
        ("redis://u:hunter2@[h", ["hunter2"]),
    ],
)
def test_a_password_is_known_in_every_spelling(url: str, spellings: list[str]) -> None:
    """What is redacted is whatever may be quoted: as it was written, as it is meant, as a careless person wrote it."""
    assert set(spellings) <= set(passwords_in(url))
    assert bool(passwords_in(url)) is bool(spellings)

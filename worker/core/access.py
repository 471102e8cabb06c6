"""How Redis lets us in: user, password and certificates beside the URL, for ledger, broker and producers alike."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True, slots=True)
class RedisAccess:
    """What the URL need not say. All empty: the URL alone decides. Files are PEM; `tls_ca_file` joins the system's."""

    username: str = ""
    password: str = field(default="", repr=False)
    tls_ca_file: str = ""
    tls_cert_file: str = ""
    tls_key_file: str = ""

    def options(self, url: str) -> dict[str, Any]:
        """Return what redis-py's `from_url(url)` has to be told as well."""
        told = {"username": self.username, "password": self.password}
        if url.startswith("rediss"):
            told |= {
                "ssl_ca_certs": self.tls_ca_file,
                "ssl_certfile": self.tls_cert_file,
                # a certificate's file may hold its key as well
                "ssl_keyfile": self.tls_key_file or self.tls_cert_file,
            }
        return {name: value for name, value in told.items() if value}


FROM_URL = RedisAccess()


def user_in(url: str) -> str:
    """Return the user that a URL names, empty for none."""
    return next(iter(_said(url, "username")), "")


def passwords_in(url: str) -> list[str]:
    """Return the password in a URL in every spelling by which it may show up elsewhere; none for a URL without one."""
    before, at, _ = url.partition("://")[2].rpartition("@")
    careless = before.partition(":")[2] if at else ""  # one with a slash or an @ in it ends no user part
    return sorted({spelling for spelling in (*_said(url, "password"), careless) if spelling})


def _said(url: str, what: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        in_front = parts.username if what == "username" else parts.password
    except ValueError:  # no URL at all; who connects will say so
        return
    if in_front:
        yield from (in_front, unquote(in_front))
    for name in (what, f"sentinel_{what}"):
        yield from parse_qs(parts.query).get(name, [])

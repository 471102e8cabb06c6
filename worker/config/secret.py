"""What must not be read over somebody's shoulder: keys, and passwords inside URLs."""

import re

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_QUERY_VALUE = re.compile(r"([?&;][^=&;#]*=)[^&;#]*")


class Secret:
    """A string that prints as `***`; `reveal()` is the one way to the value, so its uses can be found."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value itself."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "***"


def secret(value: object) -> Secret:
    """Parse a key; a line feed around it is dropped. Raises `ValueError`, which does not quote it."""
    if not isinstance(value, str) or not value.isascii() or not value.strip().isprintable():
        raise ValueError("must be printable ASCII, as it travels in a header")
    return Secret(value.strip())


def password(value: str) -> Secret:
    """Parse a password or a token; a line feed around it is dropped. Raises `ValueError`, which does not quote it."""
    if not value.strip().isprintable():
        raise ValueError("must be one printable line")
    return Secret(value.strip())


def redact_url(url: str) -> str:
    """Return `url` for logs: user, password and the values of query parameters become `***`.

    Takes any string: a password with an unescaped slash makes no valid URL, and is hidden all the same.
    """
    match = _SCHEME.match(url)
    scheme = match[0] if match else ""
    before, question_mark, after = url[len(scheme) :].partition("?")
    if "@" in after:
        return f"{scheme}***"  # an unescaped ? in a password, or an @ in a query: no telling which, so show neither
    # The *last* @: cutting at the first would show the rest of a password that contains one.
    user, at, host = before.rpartition("@")
    return scheme + ("***" if user else "") + at + host + _QUERY_VALUE.sub(r"\1***", question_mark + after)

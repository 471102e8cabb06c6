"""The body of a create: the envelope around producers' params, which are sent byte for byte as they came."""

from collections.abc import Iterable, Iterator

PIECE_BYTES = 262_144
"""200,000 small pieces took 7.4 s to upload, the same bytes in pieces of 256 KiB took 0.55 s (measured)."""

_OPEN, _CLOSE = b'{"requests":[', b"]}"


def write_body(prefix: str, requests: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """Yield a body in pieces of at least PIECE_BYTES, the last one apart.

    `requests` are (entry id, params); `prefix` and an entry id make a custom_id.
    """
    head = b'{"custom_id":"' + prefix.encode()
    parts, size = [_OPEN], len(_OPEN)
    comma = b""
    for entry_id, params in requests:
        request = b'%b%b%b","params":%b}' % (comma, head, entry_id, params)
        comma = b","
        parts.append(request)
        size += len(request)
        if size >= PIECE_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
    parts.append(_CLOSE)
    yield b"".join(parts)

"""Rows: what a producer gets back for each of its prompts, one JSON object a line."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache

import msgspec

from worker.core.intake import EXPLANATIONS, Flaw
from worker.core.model import Batch, Prompt

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_INSTANT = 253_402_300_799.0
"""The end of the calendar, 9999-12-31T23:59:59Z: an entry id may name a later time, and needs its row all the same."""

_ROW = (
    b'{"id":%%b,"lane":%b,"custom_id":%%b,"batch":%b,"batch_id":%b,"attempt":%%d,'
    b'"enqueued_at":%%b,"ended_at":%b,"metadata":%%b%%b,"result":%%b}'
)
"""What is the same for a whole batch goes in first: of a hundred thousand rows it is spelled once."""

_encode = msgspec.json.Encoder().encode


class RowWriter:
    """Writes the rows of one batch."""

    def __init__(self, batch: Batch) -> None:
        def template(remote_id: str | None) -> bytes:
            shared = (batch.lane, batch.uid, remote_id, spell_instant(batch.ended_at))
            return _ROW % tuple(_encode(word).replace(b"%", b"%%") for word in shared)

        self._sent = template(batch.remote_id)
        self._unsent = template(None)

    def write(self, prompt: Prompt, custom_id: str | None, result: bytes | msgspec.Raw) -> bytes:
        """Write a row: `result` is the API's own object, byte for byte. A prompt without custom_id was never sent."""
        return (self._unsent if custom_id is None else self._sent) % (
            _encode(prompt.id),
            _encode(custom_id),
            prompt.attempt,
            _encode(spell_instant(prompt.enqueued_at)),
            prompt.metadata or b"null",
            b',"traceparent":%b' % _encode(prompt.traceparent) if prompt.traceparent else b"",
            result,
        )


def spell_instant(instant: float | None) -> str | None:
    """Spell Unix seconds as a row's timestamp, `2026-11-22T10:00:00.000Z`."""
    if instant is None:
        return None
    seconds, milliseconds = divmod(int(min(instant, _LAST_INSTANT) * 1000 + 0.5), 1000)
    return f"{_spell_second(seconds)}.{milliseconds:03d}Z"


@lru_cache(maxsize=4096)
def _spell_second(seconds: int) -> str:
    """Prompts that were enqueued together share their second, and spelling it is most of the work."""
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")


def unusable_result(flaw: Flaw) -> bytes:
    """Write the result of a prompt that never reached the API."""
    error = {"type": "invalid_request_error", "message": f"batchmill: {EXPLANATIONS[flaw]}"}
    return _encode({"type": "errored", "error": {"type": "error", "error": error}})

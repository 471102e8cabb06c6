import json
from collections.abc import Iterator

import pytest
from core_builders import DEPLOYMENT, UID
from hypothesis import given
from hypothesis import strategies as st

from worker.core.body import PIECE_BYTES, write_body
from worker.core.custom_id import decode, prefix

PREFIX = prefix(DEPLOYMENT, UID, 1)


def test_a_body_is_what_the_api_documents() -> None:
    """An envelope, and for each prompt its custom_id and the producer's params."""
    body = b"".join(write_body(PREFIX, [(b"1-0", b'{"a":1}'), (b"1-1", b'{"b": 2 }')]))
    assert body == (
        b'{"requests":[{"custom_id":"abc234_k7m2q2x4t2w2z3b5_01_1-0","params":{"a":1}},'
        b'{"custom_id":"abc234_k7m2q2x4t2w2z3b5_01_1-1","params":{"b": 2 }}]}'
    )


def test_a_body_without_prompts_is_still_json() -> None:
    """Nobody sends it, but its size is that of an empty window."""
    assert b"".join(write_body(PREFIX, [])) == b'{"requests":[]}'


words = st.text(max_size=10)


@given(st.lists(st.dictionaries(words, words | st.integers(), max_size=3).map(json.dumps), max_size=8))
def test_params_travel_byte_for_byte(documents: list[str]) -> None:
    """What the API reads is what the producers wrote, in order, each under an id that leads back."""
    requests = [(f"1-{number}".encode(), document.encode()) for number, document in enumerate(documents)]
    body = b"".join(write_body(PREFIX, requests))
    decoded = json.loads(body)["requests"]
    assert [request["params"] for request in decoded] == [json.loads(document) for document in documents]
    tokens = [decode(request["custom_id"]) for request in decoded]
    assert [token.entry_id for token in tokens if token] == [f"1-{number}" for number in range(len(documents))]
    assert all(document.encode() in body for document in documents)


@pytest.mark.parametrize("size", [20, 1000, PIECE_BYTES - 80, PIECE_BYTES + 1])
def test_pieces_are_large_but_for_the_last(size: int) -> None:
    """Small writes cost seconds per body; no piece is empty either, or a chunked sender would stop there."""
    requests = [(b"1-%d" % number, b"p" * size) for number in range(3 * PIECE_BYTES // size + 2)]
    *pieces, last = write_body(PREFIX, requests)
    assert pieces
    assert all(PIECE_BYTES <= len(piece) < PIECE_BYTES + size + 100 for piece in pieces)
    assert last.endswith(b"]}")


def test_prompts_are_read_as_the_body_is_sent() -> None:
    """Never the whole batch in memory: the first piece asks for no more prompts than it holds."""
    asked: list[int] = []

    def requests() -> Iterator[tuple[bytes, bytes]]:
        for number in range(1000):
            asked.append(number)
            yield b"1-%d" % number, b"p" * 10_000

    next(write_body(PREFIX, requests()))
    assert len(asked) <= PIECE_BYTES // 10_000 + 1

import random

import pytest
from sight import SCRIPTS, ApiSight, RedisSight
from weather import pieces

BODY = b'{"requests":[1]}'
CREATE = b"POST /v1/messages/batches HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY)


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_a_creates_last_byte_is_known_when_it_passes(step: int) -> None:
    """However the stream is cut: first the head, then, with the byte that completes the body, the last byte."""
    sight, stream = ApiSight(), CREATE + BODY
    seen = [
        name
        for at in range(0, len(stream) - 1, step)
        for name in sight.see(stream[at : min(at + step, len(stream) - 1)])
    ]
    assert seen == ["POST head"]
    assert sight.see(stream[-1:]) == ["POST last byte"]


def test_every_call_of_the_api_has_a_name() -> None:
    """Several on one connection, one behind the other."""
    sight = ApiSight()
    calls = ("GET /v1/messages/batches?limit=9", "GET /v1/messages/batches/msgbatch_1", "DELETE /v1/messages/batches/a")
    heads = [f"{call} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for call in calls]
    heads.append(b"GET /v1/messages/batches/msgbatch_2/results HTTP/1.1\r\n\r\n")
    assert sight.see(b"".join(heads)) == ["GET list", "GET batch", "DELETE batch", "GET results"]
    assert sight.remote_id == "msgbatch_2"


def test_scripts_and_turns_of_the_barrier_have_names() -> None:
    """Ours by their digests; others are knocks."""
    digest = next(digest for digest, name in SCRIPTS.items() if name == "submit")
    call = b"*3\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n$1\r\n0\r\n"
    switch = b"*4\r\n$6\r\nCONFIG\r\n$3\r\nSET\r\n$11\r\nappendfsync\r\n$6\r\nalways\r\n"
    stream = switch + call % digest.encode() + call % (b"0" * 40)
    assert sorted(RedisSight().see(stream)) == ["appendfsync always", "knock", "submit"]


def test_a_finish_in_a_turn_of_the_barrier_is_told_apart() -> None:
    """Its answer proves that everything is synced; another finish proves nothing."""
    digest = next(digest for digest, name in SCRIPTS.items() if name == "finish")
    call = b"*3\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n$1\r\n0\r\n" % digest.encode()
    sight = RedisSight()
    assert sight.see(call) == ["finish"]
    assert sight.see(b"*6\r\n$3\r\nSET\r\n$17\r\nbatchmill:barrier\r\n$4\r\nname\r\n") == []
    assert sight.see(call) == ["finish (synced)"]


def test_slices_are_the_whole() -> None:
    """Nothing is lost or moved by slicing."""
    chance = random.Random(3)
    for size in (1, 2, 9, 500):
        data = bytes(range(256)) * 2
        assert b"".join(pieces(data[:size], chance)) == data[:size]

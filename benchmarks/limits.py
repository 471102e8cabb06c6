"""What a stage cannot be faster than: the same bytes through the same socket or file, and no more thought than that."""

import http.client
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

BATCHES = "/v1/messages/batches"
HEADERS = {"x-api-key": "sk-ant-bench", "anthropic-version": "2023-06-01", "content-type": "application/json"}
PAGE = 1000
PIECE = 262_144
_decode = msgspec.json.Decoder(msgspec.Raw).decode


def xadd(client: Any, stream: str, params: Sequence[bytes]) -> None:
    """Enqueue what is encoded already, a thousand commands at a time."""
    pipe = client.pipeline(transaction=False)
    for each in params:
        pipe.xadd(stream, {"params": each})
        if len(pipe) == PAGE:
            pipe.execute()
    pipe.execute()


def xrange(client: Any, stream: str) -> Iterator[list[Any]]:
    """Read a stream in large pages."""
    start = "-"
    while page := client.xrange(stream, start, "+", PAGE):
        start = "(" + page[-1][0].decode()
        yield page


def xdel(client: Any, stream: str, entry_ids: Sequence[bytes]) -> None:
    """Delete in order, as many at a time."""
    for at in range(0, len(entry_ids), PAGE):
        client.xdel(stream, *entry_ids[at : at + PAGE])


def ask(url: str, method: str, path: str, body: bytes | None = None) -> bytes:
    """Ask the API once, on a connection of its own. Raises SystemExit unless it agrees."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc)
    connection.request(method, path, body, HEADERS)
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    if response.status != http.HTTPStatus.OK:
        raise SystemExit(f"{method} {path}: {response.status} {answer[:200]!r}")
    return answer


def download(url: str, remote_id: str, path: Path) -> None:
    """Bring results from the socket into a file, and pass over each line once."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc)
    connection.request("GET", f"{BATCHES}/{remote_id}/results", headers=HEADERS)
    response = connection.getresponse()
    rest = b""
    with path.open("wb") as file:
        while piece := response.read(PIECE):
            file.write(piece)
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                _decode(line)
    connection.close()


def iterate_results(url: str, remote_id: str, path: Path) -> None:
    """Do with the SDK what a user would: each result a model, one line each. No limit, but what there is to beat."""
    from anthropic import Anthropic  # noqa: PLC0415 - its import takes a second, which is no stage of anything

    with Anthropic(base_url=url, api_key="sk-ant-bench") as client, path.open("w", encoding="utf-8") as file:
        for line in client.messages.batches.results(remote_id):
            file.write(line.model_dump_json() + "\n")

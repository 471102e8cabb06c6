"""The same without SDK, queue or safety, as thin as Python goes.

Bodies are joined from encoded requests, one list call polls, each result line is decoded once:
`python -m benchmarks.floor URL QUESTIONS PROMPT_BYTES ROWS`.
"""

import http.client
import sys
import time
import urllib.parse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from benchmarks.prompts import params_of, read_questions, system_text

CHUNK = 10_000
PIECE = 262_144
HEADERS = {"x-api-key": "sk-ant-bench", "anthropic-version": "2023-06-01", "content-type": "application/json"}
BATCHES = "/v1/messages/batches"


def main(url: str, questions: Path, prompt_bytes: int, rows: Path) -> None:
    """Create the batches, wait for all, write their results."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc)
    system = system_text(prompt_bytes)
    numbered = enumerate(read_questions(questions))
    waiting: set[str] = set()
    while chunk := list(islice(numbered, CHUNK)):
        requests = [
            orjson.dumps({"custom_id": f"p-{number}", "params": params_of(question, system)})
            for number, question in chunk
        ]
        waiting.add(_ask(connection, "POST", BATCHES, b'{"requests":[' + b",".join(requests) + b"]}")["id"])
    with rows.open("wb") as file:
        while waiting:
            for batch in _ask(connection, "GET", f"{BATCHES}?limit=1000")["data"]:
                if batch["id"] in waiting and batch["processing_status"] == "ended":
                    waiting.remove(batch["id"])
                    for line in _lines(connection, f"{BATCHES}/{batch['id']}/results"):
                        file.write(_row(orjson.loads(line)))
            if waiting:
                time.sleep(1)


def _ask(connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None) -> Any:
    connection.request(method, path, body, HEADERS)
    response = connection.getresponse()
    answer = response.read()
    if response.status != http.HTTPStatus.OK:
        raise SystemExit(f"{method} {path}: {response.status} {answer[:200]!r}")
    return orjson.loads(answer)


def _lines(connection: http.client.HTTPConnection, path: str) -> Iterator[bytes]:
    connection.request("GET", path, headers=HEADERS)
    response = connection.getresponse()
    rest = b""
    while piece := response.read(PIECE):
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines


def _row(line: Any) -> bytes:
    result = line["result"]
    ok = result["type"] == "succeeded"
    text = result["message"]["content"][0]["text"] if ok else None
    return orjson.dumps({"id": line["custom_id"], "ok": ok, "text": text}, option=orjson.OPT_APPEND_NEWLINE)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))

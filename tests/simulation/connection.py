"""The way to the API in this world: it takes the place of the SDK's client and answers as HTTP does.

Everything above it is the program: the withheld last byte, what is concluded from an answer, how lists are walked.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import msgspec
from account import Account, Remote
from server import disturb
from storm import POST, READ, RESULTS
from world import Process

from worker.batches_api.wire import Answer, NoAnswer
from worker.batches_api.withheld import Aborted, WithheldBody

PATIENCE = 60.0
"""`submit.timeout`: how long a caller waits for the answer to a create."""

NEARLY = 0.995
"""Of the horizon: what is decided so late is decided just in time."""


class WorldConnection:
    """What one process has of the API."""

    def __init__(self, account: Account, process: Process) -> None:
        self._account = account
        self._process = process
        self._world = account.world

    def create(self, body: WithheldBody, nbytes: int) -> Answer:
        """Receive a body piece by piece and decide what becomes of it, and of the answer."""
        self._disturb()
        fault = self._account.weather.strikes("post", POST)
        if self._account.in_trouble and fault is None:
            fault = "402"
        if fault in ("429", "402") and self._world.chance.strikes(0.5):
            return self._refusal(int(fault), 0)  # before it has seen the body
        requests = self._receive(body, nbytes)
        self._world.tell("the whole body is with the API")
        match fault:
            case "429" | "402" | "413" | "400" | "400_named":
                return self._refusal(int(fault[:3]), len(requests) if fault == "400_named" else 0)
            case "529" | "500_before":
                return _failure(int(fault[:3]))
            case "500_after" | "409_after":
                self._commit(requests)
                return _failure(int(fault[:3]))
            case "garbled":
                self._commit(requests)
                return Answer(200, {}, b'{"id":"msgbat')
            case "vanishes":
                raise self._silence(None)
            case "late":
                raise self._silence(lambda: self._account.commit(requests))
            case "reply_lost":
                self._commit(requests)
                raise self._silence(None)
        remote = self._commit(requests)
        self._disturb()
        return self._answer(200, self._account.document(remote))

    def get(self, path: str, params: Mapping[str, Any]) -> Answer:
        """Answer a list, or the look at one batch."""
        if (failure := self._unlucky()) is not None:
            return failure
        if path:
            remote = self._account.find(path.removeprefix("/"))
            return self._missing() if remote is None else self._answer(200, self._account.document(remote))
        page = self._account.page(before_id=params.get("before_id"), after_id=params.get("after_id"))
        if page is None:
            return self._answer(400, _error("invalid_request_error", "no such cursor"))
        documents = [self._account.document(remote) for remote in page[0]]
        return self._answer(200, {"data": documents, "has_more": page[1]})

    def delete(self, path: str) -> Answer:
        """Delete a batch."""
        if (failure := self._unlucky()) is not None:
            return failure
        return self._answer(200, {}) if self._account.delete(path.removeprefix("/")) else self._missing()

    def download(self, path: str) -> "Answer | WorldDownload":
        """Open the results of a batch."""
        self._disturb()
        fault = self._account.weather.strikes("results", RESULTS)
        remote = self._account.find(path.removeprefix("/").removesuffix("/results"))
        if fault == "unavailable":
            raise NoAnswer("ConnectError")
        if remote is None or remote.ended_at is None or fault == "missing":
            return self._missing()
        return WorldDownload(self, [line for _, line in remote.rows.values()], fault)

    def close(self) -> None:
        """Close nothing: there is no socket."""

    def disturb(self) -> None:
        """Let the world do something in the middle of a transfer."""
        self._disturb()

    def cut(self, among: int) -> int:
        """Return where a transfer of so many lines ends too soon."""
        return self._world.chance.pick(among)

    def _receive(self, body: WithheldBody, nbytes: int) -> list[tuple[str, str]]:
        whole = b""
        try:
            for piece in body:
                # a process that dies here has not sent this piece; one that freezes between its own last look at the
                # clock and the last byte is the one system call that nobody can guard
                self._disturb(sparing=("freeze",) if body.last_byte_sent else ())
                whole += piece
        except Aborted:
            raise NoAnswer("Aborted") from None
        if len(whole) != nbytes:
            raise NoAnswer("LocalProtocolError")
        requests = msgspec.json.decode(whole)["requests"]
        return [(request["custom_id"], request["params"]["messages"][0]["content"]) for request in requests]

    def _commit(self, requests: Sequence[tuple[str, str]]) -> Remote:
        lag = self._world.chance.between(0.0, self._account.horizon / 2) if self._rarely() else 0.0
        return self._account.commit(requests, lag=lag)

    def _silence(self, commit: Callable[[], object] | None) -> NoAnswer:
        """Answer nothing, now or when the caller's patience ends; what is to come is decided within the horizon."""
        world = self._world
        if commit is not None:
            world.after(world.chance.between(0.0, self._account.horizon * NEARLY), commit)
        if world.chance.strikes(0.5):
            world.wait(None, PATIENCE)
        return NoAnswer("ReadTimeout")

    def _unlucky(self) -> Answer | None:
        self._disturb()
        fault = self._account.weather.strikes("read", READ)
        if fault == "unavailable":
            raise NoAnswer("ConnectError")
        return None if fault is None else self._answer(int(fault), _error("api_error", "not now"))

    def _refusal(self, status: int, named: int) -> Answer:
        if status == 402:
            self._account.trouble()
        at = self._world.chance.pick(named) if named else 0
        message = f"requests.{at}: is not nice" if named else "something is wrong"
        return self._answer(status, _error("invalid_request_error", message))

    def _missing(self) -> Answer:
        return self._answer(404, _error("not_found_error", "no such batch"))

    def _answer(self, status: int, content: object) -> Answer:
        now = datetime.fromtimestamp(self._world.now + self._account.skew, UTC)
        headers = {"date": format_datetime(now, usegmt=True), "anthropic-workspace-id": "wrkspc_world"}
        return Answer(status, headers, msgspec.json.encode(content))

    def _rarely(self) -> bool:
        return not self._account.weather.calm and self._world.chance.strikes(0.1)

    def _disturb(self, *, sparing: Sequence[str] = ()) -> None:
        disturb(self._world, self._account.weather, self._process, sparing=sparing)


class WorldDownload:
    """Result lines on their way, as far as they get."""

    def __init__(self, connection: WorldConnection, lines: list[bytes], fault: str | None) -> None:
        self._connection = connection
        self._lines = lines
        self._fault = fault

    def chunks(self) -> Iterator[bytes]:
        """Give a line or two at a time."""
        lines = [*self._lines, self._lines[0]] if self._fault == "doubled" else self._lines
        upto = self._connection.cut(len(lines)) if self._fault in ("cut", "clean_cut") else len(lines)
        for line in lines[:upto]:
            self._connection.disturb()
            yield line + b"\n"
        if self._fault == "cut":
            yield lines[upto][:-2]
            raise NoAnswer("ReadError")

    def close(self) -> None:
        """Hang up."""


def _error(kind: str, message: str) -> dict[str, object]:
    return {"type": "error", "error": {"type": kind, "message": message}}


def _failure(status: int) -> Answer:
    kind = "overloaded_error" if status == 529 else "api_error"
    return Answer(status, {}, msgspec.json.encode(_error(kind, "not now")))

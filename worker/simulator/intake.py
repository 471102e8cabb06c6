"""A create's body, parsed while it arrives: `{"requests":[{"custom_id":…,"params":{…}},…]}` in a few MB of memory.

The array is cut into windows at a place that *looks* like the start of a request. Decoding the window proves the
guess (JSON has one reading: what decodes as a list of requests is one); a wrong guess, and anything unusual, goes
to the scanner, which is slower and always right.
"""

import re
from collections import Counter
from dataclasses import dataclass, field

import msgspec

from worker.simulator.params import Judge
from worker.simulator.refusal import Refusal
from worker.simulator.rows import ROW, Rows
from worker.simulator.scanner import Unreadable, decode, split

WINDOW = 1 << 20
HEAD_LIMIT = 64 << 10
ODD_LIMIT = 4 << 20  # an envelope that is no envelope is kept this far, for its error message
ID_LENGTH = 64
HEAD = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"requests"[ \t\r\n]*:[ \t\r\n]*\[')
IDS = re.compile(r"(?:[a-zA-Z0-9_-]{1,64}+\n)*+")
ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
BLANK = b" \t\r\n"


class Item(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One request of the body."""

    custom_id: str
    params: msgspec.Raw


ITEM = msgspec.json.Decoder(Item)
ITEMS = msgspec.json.Decoder(list[Item])


@dataclass(slots=True)
class Intake:
    """Feed it the body, then ask for the rows. What is wrong with a body is said only when all of it is there."""

    judge: Judge
    max_requests: int
    rows: Rows = field(default_factory=Rows)
    received: int = 0
    _pending: bytearray = field(default_factory=bytearray)
    _started: bool = False
    _odd: bool = False
    _tail: bytearray | None = None
    _threshold: int = 0
    _count: int = 0
    _refusal: Refusal | None = None
    _unreadable: str | None = None

    def feed(self, piece: bytes | memoryview) -> None:
        """Take the next bytes."""
        self.received += len(piece)
        if self._unreadable:
            return
        if self._tail is not None:
            self._tail += piece
            del self._tail[ODD_LIMIT:]
            return
        self._pending += piece
        if not self._started:
            self._start(final=len(self._pending) > HEAD_LIMIT)
        if self._odd:
            del self._pending[ODD_LIMIT:]
        elif self._started and len(self._pending) >= max(self._threshold, WINDOW):
            if not self._window():
                self._scan()
            # Nothing complete in it: one huge request. Look again when there is twice as much.
            self._threshold = 2 * len(self._pending)

    def finish(self) -> Rows:
        """Return the rows of a complete body; raises Refusal."""
        if not self._started:
            self._start(final=True)
        if self._odd:
            raise _envelope(bytes(self._pending))
        if self._tail is None and not self._unreadable and not self._last_window():
            self._scan()
        if self._unreadable or self._tail is None:
            raise _bad_json(self._unreadable or "unexpected end of data")
        if self._tail.strip(BLANK) != b"}":
            raise _envelope(b'{"requests":[]' + bytes(self._tail))
        self._check()
        return self.rows

    def _start(self, *, final: bool) -> None:
        match = HEAD.match(self._pending)
        if match:
            del self._pending[: match.end() - 1]
        self._odd = final and not match
        self._started = final or match is not None

    def _window(self) -> bool:
        comma = self._pending.rfind(b'{"custom_id"') - 1
        while comma > 0 and self._pending[comma] in BLANK:
            comma -= 1
        if comma < 1 or self._pending[comma] != ord(","):
            return False
        if not self._take_all(bytes(memoryview(self._pending)[:comma]) + b"]"):
            return False
        self._drop(comma)
        return True

    def _last_window(self) -> bool:
        end = len(self._pending.rstrip(BLANK)) - 1
        if end < 1 or self._pending[end] != ord("}"):
            return False
        if not self._take_all(bytes(memoryview(self._pending)[:end])):
            return False
        self._tail = bytearray(b"}")
        return True

    def _drop(self, comma: int) -> None:
        # The comma becomes the bracket of the next window.
        self._pending[comma] = ord("[")
        del self._pending[:comma]

    def _take_all(self, window: bytes) -> bool:
        try:
            str(window, "utf-8")  # the decoder passes over the bytes of strings that it need not make
            items = ITEMS.decode(window)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        if not items and self._count:
            return False  # a trailing comma
        for item in items:
            self._take(item)
        return True

    def _scan(self) -> None:
        try:
            elements, at, ended = split(self._pending, first=not self._count)
            for element in elements:
                self._take_one(element)
        except Unreadable as error:
            self._unreadable = str(error)
            self._pending.clear()
            return
        if ended:
            self._tail = self._pending[at:]
            self._pending.clear()
        elif at:
            self._drop(at)

    def _take_one(self, element: bytes) -> None:
        tree = decode(element)
        try:
            self._take(ITEM.decode(element))
        except msgspec.DecodeError:
            self._refuse(_complaint(tree))
            self._count += 1

    def _take(self, item: Item) -> None:
        params = bytes(item.params)
        if params[:1] != b"{":
            self._refuse(".params: Input should be a valid dictionary")
        elif self._refusal is None and self._count < self.max_requests:
            self.rows.table += ROW.pack(*self.judge.row(params, self.rows))
            self.rows.ids.append(item.custom_id)
        self._count += 1

    def _refuse(self, complaint: str) -> None:
        self._refusal = self._refusal or Refusal(400, f"requests.{self._count}{complaint}")

    def _check(self) -> None:
        if self._refusal:
            raise self._refusal
        if not self._count:
            raise Refusal(400, "requests: List should have at least 1 item after validation, not 0")
        if self._count > self.max_requests:
            most = self.max_requests
            raise Refusal(400, f"requests: List should have at most {most} items after validation, not {self._count}")
        ids = self.rows.ids
        joined = "\n".join(ids) + "\n"
        if not IDS.fullmatch(joined) or joined.count("\n") != len(ids):
            index, bad = next((i, each) for i, each in enumerate(ids) if not ID.fullmatch(each))
            complaint = f"String should have at most {ID_LENGTH} characters"
            if len(bad) <= ID_LENGTH:
                complaint = "String should match pattern '^[a-zA-Z0-9_-]{1,64}$'"
            raise Refusal(400, f"requests.{index}.custom_id: {complaint}")
        if len(set(ids)) != len(ids):
            twice = Counter(ids).most_common(1)[0][0]
            raise Refusal(400, f"requests: custom_id's must be unique within a batch. Used more than once: {twice}")


def _complaint(tree: object) -> str:
    if not isinstance(tree, dict):
        return ": Input should be a valid dictionary"
    for name in ("custom_id", "params"):
        if name not in tree:
            return f".{name}: Field required"
    if not isinstance(tree["custom_id"], str):
        return ".custom_id: Input should be a valid string"
    extra = next((name for name in tree if name not in ("custom_id", "params")), "")
    return f".{extra}: Extra inputs are not permitted"


def _envelope(body: bytes) -> Refusal:
    try:
        tree = decode(body)
    except Unreadable as error:
        return _bad_json(str(error))
    if not isinstance(tree, dict):
        return Refusal(400, "Input should be a valid dictionary")
    for name in tree:
        if name != "requests":
            return Refusal(400, f"{name}: Extra inputs are not permitted")
    if "requests" not in tree:
        return Refusal(400, "requests: Field required")
    return Refusal(400, "requests: Input should be a valid list")


def _bad_json(why: str) -> Refusal:
    return Refusal(400, f"The request body is not valid JSON: {why}")

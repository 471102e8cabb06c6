"""What passes by: which step of the protocol a piece of traffic belongs to, named as a report would name it."""

import hashlib
import re
from typing import Protocol

from worker.ledger.scripts import read_scripts

SCRIPT = re.compile(rb"EVALSHA\r\n\$40\r\n([0-9a-f]{40})\r\n")
SYNC = re.compile(rb"appendfsync\r\n\$\d+\r\n(\w+)\r\n")
HEAD = re.compile(rb"(GET|POST|DELETE) /v1/messages/batches(?:/(\w+))?(?:/(results|cancel))?(?:\?\S*)? HTTP/1.1\r\n")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
LONGEST_HEAD = 1 << 16

LAST_BYTE = "POST last byte"
SYNCED_FINISH = "finish (synced)"
SYNCED = ("submit", SYNCED_FINISH)
"""Written in a turn of the durability barrier: when the answer comes by, all there is is on disk."""

TURN = b":barrier\r\n"
OPERATIONS = {
    (b"POST", False, None): "POST head",
    (b"GET", False, None): "GET list",
    (b"GET", True, None): "GET batch",
    (b"GET", True, b"results"): "GET results",
    (b"DELETE", True, None): "DELETE batch",
}

SCRIPTS = {
    hashlib.sha1(script.text.encode(), usedforsecurity=False).hexdigest(): name
    for name, script in read_scripts().items()
}
"""The names of our scripts by what Redis calls them."""


class Sight(Protocol):
    """Watches what one connection sends."""

    def see(self, piece: bytes) -> list[str]:
        """Return the names of the moments that begin in this piece."""


class RedisSight:
    """Knows the ledger's scripts and the turns of the durability barrier; dramatiq's scripts are knocks.

    A `finish` in such a turn is a moment of its own, for its answer means that all until then is synced.
    """

    def __init__(self) -> None:
        self._takes_turns = False

    def see(self, piece: bytes) -> list[str]:
        """See the protocol."""
        self._takes_turns = self._takes_turns or TURN in piece
        seen = [SCRIPTS.get(match[1].decode(), "knock") for match in SCRIPT.finditer(piece)]
        if self._takes_turns:
            seen = [SYNCED_FINISH if name == "finish" else name for name in seen]
        seen += [f"appendfsync {match[1].decode()}" for match in SYNC.finditer(piece)]
        return seen


class ApiSight:
    """Follows requests and their bodies, so that it knows a create's last byte when it sees it."""

    def __init__(self) -> None:
        self._held = b""
        self._left = 0
        self.remote_id = ""

    def see(self, piece: bytes) -> list[str]:
        """See the protocol."""
        seen: list[str] = []
        while piece:
            if self._left:
                taken = min(self._left, len(piece))
                self._left -= taken
                piece = piece[taken:]
                if not self._left:
                    seen.append(LAST_BYTE)
                continue
            self._held += piece
            head, found, piece = self._held.partition(b"\r\n\r\n")
            if not found:
                self._held = self._held[-LONGEST_HEAD:]
                return seen
            self._held = b""
            seen += self._begin(head + found)
        return seen

    def _begin(self, head: bytes) -> list[str]:
        length = LENGTH.search(head)
        self._left = int(length[1]) if length else 0
        match = HEAD.match(head)
        if match is None:
            return []
        self.remote_id = (match[2] or b"").decode() or self.remote_id
        name = OPERATIONS.get((match[1], match[2] is not None, match[3]))
        return [name] if name else []

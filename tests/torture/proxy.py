"""A TCP proxy with eyes: it sees which step of the protocol passes, lets a witness act on it, and makes the weather.

Every daemon has doors of its own, so the witness knows whose step it is. One thread and one event loop carry it all.
"""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from sight import ApiSight, Sight
from weather import CALM, LONGEST_HANG, SHORTEST_HANG, SLOWEST, pieces

BUFFER = 1 << 16
BEFORE, AFTER = "before", "after"
"""A moment has two sides: before a request is passed on, and after it was, before its reply comes back."""

Witness = Callable[[str, str, str], bool]
"""Hears (owner, moment, side) and may act on the spot; False ends the connection there and then."""

Opener = Callable[[], Coroutine[Any, Any, tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class CutError(Exception):
    """The connection ends here."""


class Door:
    """One listening port in front of a server, for one owner. `weather` may be changed at any time."""

    def __init__(self, owner: str, opener: Opener, sight: Callable[[], Sight]) -> None:
        self.owner = owner
        self.opener = opener
        self.sight = sight
        self.weather = CALM
        self.port = 0


class Proxy:
    """All doors. `events` counts what was done to the traffic, `passed` which moments went by."""

    def __init__(self, *, seed: int, witness: Witness) -> None:
        self.events: Counter[str] = Counter()
        self.passed: Counter[str] = Counter()
        self.remote_ids: list[str] = []
        self._witness = witness
        self._chance = random.Random(f"proxy {seed}")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._servers: list[asyncio.Server] = []
        self._open: set[asyncio.Task[None]] = set()
        self._thread.start()

    def door(self, owner: str, opener: Opener, sight: Callable[[], Sight]) -> Door:
        """Open a door on a port of its own."""
        door = Door(owner, opener, sight)

        async def listen() -> None:
            server = await asyncio.start_server(partial(self._meet, door), "127.0.0.1", 0, limit=BUFFER)
            self._servers.append(server)
            door.port = server.sockets[0].getsockname()[1]

        asyncio.run_coroutine_threadsafe(listen(), self._loop).result(10)
        return door

    def close(self) -> None:
        """Close every door and connection."""

        async def end() -> None:
            for server in self._servers:
                server.close()
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _meet(self, door: Door, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # as a task of our own: asyncio complains of its own ones when they are canceled
        task = self._loop.create_task(self._admit(door, reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _admit(self, door: Door, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far: asyncio.StreamWriter | None = None
        try:
            if self._chance.random() < door.weather.refuse:
                self.events["refused"] += 1
                return
            far_reader, far = await door.opener()
            link = Link(self, door, self._chance)
            ways = [
                asyncio.ensure_future(link.carry_requests(reader, far)),
                asyncio.ensure_future(link.carry_replies(far_reader, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            self.events["unreachable"] += 1
        finally:
            for end in (writer, far):
                if end is not None:
                    end.transport.abort()

    def see(self, owner: str, moment: str, side: str) -> bool:
        """Count a moment and ask the witness."""
        self.passed[f"{moment}, {side}"] += 1
        return self._witness(owner, moment, side)


class Link:
    """One connection through a door."""

    def __init__(self, proxy: Proxy, door: Door, chance: random.Random) -> None:
        self._proxy = proxy
        self._door = door
        self._chance = chance
        self._sight = door.sight()
        self._unanswered: list[str] = []
        self._swallowing = False

    async def carry_requests(self, reader: asyncio.StreamReader, far: asyncio.StreamWriter) -> None:
        """Pass on what the client sends, until somebody ends it."""
        with suppress(CutError, OSError):
            while piece := await reader.read(BUFFER):
                moments = self._sight.see(piece)
                if isinstance(self._sight, ApiSight) and self._sight.remote_id:
                    self._proxy.remote_ids[:] = [*self._proxy.remote_ids[-9:], self._sight.remote_id]
                self._tell(moments, BEFORE)
                if moments and self._chance.random() < self._door.weather.swallow:
                    self._swallowing = True
                self._unanswered += moments  # at once: the answer may come while the last crumb is on its way
                await self._carry(piece, far)

    async def carry_replies(self, far_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass back what the server answers, until somebody ends it."""
        with suppress(CutError, OSError):
            while piece := await far_reader.read(BUFFER):
                moments, self._unanswered = self._unanswered, []
                self._tell(moments, AFTER)
                if self._swallowing:
                    await self._swallow()
                await self._carry(piece, writer)

    def _tell(self, moments: list[str], side: str) -> None:
        for moment in moments:
            if not self._proxy.see(self._door.owner, moment, side):
                raise CutError

    async def _swallow(self) -> None:
        self._proxy.events["swallowed"] += 1
        if self._chance.random() < 0.3:
            self._proxy.events["left hanging"] += 1
            await asyncio.sleep(self._chance.uniform(SHORTEST_HANG, LONGEST_HANG))
        raise CutError

    async def _carry(self, piece: bytes, to: asyncio.StreamWriter) -> None:
        weather, events, chance = self._door.weather, self._proxy.events, self._chance
        if weather.delay and chance.random() < weather.delay:
            events["delayed"] += 1
            await asyncio.sleep(chance.uniform(0.0, SLOWEST))
        if weather.cut and chance.random() < weather.cut:
            events["cut"] += 1
            to.write(piece[: chance.randrange(len(piece))])
            await to.drain()
            raise CutError
        if weather.slice and chance.random() < weather.slice:
            events["sliced"] += 1
            for crumb in pieces(piece, chance):
                to.write(crumb)
                await to.drain()
                await asyncio.sleep(0.001)
            return
        to.write(piece)
        await to.drain()

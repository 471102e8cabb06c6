import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from proxy import AFTER, BEFORE, Door, Proxy
from sight import ApiSight
from weather import DARK, Weather

REQUEST = b"GET /v1/messages/batches HTTP/1.1\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 500


class Server:
    """Answers every request it gets whole, and keeps what it was sent."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                while data := client.recv(65_536):
                    self.got.append(data)
                    if b"".join(self.got).endswith(b"\r\n\r\n"):
                        client.sendall(ANSWER)

    def close(self) -> None:
        """Stop listening."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


class Scene:
    """A proxy with one door before a server, and a witness that does as it is told."""

    def __init__(self) -> None:
        self.server = Server()
        self.told: list[tuple[str, str, str]] = []
        self.refuses: str | None = None
        self.proxy = Proxy(seed=1, witness=self._witness)
        opener = partial(asyncio.open_connection, "127.0.0.1", self.server.port)
        self.door: Door = self.proxy.door("daemon-0", opener, ApiSight)

    def _witness(self, owner: str, moment: str, side: str) -> bool:
        self.told.append((owner, moment, side))
        return side != self.refuses

    def ask(self) -> bytes:
        """Send the request through the door; returns what comes back before the connection ends or is idle."""
        answer = b""
        with socket.create_connection(("127.0.0.1", self.door.port), timeout=10) as client:
            try:
                client.sendall(REQUEST)
                while len(answer) < len(ANSWER) and (piece := client.recv(65_536)):
                    answer += piece
            except ConnectionError:
                pass
        return answer

    def close(self) -> None:
        """End both."""
        self.proxy.close()
        self.server.close()


@pytest.fixture
def scene() -> Iterator[Scene]:
    """Calm weather."""
    scene = Scene()
    yield scene
    scene.close()


@pytest.mark.parametrize("weather", [Weather(), Weather(delay=1.0), Weather(slice=1.0)], ids=["calm", "slow", "sliced"])
def test_what_arrives_is_what_was_sent(scene: Scene, weather: Weather) -> None:
    """Late or in crumbs, both ways; the witness hears of both sides of the moment."""
    scene.door.weather = weather
    assert scene.ask() == ANSWER
    assert b"".join(scene.server.got) == REQUEST
    assert scene.told == [("daemon-0", "GET list", BEFORE), ("daemon-0", "GET list", AFTER)]


def test_a_swallowed_answer_was_asked_for(scene: Scene) -> None:
    """The request goes through, what it did is done, the answer is lost."""
    scene.door.weather = Weather(swallow=1.0)
    assert scene.ask() == b""
    assert b"".join(scene.server.got) == REQUEST
    assert scene.proxy.events["swallowed"] == 1


def test_a_cut_leaves_a_part(scene: Scene) -> None:
    """In the middle of a message, and then the connection is gone."""
    scene.door.weather = Weather(cut=1.0)
    assert scene.ask() == b""
    assert len(b"".join(scene.server.got)) < len(REQUEST)


@pytest.mark.parametrize("weather", [Weather(refuse=1.0), DARK], ids=["refusing", "dark"])
def test_a_closed_door_lets_nothing_through(scene: Scene, weather: Weather) -> None:
    """Nobody is reached."""
    scene.door.weather = weather
    assert scene.ask() == b""
    assert scene.server.got == []


@pytest.mark.parametrize(("side", "arrives"), [(BEFORE, b""), (AFTER, REQUEST)])
def test_a_witness_ends_a_connection_on_either_side_of_a_moment(
    scene: Scene, wait_until: Callable[..., None], side: str, arrives: bytes
) -> None:
    """Before: nothing was passed on. After: all was, and nothing comes back."""
    scene.refuses = side
    assert scene.ask() == b""
    wait_until(lambda: b"".join(scene.server.got) == arrives, "what was passed on has arrived")

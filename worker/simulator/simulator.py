"""`Simulator`: the parts put together, to be started, stopped and held in a `with`."""

import threading
from types import TracebackType
from typing import Any, Self

from worker.simulator.account import Account
from worker.simulator.admin import ROOT, Admin
from worker.simulator.api import Api
from worker.simulator.call import Strikes
from worker.simulator.control import Control
from worker.simulator.creation import Creation
from worker.simulator.faults import FaultBook
from worker.simulator.keys import Minute
from worker.simulator.options import Options
from worker.simulator.server import Server
from worker.simulator.wire import Reply, Request

PORTS = 65_535


class Simulator:
    """A Message Batches API on a loopback port, served by threads of this process.

    `options` are the fields of `Options`; raises TypeError for an unknown one, ValueError for a bad one. After
    `start()`, `url` is the base URL for a client, and `control` scripts faults and tells what happened:

        with Simulator(ends_after=0.2) as simulator:
            simulator.control.inject({"on": "create", "kind": "drop_reply"})
    """

    def __init__(self, port: int = 0, **options: Any) -> None:
        if not 0 <= port <= PORTS:
            raise ValueError(f"port must be 0 to {PORTS}")
        self._port = port
        self._options = Options(**options)
        self._server: Server | None = None
        self._account: Account | None = None
        self._control: Control | None = None
        self._stopping = threading.Event()

    def start(self) -> str:
        """Listen; returns the base URL.

        Raises OSError if the port or the kept account is taken, ValueError if what was kept cannot be read,
        RuntimeError if started before.
        """
        if self._server is not None or self._stopping.is_set():
            raise RuntimeError("a simulator starts once")
        options = self._options
        account = Account.open(options)
        timeline, audit, keyring, remote = account.timeline, account.audit, account.keyring, account.remote
        book = FaultBook(options.seed, life=account.life)
        strikes = Strikes(book, keyring, self._stopping.wait)
        creation = Creation(options, timeline, remote, audit, strikes)
        api = Api(options, timeline, remote, audit, keyring, Minute(options.requests_per_minute), strikes, creation)
        control = Control(timeline, remote, audit, book, keyring)
        admin = Admin(control)

        def answer(request: Request) -> Reply:
            return (admin if request.path.startswith(ROOT) else api).answer(request)

        try:
            self._server = Server(
                answer,
                bind=options.bind,
                port=self._port,
                body_timeout=options.body_timeout,
                idle_timeout=options.idle_timeout,
            )
        except OSError:
            account.close()
            raise
        self._account, self._control = account, control
        self._server.start()
        return self._server.url

    def stop(self) -> None:
        """Close every connection and forget every batch that is not kept; does nothing the second time."""
        self._stopping.set()
        if self._server is not None:
            self._server.stop()
            self._server = None
        if self._account is not None:
            self._account.close()
            self._account = None

    @property
    def url(self) -> str:
        """The base URL; raises RuntimeError unless started."""
        if self._server is None:
            raise RuntimeError("the simulator is not running")
        return self._server.url

    @property
    def control(self) -> Control:
        """Faults, time and the record of what happened; raises RuntimeError unless started."""
        if self._control is None:
            raise RuntimeError("the simulator is not running")
        return self._control

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

"""One API call on its way through: who makes it, what it is about, and what may strike it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from worker.simulator.faults import AFTER, BEFORE, Fault, FaultBook
from worker.simulator.keys import Keyring, key_of
from worker.simulator.refusal import Refusal, unknown_batch
from worker.simulator.wire import Hangup, Reply, Request


@dataclass(slots=True)
class Call:
    """What is known of a call; `workspace` and the rate-limit `headers` once it was admitted."""

    request: Request
    request_id: str
    operation: str = "unknown"
    batch_id: str | None = None
    workspace: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def base_url(self) -> str:
        """The address the client used, so that `results_url` works for it too."""
        return f"http://{self.request.headers.get('host', '127.0.0.1')}"


@dataclass(frozen=True, slots=True)
class Strikes:
    """Carries out the faults that end, replace or delay an answer. `wait` sleeps, but not beyond the end of us."""

    book: FaultBook
    keyring: Keyring
    wait: Callable[[float], object]

    def before(self, call: Call, *, early: bool = False) -> None:
        """Strike before anything is done; raises Refusal or Hangup."""
        for fault in self.book.draw(call.operation, call.batch_id, BEFORE, early=early):
            match fault.kind:
                case "delay":
                    self.wait(fault.seconds)
                case "reset_before":
                    raise Hangup
                case "not_found":
                    raise unknown_batch(call.batch_id) if call.batch_id else Refusal(404, "Not found", early=early)
                case "revoke_key":
                    self.keyring.revoke(fault.key or key_of(call.request))
                    raise Refusal(401, "invalid x-api-key", early=early)
                case _:
                    raise _scripted(fault, early=early)

    def draw(self, call: Call, shapes: frozenset[str]) -> list[Fault]:
        """Draw what will strike a call that is about to succeed."""
        return self.book.draw(call.operation, call.batch_id, shapes | AFTER)

    def after(self, faults: list[Fault], reply: Reply) -> Reply:
        """Strike once it is done: return what is answered instead; raises Refusal or Hangup."""
        for fault in faults:
            match fault.kind:
                case "hold":
                    self.wait(fault.seconds)
                case "commit_then_status":
                    raise _scripted(fault, early=False)
                case "drop_reply" | "late_commit":
                    raise Hangup
                case "garbage":
                    return Reply(200, {"content-type": "application/json"}, fault.body.encode())
        return reply


def ok(document: object) -> Reply:
    """200 with a JSON body."""
    return Reply(200, {"content-type": "application/json"}, msgspec.json.encode(document))


def _scripted(fault: Fault, *, early: bool) -> Refusal:
    return Refusal(
        fault.status,
        fault.message,
        kind=fault.error_type,
        error_code=fault.error_code,
        retry_after=fault.retry_after,
        early=early,
    )

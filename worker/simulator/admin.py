"""The routes below /simulator/: `Control` over HTTP, for tests in other processes and other languages.

GET    /simulator/state                       everything seen and everything there is
GET    /simulator/ledger?custom_ids=1&batch=  the verdict: prompts committed, billed, billed twice
GET    /simulator/faults                      the faults in force and how often each has struck
POST   /simulator/faults                      one fault or a list of them
DELETE /simulator/faults                      none any more
POST   /simulator/clock                       {"advance": seconds}
POST   /simulator/batches                     {"count": n, "workspace"?, "prefix"?}: another user's batch
POST   /simulator/batches/{id}/end            also cancel, delete: as another user of the workspace
"""

from dataclasses import dataclass
from typing import Annotated

import msgspec

from worker.simulator.call import ok
from worker.simulator.control import Control
from worker.simulator.refusal import Refusal
from worker.simulator.wire import Malformed, Reply, Request

ROOT = "/simulator/"
BODY_LIMIT = 1 << 20


class Stranger(msgspec.Struct, forbid_unknown_fields=True):
    """The body that creates a foreign batch."""

    count: int
    workspace: str | None = None
    prefix: Annotated[str, msgspec.Meta(pattern="^[a-zA-Z0-9_-]{1,50}$")] = "stranger"


class Advance(msgspec.Struct, forbid_unknown_fields=True):
    """The body that moves time."""

    advance: Annotated[float, msgspec.Meta(ge=0)]


@dataclass(frozen=True, slots=True)
class Admin:
    """Answers what is below /simulator/."""

    control: Control

    def answer(self, request: Request) -> Reply:
        """Return the answer; what cannot be understood is 400 with the reason."""
        try:
            return ok(self._operate(request))
        except Refusal as refusal:
            return refusal.reply("req_simulator")
        except (msgspec.DecodeError, Malformed) as error:
            return Refusal(400, str(error)).reply("req_simulator")

    def _operate(self, request: Request) -> object:
        path, control = request.path.removeprefix(ROOT), self.control
        match request.method, path:
            case "GET", "state":
                return control.state()
            case "GET", "ledger":
                wanted = request.query.get("custom_ids", "") not in ("", "0", "false")
                return control.ledger(custom_ids=wanted, batch=request.query.get("batch"))
            case "GET", "faults":
                return {"faults": control.faults.describe()}
            case "DELETE", "faults":
                return {"cleared": control.clear_faults()}
            case "POST", _:
                return self._post(path, request.read(BODY_LIMIT))
        raise Refusal(404, "no such simulator route")

    def _post(self, path: str, body: bytes) -> object:
        control = self.control
        match path.split("/"):
            case ["faults"]:
                return {"numbers": control.inject(msgspec.json.decode(body))}
            case ["clock"]:
                return {"now": control.advance(msgspec.json.decode(body, type=Advance).advance)}
            case ["batches"]:
                stranger = msgspec.json.decode(body, type=Stranger)
                return control.foreign(stranger.count, workspace=stranger.workspace, prefix=stranger.prefix)
            case ["batches", batch_id, "end"]:
                control.end(batch_id)
            case ["batches", batch_id, "cancel"]:
                control.cancel(batch_id)
            case ["batches", batch_id, "delete"]:
                control.delete(batch_id)
            case _:
                raise Refusal(404, "no such simulator route")
        return {"done": path}

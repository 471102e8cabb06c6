"""The six endpoints: who may call, which operation it is, and the answer with all its headers."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from worker.simulator.answers import blocks, lines, spoiled
from worker.simulator.audit import Audit
from worker.simulator.batch import Batch
from worker.simulator.call import Call, Strikes, ok
from worker.simulator.creation import Creation
from worker.simulator.faults import AFTER, SHAPE_RESULTS, Fault
from worker.simulator.instants import Timeline, http_date
from worker.simulator.keys import Keyring, Minute
from worker.simulator.options import Options
from worker.simulator.params import VERSIONS
from worker.simulator.refusal import Refusal
from worker.simulator.remote import Remote
from worker.simulator.wire import Hangup, Reply, Request

ROOT = "/v1/messages/batches"
ROUTE = re.compile(rf"{ROOT}(?:/(?P<id>[^/]+)(?:/(?P<verb>cancel|results))?)?")
OPERATIONS = {
    ("POST", False, None): "create",
    ("GET", False, None): "list",
    ("GET", True, None): "retrieve",
    ("DELETE", True, None): "delete",
    ("POST", True, "cancel"): "cancel",
    ("GET", True, "results"): "results",
}
PAGE_DEFAULT, PAGE_MOST = 20, 1_000


@dataclass(frozen=True, slots=True)
class Api:
    """Answers requests below /v1. Raises Hangup and BodyCut, on which the connection just ends."""

    options: Options
    timeline: Timeline
    remote: Remote
    audit: Audit
    keyring: Keyring
    minute: Minute
    strikes: Strikes
    creation: Creation

    def answer(self, request: Request) -> Reply:
        """Return the answer to one request, good or bad."""
        call = Call(request, self.remote.identity("req_01"))
        try:
            reply = self._operate(call)
        except Refusal as refusal:
            reply = refusal.reply(call.request_id)
            if refusal.gateway:
                self.audit.counted(call.operation, reply.status)
                reply.headers["date"] = http_date(self.timeline.now())
                return reply
        except Hangup:
            self.audit.counted(call.operation, "hangup")
            raise
        self.audit.counted(call.operation, reply.status)
        reply.headers = self._headers(call) | reply.headers
        return reply

    def _headers(self, call: Call) -> dict[str, str]:
        headers = {
            "date": http_date(self.timeline.now()),
            "request-id": call.request_id,
            "anthropic-organization-id": self.options.organization,
        }
        if call.workspace:
            headers["anthropic-workspace-id"] = call.workspace
        return headers | call.headers

    def _operate(self, call: Call) -> Reply:
        call.operation, call.batch_id = _route(call.request)
        if call.operation == "create":
            attempt = self.creation.opened(call)
            try:
                self._admit(call)
            except Refusal as refusal:
                self.creation.refused(attempt, refusal)
                raise
            return self.creation.run(call, attempt)
        self._admit(call)
        self.strikes.before(call)
        if call.operation == "results":
            return self._results(call)
        reply = self._do(call)
        return self.strikes.after(self.strikes.draw(call, frozenset()), reply)

    def _admit(self, call: Call) -> None:
        call.workspace = self.keyring.workspace(call.request)
        version = call.request.headers.get("anthropic-version")
        if version is None:
            raise Refusal(400, "anthropic-version: header is required")
        if version not in VERSIONS:
            raise Refusal(400, f'anthropic-version: "{version}" is not a valid version')
        call.headers = self.minute.take(self.timeline.now())

    def _do(self, call: Call) -> Reply:
        batch_id = call.batch_id or ""
        match call.operation:
            case "list":
                return self._list(call)
            case "cancel":
                batch = self.remote.cancel(call.workspace, batch_id)
            case "delete":
                self.remote.delete(call.workspace, batch_id)
                return ok({"id": batch_id, "type": "message_batch_deleted"})
            case _:
                batch = self.remote.find(call.workspace, batch_id)
        reply = ok(self.remote.document(batch, call.base_url))
        if batch.ended_at(self.timeline.now()) is None and (hint := self.options.hint()):
            reply.headers["retry-after"] = str(hint)
        return reply

    def _list(self, call: Call) -> Reply:
        query = call.request.query
        after, before = query.get("after_id"), query.get("before_id")
        if after and before:
            raise Refusal(400, "after_id, before_id: only one of them may be given")
        try:
            limit = int(query.get("limit", PAGE_DEFAULT))
        except ValueError:
            raise Refusal(400, "limit: Input should be a valid integer") from None
        if not 1 <= limit <= PAGE_MOST:
            bound = "greater than or equal to 1" if limit < 1 else f"less than or equal to {PAGE_MOST}"
            raise Refusal(400, f"limit: Input should be {bound}")
        page, more = self.remote.page(call.workspace, limit, after=after, before=before)
        return ok(
            {
                "data": [self.remote.document(batch, call.base_url) for batch in page],
                "has_more": more,
                "first_id": page[0].id if page else None,
                "last_id": page[-1].id if page else None,
            }
        )

    def _results(self, call: Call) -> Reply:
        batch, now = self.remote.find(call.workspace, call.batch_id or ""), self.timeline.now()
        if batch.archived(now):
            raise Refusal(404, f"The results of batch {batch.id} have been archived and are no longer available.")
        if batch.ended_at(now) is None:
            raise Refusal(404, f"Batch {batch.id} has no available results.")
        faults = self.strikes.draw(call, SHAPE_RESULTS)
        return self.strikes.after([fault for fault in faults if fault.kind in AFTER], self._stream(batch, now, faults))

    def _stream(self, batch: Batch, now: float, faults: list[Fault]) -> Reply:
        batch.downloads += 1
        rows = self.remote.rows(batch)

        def made(spoilers: list[Fault]) -> Iterator[bytes]:
            each = lines(
                rows,
                batch.order,
                done=batch.done(now),
                rest=batch.rest,
                batch_id=batch.id,
                answer_bytes=self.options.answer_bytes,
            )
            return spoiled(each, batch.count, spoilers)

        cuts = [fault for fault in faults if fault.kind == "cut_results"]
        reply = Reply(200, {"content-type": "application/x-jsonl"}, blocks(made(faults)))
        if self.options.framing == "close" or any(cut.mode == "clean" for cut in cuts):
            reply.framing = "close"
        elif self.options.framing == "length":
            uncut = made([fault for fault in faults if fault not in cuts])
            reply.headers["content-length"] = str(sum(map(len, uncut)))
        return reply


def _route(request: Request) -> tuple[str, str | None]:
    match = ROUTE.fullmatch(request.path)
    if match is None:
        raise Refusal(404, "Not found")
    operation = OPERATIONS.get((request.method, match["id"] is not None, match["verb"]))
    if operation is None:
        raise Refusal(405, "Method Not Allowed", kind="invalid_request_error")
    return operation, match["id"]

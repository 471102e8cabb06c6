"""POST /v1/messages/batches: the one call that costs money, so the one most faults are about."""

from dataclasses import dataclass

from worker.simulator.audit import Audit
from worker.simulator.call import Call, Strikes, ok
from worker.simulator.faults import AFTER, SHAPE_BATCH
from worker.simulator.instants import Timeline
from worker.simulator.intake import Intake
from worker.simulator.notes import Attempt
from worker.simulator.options import Options
from worker.simulator.params import Judge
from worker.simulator.refusal import Refusal
from worker.simulator.remote import Remote
from worker.simulator.rows import Rows
from worker.simulator.wire import BodyCut, BodyStalled, Hangup, Reply


@dataclass(frozen=True, slots=True)
class Creation:
    """Reads, checks and commits one batch at a time per connection. Nothing exists before the body's last byte."""

    options: Options
    timeline: Timeline
    remote: Remote
    audit: Audit
    strikes: Strikes

    def opened(self, call: Call) -> Attempt:
        """Record that a POST arrived; raises Refusal 413 or an `early` fault, both before the body is read."""
        attempt = self.audit.arrived(self.timeline.now(), call.request.content_length)
        with _Outcome(self.audit, attempt):
            self._limit(call.request.content_length or 0)
            self.strikes.before(call, early=True)
        return attempt

    def refused(self, attempt: Attempt, refusal: Refusal) -> None:
        """Record that the caller was not admitted."""
        self.audit.ended(attempt, f"refused {refusal.status}")

    def run(self, call: Call, attempt: Attempt) -> Reply:
        """Read the body of an admitted call and create; raises Refusal, Hangup, BodyCut."""
        with _Outcome(self.audit, attempt):
            intake = self._read(call, attempt)
            self.strikes.before(call)
            rows = intake.finish()
            self._queue(len(rows.ids))
            attempt.count, attempt.first_custom_id = len(rows.ids), rows.ids[0]
            return self._commit(call, attempt, rows)

    def _read(self, call: Call, attempt: Attempt) -> Intake:
        headers = call.request.headers
        if headers.get("content-encoding", "identity") != "identity":
            message = "This content-encoding is not supported."
            raise Refusal(400, message, error_code="request_body_encoding_unsupported")
        judge = Judge(
            version=headers["anthropic-version"],
            betas=headers.get("anthropic-beta", ""),
            models=self.options.models,
            max_output_tokens=self.options.max_output_tokens,
        )
        intake = Intake(judge, self.options.max_requests)
        try:
            for piece in call.request.body:
                intake.feed(piece)
                attempt.received = intake.received
                self._limit(intake.received)
        except BodyStalled:
            message = "The request body did not finish arriving in time."
            raise Refusal(400, message, error_code="request_body_timeout", early=True) from None
        attempt.complete = True
        return intake

    def _limit(self, nbytes: int) -> None:
        if nbytes > self.options.max_body_bytes:
            raise Refusal(413, "Request exceeds the maximum size", early=True, gateway=True)

    def _queue(self, count: int) -> None:
        limit = self.options.queue_limit
        if limit is not None and self.remote.waiting() + count > limit:
            message = f"This request would exceed your organization's limit of {limit} batch requests in processing"
            raise Refusal(429, message)

    def _commit(self, call: Call, attempt: Attempt, rows: Rows) -> Reply:
        faults = self.strikes.draw(call, SHAPE_BATCH)
        shapes = [fault for fault in faults if fault.kind in SHAPE_BATCH]
        strikes = [fault for fault in faults if fault.kind in AFTER]
        body_bytes = attempt.received
        late = next((fault for fault in strikes if fault.kind == "late_commit"), None)
        if late is not None:
            self.remote.create_late(call.workspace, rows, body_bytes=body_bytes, shapes=shapes, delay=late.seconds)
            self.audit.ended(attempt, "late_commit")
            raise Hangup
        batch = self.remote.create(call.workspace, rows, body_bytes=body_bytes, shapes=shapes)
        attempt.batch = batch.id
        self.audit.ended(attempt, "+".join(["created", *(fault.kind for fault in strikes)]))
        return self.strikes.after(strikes, ok(self.remote.document(batch, call.base_url)))


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Notes how an attempt ended if nothing noted it before."""

    audit: Audit
    attempt: Attempt

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or self.attempt.outcome != "arriving":
            return
        match error:
            case Refusal():
                self.audit.ended(self.attempt, error.error_code or f"refused {error.status}")
            case BodyCut():
                self.audit.ended(self.attempt, "cut")
            case _:
                self.audit.ended(self.attempt, "reset")

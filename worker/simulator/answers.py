"""Result lines: made-up answers with believable usage, and the scripted ways a stream of them goes wrong."""

from collections.abc import Iterator
from itertools import chain

from worker.simulator.faults import Fault
from worker.simulator.rows import ROW, Order, Rows, Verdict
from worker.simulator.wire import Hangup

BLOCK = 128 << 10  # bytes per send
BYTES_PER_TOKEN = 4
FILLER = (
    "It is deterministic: the same prompt gets the same answer, whichever batch carries it. "
    "Nothing was computed, nothing was understood and nothing will be billed. "
    "Point base_url at the real API when you want to know more. "
)
LINE = (
    b'{"custom_id":"%b","result":{"type":"succeeded","message":{"model":"%b","id":"msg_01%b","type":"message",'
    b'"role":"assistant","content":[%b],"stop_reason":"%b","stop_sequence":null,"stop_details":null,"usage":'
    b'{"input_tokens":%d,"cache_creation_input_tokens":%d,"cache_read_input_tokens":%d,"cache_creation":'
    b'{"ephemeral_5m_input_tokens":%d,"ephemeral_1h_input_tokens":0},"output_tokens":%d,"service_tier":"batch",'
    b'"inference_geo":"global"}}}}\n'
)


def lines(rows: Rows, order: Order, *, done: int, rest: str, batch_id: str, answer_bytes: int) -> Iterator[bytes]:
    """Yield one result line for each row, in the batch's order; all but the first `done` end as `rest`."""
    record, table, width = ROW.unpack_from, rows.table, ROW.size
    models = [model.encode() for model in rows.models]
    tails = [verdict.tail() for verdict in rows.verdicts]
    left_over = Verdict(rest).tail()
    stem, filler = batch_id[-14:].encode(), (FILLER * (answer_bytes // len(FILLER) + 1)).encode()
    for rank, index in enumerate(order.first(order.count)):
        size, crc, cap, model, number, cached = record(table, index * width)
        custom_id = rows.ids[index].encode()
        verdict = rows.verdicts[number]
        if rank >= done:
            yield b'{"custom_id":"' + custom_id + left_over
            continue
        if verdict.result != "succeeded":
            yield b'{"custom_id":"' + custom_id + tails[number]
            continue
        text = b"A simulated answer to %d bytes of params, CRC-32 %08x. %b" % (size, crc, filler)
        text = text[: min(answer_bytes, cap * BYTES_PER_TOKEN)]
        stop = verdict.stop_reason.encode() or (b"end_turn" if len(text) == answer_bytes else b"max_tokens")
        content = b'{"type":"text","text":"%b"}' % text if stop != b"refusal" else b""
        tokens = max(1, size // BYTES_PER_TOKEN)
        kept = tokens * 3 // 4 if cached else 0
        written = kept if rank == 0 or crc % 10 < 3 else 0  # noqa: PLR2004  # best effort: seven in ten hit the cache
        yield LINE % (
            custom_id,
            models[model],
            stem + b"%08x" % index,
            content,
            stop,
            tokens - kept,
            written,
            kept - written,
            written,
            max(1, len(text) // BYTES_PER_TOKEN),
        )


def blocks(each: Iterator[bytes]) -> Iterator[bytes]:
    """Join lines into pieces worth a send."""
    held: list[bytes] = []
    size = 0
    try:
        for line in each:
            held.append(line)
            size += len(line)
            if size >= BLOCK:
                yield b"".join(held)
                held.clear()
                size = 0
    except Hangup:
        yield b"".join(held)  # what came before the cut is sent
        raise
    if held:
        yield b"".join(held)


def spoiled(each: Iterator[bytes], count: int, faults: list[Fault]) -> Iterator[bytes]:
    """Apply the faults of a results stream of `count` lines, in the order in which they were posted."""
    for fault in faults:
        match fault.kind:
            case "missing_line":
                each = _without(each, count // 2, fault.lines)
            case "duplicate_line":
                each = _doubled(each, count // 2, fault.lines)
            case "foreign_line":
                strangers = (b'{"custom_id":"stranger_%d' % n + Verdict("expired").tail() for n in range(fault.lines))
                each = chain(strangers, each)
            case "cut_results":
                each = _cut(each, int(count * fault.fraction), fault)
    return each


def _without(each: Iterator[bytes], start: int, many: int) -> Iterator[bytes]:
    return (line for number, line in enumerate(each) if not start <= number < start + many)


def _doubled(each: Iterator[bytes], start: int, many: int) -> Iterator[bytes]:
    for number, line in enumerate(each):
        yield line
        if start <= number < start + many:
            yield line


def _cut(each: Iterator[bytes], keep: int, fault: Fault) -> Iterator[bytes]:
    for number, line in enumerate(each):
        if number < keep:
            yield line
            continue
        if fault.mid_line:
            yield line[: len(line) // 2]
        if fault.mode == "reset":
            raise Hangup
        return

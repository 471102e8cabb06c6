"""What the real API checks only at the end: each request's params, which become an `errored` row, never a refusal."""

import re
import zlib
from collections.abc import Collection
from typing import Annotated, Any

import msgspec

from worker.simulator.rows import SUCCEEDED, Rows, Verdict

STABLE = "2023-06-01"
LATEST = "2026-10-21"
VERSIONS = (STABLE, LATEST)
LONG_OUTPUT_BETA = "output-300k-2026-03-24"
LONG_OUTPUT = 300_000
CAP = 2**32 - 1

KNOWN = re.compile(r"claude-(fable|mythos|opus|sonnet|haiku)-(\d+)(?:-(\d{1,2}))?(?:-\d{8})?|claude-mythos-preview")
RETIRED = re.compile(r"claude-(opus-4(-[01])?|sonnet-4(-0)?)(-\d{8})?")
ACCEPTED = frozenset(
    {
        *("model", "max_tokens", "messages", "system", "metadata", "stop_sequences", "stream", "thinking"),
        *("tool_choice", "tools", "service_tier", "container", "cache_control", "inference_geo", "output_config"),
        *("diagnostics", "temperature", "top_p", "top_k", "context_management", "mcp_servers", "billing_policy"),
        *("compaction", "fallbacks", "fallback_credit_token", "thread"),
    }
)
SAMPLING = ("temperature", "top_p", "top_k")


class Turn(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A message of the plainest shape."""

    role: str
    content: msgspec.Raw


class Plain(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The shape nearly all requests have; anything else goes the long way."""

    model: str
    max_tokens: Annotated[int, msgspec.Meta(ge=1)]
    messages: Annotated[list[Turn], msgspec.Meta(min_length=1)]
    system: msgspec.Raw = msgspec.Raw()


class Judge:
    """Decides for one batch what becomes of each of its requests."""

    def __init__(self, *, version: str, betas: str, models: Collection[str] | None, max_output_tokens: int) -> None:
        self._version = version
        self._models = models
        self._most = LONG_OUTPUT if LONG_OUTPUT_BETA in betas else max_output_tokens
        self._plain = msgspec.json.Decoder(Plain)
        self._verdicts: dict[str, bool] = {}

    def row(self, params: bytes, rows: Rows) -> tuple[int, int, int, int, int, bool]:
        """Return what is remembered of one request; `params` is its JSON object. See `rows.ROW`."""
        model, cap, verdict = self._judge(params)
        number = 0 if verdict is SUCCEEDED else rows.verdict(verdict)
        return len(params), zlib.crc32(params), cap, rows.model(model), number, b'"cache_control"' in params

    def _judge(self, params: bytes) -> tuple[str, int, Verdict]:
        try:
            plain = self._plain.decode(params)
        except msgspec.DecodeError:
            return self._at_length(params)
        last = plain.messages[-1]
        text = memoryview(last.content)
        if last.role != "user" or len(plain.messages) > 1 or text[0] != ord('"') or len(text) == len('""'):
            return self._at_length(params)
        if plain.max_tokens > self._most or not self._knows(plain.model):
            return self._at_length(params)
        return plain.model, min(plain.max_tokens, CAP), SUCCEEDED

    def _at_length(self, params: bytes) -> tuple[str, int, Verdict]:
        try:
            tree = msgspec.json.decode(params)
        except (msgspec.DecodeError, UnicodeDecodeError):  # valid enough to be passed over, e.g. a number out of range
            return "", 0, _invalid("params: could not be read")
        complaint = self._complaint(tree)
        model, cap = tree.get("model"), tree.get("max_tokens")
        if complaint is None and not self._knows(tree["model"]):
            complaint = Verdict("errored", "not_found_error", f"model: {model}")
        return (
            model if isinstance(model, str) else "",
            min(cap, CAP) if isinstance(cap, int) and cap > 0 else 0,
            complaint or SUCCEEDED,
        )

    def _knows(self, model: str) -> bool:
        if model not in self._verdicts:
            listed = model in self._models if self._models is not None else None
            usual = bool(KNOWN.fullmatch(model)) and not RETIRED.fullmatch(model)
            self._verdicts[model] = usual if listed is None else listed
        return self._verdicts[model]

    def _complaint(self, tree: dict[str, Any]) -> Verdict | None:
        return _shape(tree) or self._limits(tree) or self._turns(tree["messages"], tree["model"])

    def _limits(self, tree: dict[str, Any]) -> Verdict | None:
        if tree["max_tokens"] < 1:
            return _invalid("max_tokens: Input should be greater than or equal to 1")
        if tree["max_tokens"] > self._most:
            return _invalid(
                f"max_tokens: {tree['max_tokens']} > {self._most}, which is the maximum allowed number of output tokens"
            )
        if tree.get("stream"):
            return _invalid("stream: streaming is not supported in batches")
        if self._version == LATEST:
            for name in SAMPLING:
                if name in tree:
                    return _invalid(f"{name}: not supported in anthropic-version {LATEST}")
        return None

    def _turns(self, messages: list[Any], model: str) -> Verdict | None:
        if not messages:
            return _invalid("messages: at least one message is required")
        for place, turn in enumerate(messages):
            where = f"messages.{place}"
            if not isinstance(turn, dict) or turn.get("role") not in ("user", "assistant"):
                return _invalid(f"{where}.role: Input should be 'user' or 'assistant'")
            if not isinstance(turn.get("content"), str | list) or not turn["content"]:
                return _invalid(f"{where}.content: content must not be empty")
            if isinstance(turn["content"], list):
                for number, block in enumerate(turn["content"]):
                    fault = self._block(block, turn["role"])
                    if fault:
                        return _invalid(f"{where}.content.{number}.{fault}")
        if messages[-1]["role"] == "assistant" and _refuses_prefill(model):
            return _invalid("messages: this model does not support a prefilled assistant message at the end")
        return None

    def _block(self, block: Any, role: str) -> str | None:
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            return "type: Field required"
        if self._version == LATEST and role == "assistant" and block["type"] == "document":
            return f"type: document blocks are not supported in assistant messages in anthropic-version {LATEST}"
        if self._version == LATEST and role == "user" and block["type"] == "text" and block.get("citations"):
            return f"citations: not supported in user text in anthropic-version {LATEST}"
        source = block.get("source")
        url = source.get("url", "") if isinstance(source, dict) else ""
        # The name that never resolves (RFC 2606) stands for every address that cannot be reached.
        if isinstance(url, str) and re.match(r"https?://[^/]*\.invalid(/|:|$)", url):
            return "source: Unable to download the file. Please verify the URL and try again."
        return None


def _shape(tree: dict[str, Any]) -> Verdict | None:
    for name, kind in (("model", str), ("max_tokens", int), ("messages", list)):
        if name not in tree:
            return _invalid(f"{name}: Field required")
        if not isinstance(tree[name], kind) or isinstance(tree[name], bool):
            return _invalid(f"{name}: Input should be a valid {kind.__name__}")
    extra = next((name for name in tree if name not in ACCEPTED), None)
    return None if extra is None else _invalid(f"{extra}: Extra inputs are not permitted")


def _invalid(message: str) -> Verdict:
    return Verdict("errored", "invalid_request_error", message)


def _refuses_prefill(model: str) -> bool:
    match = KNOWN.fullmatch(model)
    if not match:
        return False
    return match[2] is None or (int(match[2]), int(match[3] or 0)) >= (4, 6)

"""Words that must not be seen again, and a look at everything that was written."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

KEY = "CANARY_KEY_b7f4e1"
REDIS_PASSWORD = "CANARY_REDIS_c2a9d8"
TOKEN = "CANARY_TOKEN_e5b3f0"
PROMPT = "CANARY_PROMPT_a1d6c4"
METADATA = "CANARY_METADATA_f8e2b7"
PRODUCER = "CANARY_ID_d3c5a9"
SECRETS = (KEY, REDIS_PASSWORD, TOKEN)
CONTENT = (PROMPT, METADATA)
QUOTE = f"requests.0.params: you wrote '{PROMPT}' with metadata {METADATA} and key {KEY}"
"""What a careless API might say."""

_CANARY = re.compile(rb"CANARY_[A-Z]+_[0-9a-f]{6}")


def params(text: str = PROMPT, **more: object) -> str:
    """Return usable params that hold a canary in every place that is the producer's."""
    message = {"role": "user", "content": text}
    return json.dumps({"model": "claude-haiku-4-5", "max_tokens": 64, "messages": [message], "system": PROMPT, **more})


def seen_in(texts: Iterable[str | bytes], *, but: Iterable[str] = ()) -> set[str]:
    """Return the canaries in texts, but those that may be there."""
    joined = b"\n".join(text.encode() if isinstance(text, str) else text for text in texts)
    return {found.decode() for found in _CANARY.findall(joined)} - set(but)


def files_below(folder: Path, *, but: Iterable[str]) -> dict[str, bytes]:
    """Return every file below a folder, but those below its sub-folders that hold prompts by right."""
    spared = [folder / name for name in but]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not any(path.is_relative_to(each) for each in spared)
    }

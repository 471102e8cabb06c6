"""The script a user would write with the SDK: `python -m benchmarks.plain URL QUESTIONS PROMPT_BYTES ROWS`."""

import json
import sys
import time
from itertools import islice
from pathlib import Path

from anthropic import Anthropic
from anthropic.types.messages import MessageBatch
from anthropic.types.messages.batch_create_params import Request

from benchmarks.prompts import params_of, read_questions, system_text

CHUNK = 10_000


def main(url: str, questions: Path, prompt_bytes: int, rows: Path) -> None:
    """Create the batches, wait for each, write its results."""
    client = Anthropic(base_url=url, api_key="sk-ant-bench")
    system = system_text(prompt_bytes)
    numbered = enumerate(read_questions(questions))
    batches: list[MessageBatch] = []
    while chunk := list(islice(numbered, CHUNK)):
        requests: list[Request] = [
            {"custom_id": f"p-{number}", "params": params_of(question, system)}  # type: ignore[typeddict-item]
            for number, question in chunk
        ]
        batches.append(client.messages.batches.create(requests=requests))
        rows.with_suffix(".batches.json").write_text(json.dumps([batch.id for batch in batches]))
    with rows.open("w", encoding="utf-8") as file:
        for batch in batches:
            while client.messages.batches.retrieve(batch.id).processing_status != "ended":
                time.sleep(1)
            for line in client.messages.batches.results(batch.id):
                row = {"id": line.custom_id, "ok": line.result.type == "succeeded", "text": None}
                if line.result.type == "succeeded":
                    row["text"] = line.result.message.content[0].text  # type: ignore[union-attr]
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))

"""batchmill: prompts in through Redis, Anthropic Message Batches in the middle, rows out to sinks."""

"""The producer's side: `Producer` puts prompts into a lane. Importing it needs neither the SDK nor dramatiq.

with Producer("redis://127.0.0.1:6379/0") as producer:
    producer.enqueue({"model": "…", "max_tokens": 1024, "messages": […]}, id="order-42")

`Producer(url, access=RedisAccess(username=…, password=…, tls_ca_file=…))` keeps secrets out of the URL.
"""

from worker.client.outcomes import Fate, Outcome, QueueFull, Summary, Unreachable
from worker.client.producer import Producer
from worker.core.access import RedisAccess

__all__ = ["Fate", "Outcome", "Producer", "QueueFull", "RedisAccess", "Summary", "Unreachable"]

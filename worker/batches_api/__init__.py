"""The Message Batches API: the only place that knows Anthropic's SDK, imported when a `BatchesApi` is built."""

from worker.batches_api.api import CLOCK_DOUBT, BatchesApi
from worker.batches_api.budget import Clock
from worker.batches_api.conclusions import Created, Retrieved
from worker.batches_api.errors import (
    ApiError,
    Complaint,
    InDoubt,
    NotFound,
    NotSent,
    Refused,
    Truncated,
    Unavailable,
)
from worker.batches_api.listing import Listing
from worker.batches_api.withheld import Body

__all__ = [
    "CLOCK_DOUBT",
    "ApiError",
    "BatchesApi",
    "Body",
    "Clock",
    "Complaint",
    "Created",
    "InDoubt",
    "Listing",
    "NotFound",
    "NotSent",
    "Refused",
    "Retrieved",
    "Truncated",
    "Unavailable",
]

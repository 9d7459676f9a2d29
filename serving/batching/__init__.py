"""Dynamic batching: requests that wait together are answered together."""

from serving.batching.batcher import Batcher
from serving.batching.jobs import BatchSettings, Deadline, Job

__all__ = ["BatchSettings", "Batcher", "Deadline", "Job"]

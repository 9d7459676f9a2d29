"""What look needs to know: where the data is, said as ingest says it."""

from rankline.raw import Source


class LookConfig(Source):
    """Where the raw data is."""

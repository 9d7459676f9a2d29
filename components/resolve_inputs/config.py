"""What resolve_inputs needs to know: where the data is, said as ingest says it."""

from rankline.io.sources import Source


class ResolveInputsConfig(Source):
    """Where the raw data is."""

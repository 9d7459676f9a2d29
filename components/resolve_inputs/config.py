"""The settings of resolve_inputs: those of ingest that say where the data is."""

from rankline.io.sources import Source


class ResolveInputsConfig(Source):
    """Where the raw data is."""

"""What look needs to know: where the data is, said as ingest says it."""

from pydantic import Field

from rankline.contracts import Frozen


class LookConfig(Frozen):
    """Where the raw data is."""

    source: str = Field(description="Folder of the source, or the path of its files without their suffix.")
    format: str = Field("recbole", description="Adapter that reads the source: recbole.")
    name: str | None = Field(None, description="Name of the data set, where the folder holds several.")

"""The settings of a source, and passwords kept out of them and of every message."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, field_validator, model_validator

from rankline.contracts import FrozenModel

MASK = "***"


class Tables(FrozenModel):
    """Where each table of the source is; empty if there is none."""

    events: str = Field(
        default="",
        description="The event log: file, pattern, folder or URL, or several of them with ' | ' between them; for sql "
        "a table or a query.",
    )
    items: str = Field(default="", description="The catalogue, in the same form.")
    users: str = Field(default="", description="The users and their attributes, in the same form.")
    queries: str = Field(default="", description="The search queries, in the same form.")


class Source(FrozenModel):
    """Where the raw data is."""

    source: str = Field(
        description="Folder or URL of the source, or the path of its files without their suffix; for sql a DuckDB "
        "file, or postgresql://host/database without a password."
    )
    format: str = Field(default="recbole", description="Format of the source: recbole, beir, tables or sql.")
    name: str | None = Field(default=None, description="Name of the data set, if the folder holds several.")
    tables: Tables = Field(default=Tables(), description="Where each table is, for tables and sql; relative to source.")
    connection: str = Field(
        default="", description="For sql: environment variable that holds the database's URL with its password."
    )
    changing: bool = Field(
        default=False, description="Read the source in every run, without checking whether it has changed."
    )
    items_from_events: bool = Field(
        default=False,
        description="If there is no items table, take the items from the events; they have no title and no text.",
    )
    only_items: bool = Field(
        default=False,
        description="Read only the items, as a catalogue refresh does; tables.items may then name them in any format.",
    )

    @model_validator(mode="before")
    @classmethod
    def _masked(cls, values: Any) -> Any:
        """Mask a password before pydantic could repeat it in a message."""
        if isinstance(values, dict) and isinstance(values.get("source"), str):
            return {**values, "source": mask_passwords(values["source"])}
        return values

    @field_validator("source")
    @classmethod
    def _without_password(cls, source: str) -> str:
        if f"{MASK}@" in source or f"={MASK}" in source:
            raise ValueError("settings must not hold a password: use PGPASSWORD or ingest.connection")
        return source


def mask_passwords(text: str) -> str:
    """The text without the passwords in URLs and after `password=`."""
    text = re.sub(r"(postgres(?:ql)?://[^/\s:@]*):\S*@|(\w+://[^/\s:@]*):[^/\s]*@", rf"\1\2:{MASK}@", text)
    return re.sub(r"(?i)\b(password|passwd|pwd)=('[^']*'|[^\s&]+)", rf"\1={MASK}", text)


def is_file_database(source: Source) -> bool:
    """Whether a source of format sql is a DuckDB file and not a server."""
    return not source.connection and not source.source.startswith(("postgres://", "postgresql://"))

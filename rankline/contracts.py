"""What passes between the steps: table schemas, file names, and the shapes of a request and a manifest.

Everything here is data about data; nothing here reads or writes a file.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

UTC_TIMESTAMP = pa.timestamp("us", tz="UTC")

# The canonical tables, the same for every source. Feast needs microsecond timestamps.
ITEMS = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("text", pa.string()),
        pa.field("language", pa.string()),
        pa.field("category", pa.list_(pa.string())),
        pa.field("price", pa.float64()),
        pa.field("available", pa.bool_()),
        pa.field("created_at", UTC_TIMESTAMP),
    ]
)
USERS = pa.schema([pa.field("user_id", pa.string(), nullable=False)])
# A query is a text, or the turns of a conversation (oldest first), the last of which is what is asked.
QUERIES = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("turns", pa.list_(pa.string())),
    ]
)
EVENTS = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("event_timestamp", UTC_TIMESTAMP, nullable=False),
        pa.field("known_at", UTC_TIMESTAMP, nullable=False),
        pa.field("user_id", pa.string()),
        pa.field("query_id", pa.string()),
        pa.field("item_id", pa.string(), nullable=False),
    ]
)
REJECTED = pa.schema(
    [
        pa.field("table", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("raw", pa.string(), nullable=False),
        pa.field("key", pa.string()),  # the id of the item, user or query that it tells of, where that can be read
    ]
)
SUPERSEDED = "a later row tells of it"  # reason why a row of a change feed is set aside; no fault of its own
# A source may add columns behind these: declared attributes, label columns, context columns.
TABLES = {"items": ITEMS, "users": USERS, "queries": QUERIES, "events": EVENTS}

# Label columns an event may carry, and what each means. `rating` is explicit feedback on a stated scale.
LABELS = ("click", "purchase", "rating", "relevance")

SPLITS = ("train", "valid", "test")
# Column in which a source that is already split says where an event belongs; one of SPLITS.
SPLIT = "split"


NULL_MARKER = "__null__"  # Kubeflow's parameters carry no null, so it travels as this word


class FrozenModel(BaseModel):
    """A value that does not change once made and refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _restore_nulls(cls, values: Any) -> Any:
        """The word that stands for null on Kubeflow's wire is null again."""
        if not isinstance(values, dict):
            return values
        return {name: None if value == NULL_MARKER else value for name, value in values.items()}


def replace_in_strings(value: Any, old: str, new: str) -> Any:
    """A plain value with ``old`` replaced by ``new`` in every text of it; a path only where its parts are whole."""
    if isinstance(value, dict):
        return {name: replace_in_strings(each, old, new) for name, each in value.items()}
    if isinstance(value, list):
        return [replace_in_strings(each, old, new) for each in value]
    if not isinstance(value, str):
        return value
    # /tmp/pr is no part of /tmp/prices.item, nor of /data/tmp/pr
    return (
        re.sub(_WHOLE_PATH.format(re.escape(old)), lambda _: new, value)
        if old.startswith("/")
        else value.replace(old, new)
    )


_WHOLE_PATH = r"(?<![^\s/'\"(\[{{,;:|=]){}(?![^/'\")\]}},;:|?])"  # a path that stands alone, in a URL, or in a query


def encode_nulls(value: Any) -> Any:
    """A plain value with the word that stands for null in place of every null."""
    if isinstance(value, dict):
        return {name: encode_nulls(each) for name, each in value.items()}
    if isinstance(value, list):
        return [encode_nulls(each) for each in value]
    return NULL_MARKER if value is None else value


class History(FrozenModel):
    """What a user had done by some moment, oldest first; the three lists run in parallel."""

    item_ids: list[str] = []
    times: list[float] = Field(default=[], description="unix seconds")
    ratings: list[float] = Field(default=[], description="explicit feedback, 0 where there was none")


class FrozenState(FrozenModel):
    """History and features as they were at a request's moment, given in place of the server's look-ups."""

    at: float = Field(description="unix seconds of the request's moment")
    history: History = History()
    seen: list[str] = Field(default=[], description="items to leave out of the answer")
    user_features: dict[str, float] = {}
    affinity: dict[str, float] = Field(default={}, description="category -> share of the user's events")
    item_features: dict[str, list[Any]] = Field(
        default={}, description="columns: item_id and one list a feature; items left out have defaults"
    )


class Precision(FrozenModel):
    """The files of one precision of a bundle."""

    text: str | None = None
    side: str | None = Field(
        default=None, description="side information -> vector; none in bundles of earlier versions"
    )
    user: str | None = None
    scorer: str
    item_vectors: str


class Parity(FrozenModel):
    """How far ONNX Runtime is from torch, recorded when the bundle was made."""

    graph: str
    precision: str
    samples: int
    max_abs_difference: float
    min_cosine: float | None = None


class FeatureNames(FrozenModel):
    """The feature columns a scorer was trained on, in its order."""

    service: str
    user: list[str]
    item: list[str]
    cross: list[str]
    context: list[str]
    sources: list[str]

    @property
    def columns(self) -> list[str]:
        """All of them, in the scorer's order."""
        return [*self.user, *self.item, *self.cross, *self.context, *self.sources]


class TextSettings(FrozenModel):
    """How text becomes tokens; training, export and serving read the same."""

    max_tokens: int
    pad_id: int = 0
    pooling: Literal["mean", "cls"] = "mean"
    turns: int = Field(3, description="last turns of a conversation that are read as its query")


class Manifest(FrozenModel):
    """What a bundle says of itself (manifest.json). Scores are evidence and lie beside the bundle, not in it."""

    schema_version: Literal[1] = 1
    recipe: str
    catalogue: str = Field("", description="what this model ranks; models of one catalogue compete")
    heads: list[str]
    features: FeatureNames
    text: TextSettings | None
    vector_size: int
    max_history: int
    covisit_decay: float = Field(description="weight of a history item per step back in time")
    candidates_per_source: int
    precisions: dict[str, Precision]
    parity: list[Parity]
    data_digest: str
    code_digest: str
    train_end: str = Field(
        description="when the last training event was known; the scorer and early stopping saw valid requests, too"
    )
    data_end: str = Field(
        "", description="when the last event of the data window happened; empty in bundles of earlier versions"
    )
    files: dict[str, str] = Field(default={}, description="servable path -> sha256; the model id is made of it")

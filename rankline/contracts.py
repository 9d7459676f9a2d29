"""The contracts between the steps: table schemas, the shape of a request, and the manifest of a bundle.

Nothing here reads or writes a file.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

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
# A query is a text, or the turns of a conversation, oldest first.
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
        pa.field("key", pa.string()),  # the id of the item, user or query of the row, if it can be read
    ]
)
SUPERSEDED = "a later row tells of it"  # reason for a row of a change feed, which is not an error of the row
# A source may add columns after these: declared attributes, label columns, context columns.
TABLES = {"items": ITEMS, "users": USERS, "queries": QUERIES, "events": EVENTS}

# The label columns of an event; `rating` is explicit feedback on a scale that the recipe states.
LABELS = ("click", "purchase", "rating", "relevance")

SPLITS = ("train", "valid", "test")
# The column that holds the split of an event, in a source that is split already.
SPLIT = "split"
TIME_ZONE = "time_zone"  # column of users or of events: the zone of the user's clock


NULL_MARKER = "__null__"  # stands for null in the parameters of Kubeflow, which cannot be null


class FrozenModel(BaseModel):
    """An immutable model without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _restore_nulls(cls, values: Any) -> Any:
        """Undo `encode_nulls`."""
        if not isinstance(values, dict):
            return values
        return {name: None if value == NULL_MARKER else value for name, value in values.items()}


class OmitsUnset(FrozenModel):
    """A model that leaves some fields out of what is written while they are empty, as earlier versions did."""

    OMITTED: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _omit(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in write(self).items() if value or name not in self.OMITTED}


def replace_in_strings(value: Any, old: str, new: str) -> Any:
    """A JSON value with ``old`` replaced by ``new`` in every string, a path only as a whole or as a parent."""
    if isinstance(value, dict):
        return {name: replace_in_strings(each, old, new) for name, each in value.items()}
    if isinstance(value, list):
        return [replace_in_strings(each, old, new) for each in value]
    if not isinstance(value, str):
        return value
    # /tmp/pr occurs neither in /tmp/prices.item nor in /data/tmp/pr
    return (
        re.sub(_WHOLE_PATH.format(re.escape(old)), lambda _: new, value)
        if old.startswith("/")
        else value.replace(old, new)
    )


_WHOLE_PATH = r"(?<![^\s/'\"(\[{{,;:|=]){}(?![^/'\")\]}},;:|?])"  # a path that is alone, in a URL, or in an SQL query


def encode_nulls(value: Any) -> Any:
    """A JSON value with NULL_MARKER in place of every null."""
    if isinstance(value, dict):
        return {name: encode_nulls(each) for name, each in value.items()}
    if isinstance(value, list):
        return [encode_nulls(each) for each in value]
    return NULL_MARKER if value is None else value


MAX_NUMBER = 3e38  # what a float32 holds
MAX_ID = 4096
MAX_EVENTS = 100_000
# a string with a length is checked for being Unicode, one without is not
Id = Annotated[str, Field(max_length=MAX_ID)]
Number = Annotated[float, Field(ge=-MAX_NUMBER, le=MAX_NUMBER, allow_inf_nan=False)]


class History(FrozenModel):
    """The items that a user interacted with, oldest first, in three parallel lists."""

    item_ids: list[Id] = Field(default=[], max_length=MAX_EVENTS)
    times: list[Number] = Field(default=[], max_length=MAX_EVENTS, description="unix seconds")
    ratings: list[Number] = Field(
        default=[], max_length=MAX_EVENTS, description="explicit feedback, 0 if there was none"
    )


class FrozenState(OmitsUnset):
    """History and features as of the time of a request, in place of the server's own lookups."""

    OMITTED = ("profile", "context", "time_zone")

    at: Number = Field(description="time of the request, in unix seconds")
    history: History = History()
    seen: list[Id] = Field(default=[], description="items to leave out of the response")
    user_features: dict[Id, Number] = {}
    affinity: dict[Id, Number] = Field(default={}, description="category -> share of the user's events")
    item_features: dict[str, list[Any]] = Field(
        default={}, description="columns: item_id and one list per feature; items that are missing have default values"
    )
    profile: dict[str, Any] = Field(default={}, description="declared features of the user; any may be missing")
    context: dict[str, Any] = Field(default={}, description="declared features of the request; any may be missing")
    time_zone: str = Field(default="", max_length=100, description="zone of the user's clock; UTC if empty")


class Precision(OmitsUnset):
    """The files of a bundle in one precision."""

    OMITTED = ("profile",)

    text: str | None = None
    side: str | None = Field(default=None, description="side features -> vector; null in bundles of earlier versions")
    user: str | None = None
    profile: str | None = Field(default=None, description="what is known of the user and of the request -> vector")
    scorer: str
    item_vectors: str

    @property
    def served_files(self) -> list[str | None]:
        """All files, those that a model does not have as None."""
        return [self.text, self.side, self.user, self.profile, self.scorer, self.item_vectors]


class Parity(FrozenModel):
    """The difference between ONNX Runtime and torch, measured at export."""

    graph: str
    precision: str
    samples: int
    max_abs_difference: float
    min_cosine: float | None = None


class FeatureNames(FrozenModel):
    """The feature columns that the scorer was trained on, in order."""

    service: str
    user: list[str]
    item: list[str]
    cross: list[str]
    context: list[str]
    sources: list[str]

    @property
    def columns(self) -> list[str]:
        """All columns, in the scorer's order."""
        return [*self.user, *self.item, *self.cross, *self.context, *self.sources]


class TextSettings(FrozenModel):
    """How text becomes tokens, in training, export and serving alike."""

    max_tokens: int
    pad_id: int = 0
    pooling: Literal["mean", "cls"] = "mean"
    turns: int = Field(3, description="number of a conversation's last turns that make its query")


class Manifest(FrozenModel):
    """The manifest of a bundle (manifest.json). Scores are evidence, which is stored beside the bundle."""

    schema_version: Literal[1] = 1
    recipe: str
    catalogue: str = Field("", description="name of the catalogue; models of one catalogue compete")
    heads: list[str]
    features: FeatureNames
    text: TextSettings | None
    vector_size: int
    max_history: int
    covisit_decay: float = Field(description="factor of a history item's weight per step back in time")
    candidates_per_source: int
    precisions: dict[str, Precision]
    parity: list[Parity]
    data_digest: str
    code_digest: str
    train_end: str = Field(
        description="when the last training event became known; scorer and early stopping also use the valid split"
    )
    data_end: str = Field(
        "", description="time of the last event in the data window; empty in bundles of earlier versions"
    )
    ranks_by: str = Field(
        "",
        description="what orders the candidates: fusion, source, mix or scorer; empty in bundles of earlier versions",
    )
    files: dict[str, str] = Field(default={}, description="servable path -> sha256; the model id is computed from it")

"""The settings of ingest."""

from datetime import UTC, datetime
from typing import Any

from pydantic import Field, field_validator, model_validator

from components.ingest.ids import NORMALISATIONS
from components.ingest.label_settings import DEFAULT_COLUMNS, check_labels, mapped_columns
from components.ingest.times import OTHER_UNITS, UNITS
from rankline.contracts import EVENTS, ITEMS, LABELS, QUERIES, SPLIT, TABLES, TIME_ZONE, USERS, FrozenModel
from rankline.errors import SettingError
from rankline.io.sources import Source, is_file_database
from rankline.labels import FEEDBACK, IMPRESSION, Label, effective_labels
from rankline.runtime.memory import halved_settings

EVENT_TYPE = "event_type_as_written"
INTERNAL_COLUMNS = (
    EVENT_TYPE,
    "row",
    "raw",
    "reject_reason",
    "event_query_text",
    "event_query_turns",
    "price_as_written",
    "holds_from",
    "time_zone_as_written",
)  # internal columns
# names that declared columns may not have, in any case: DuckDB ignores case
RESERVED_NAMES = {
    *ITEMS.names,
    *USERS.names,
    *QUERIES.names,
    *EVENTS.names,
    *LABELS,
    *INTERNAL_COLUMNS,
    SPLIT,
    "release_year",
}


class Columns(FrozenModel):
    """The source's column for each purpose; an empty name means that the source has none."""

    user_id: str = Field("user_id", description="Column of events and users with the user's id.")
    item_id: str = Field("item_id", description="Column of events and items with the item's id.")
    query_id: str = Field("", description="Column of events and queries with the query's id.")
    user_key: str = Field("", description="Column of users with the user's id, if its name differs from user_id.")
    item_key: str = Field("", description="Column of items with the item's id, if its name differs from item_id.")
    query_key: str = Field("", description="Column of queries with the query's id, if its name differs from query_id.")
    normalise_ids: tuple[str, ...] = Field(
        (),
        description="How ids of all tables are made alike, where two tables write them in two ways: accents, blanks, "
        "case, fraction (1037.0), guid ({6F96…} is 6f96…), prefix (gid://shop/Product/1037), zeros (01037).",
    )
    timestamp: str = Field("timestamp", description="Column of events with the time.")
    timestamp_unit: str = Field(
        "s",
        description="Format of the times: s, ms, us or ns since 1970, iso, mixed (iso, and numbers since 1970 whose "
        "size tells the unit), excel (days since 1899-12-30), ticks (of .NET), filetime (of Windows), or a pattern "
        "such as '%d.%m.%Y %H:%M'. Ignored for a column that the source itself types as a time.",
    )
    time_of_day: str = Field(
        "", description="Column of events with the time of day, if that of the timestamp has only the date."
    )
    time_zone: str = Field(
        "", description="Zone of times without a zone, such as UTC or Europe/Berlin; required if there are any."
    )
    known_at: str = Field(
        "", description="Column of events with the time at which the event became known; by default the event's time."
    )
    labels: dict[str, str] = Field(
        DEFAULT_COLUMNS,
        description="Label -> its column: one of ingest.labels, or click, purchase, rating, relevance without those.",
    )
    unrated: tuple[float, ...] = Field(
        (), description="Numbers in the column of the label rating that stand for none, such as -1 or 0."
    )
    event_type: str = Field("", description="Column of events with the type of event; event_types maps its values.")
    event_types: dict[str, str] = Field(
        {},
        description="Value of event_type -> the label that it sets to 1 (the others to 0); impression if the item was "
        "only shown, which is negative unless a label says otherwise; empty for an event to keep out of learning.",
    )
    request_id: str = Field(
        "", description="Column of events with the id of the request, or page, that showed the item among others."
    )
    position: str = Field("", description="Column of events with the item's place in its request, from 1.")
    split: str = Field("", description="Column of events with the split: train, valid (dev) or test.")
    query_text: str = Field(
        "", description="Column with the words of the query: of queries, or of events if there is no such table."
    )
    turns: str = Field("", description="Column with the turns of a conversation, oldest first, next to query_text.")
    turns_separator: str = Field("", description="Separator of turns in a text; a list column needs none.")
    title: str = Field("movie_title", description="Column of items with the title.")
    text: tuple[str, ...] = Field((), description="Columns of items that make up the text, in this order.")
    category: str = Field("class", description="Column of items with the categories.")
    category_separator: str = Field(
        "", description="Separator of categories in a text; without one the text is one category."
    )
    created_year: str = Field("release_year", description="Column of items with the year of release.")
    created_at: str = Field("", description="Column of items with the time of release, instead of the year.")
    created_at_unit: str = Field("iso", description="Format of created_at; see timestamp_unit.")
    valid_from: str = Field(
        "",
        description="Column of items with the time (ISO 8601, or a number that grows) from which a row holds: of "
        "several rows of one item the newest counts that holds at the last event.",
    )
    language: str = Field("", description="Column of items with the language code.")
    price: str = Field("", description="Column of items with the price.")
    available: str = Field("", description="Column of items with their availability; without one all are available.")
    item_attributes: tuple[str, ...] = Field((), description="Further columns of items to keep.")
    item_numbers: tuple[str, ...] = Field((), description="Further columns of items to keep as numbers.")
    item_vectors: tuple[str, ...] = Field(
        (), description="Columns of items with precomputed vectors (image, graph), all of one length per column."
    )
    user_attributes: tuple[str, ...] = Field(("age", "gender", "occupation"), description="Columns of users to keep.")
    user_numbers: tuple[str, ...] = Field((), description="Columns of users to keep as numbers.")
    user_texts: tuple[str, ...] = Field((), description="Columns of users to keep as texts that the encoder can read.")
    user_time_zone: str = Field("", description="Column of users with the zone of their clock, such as Europe/Berlin.")
    event_attributes: tuple[str, ...] = Field((), description="Further columns of events to keep.")
    event_numbers: tuple[str, ...] = Field((), description="Further columns of events to keep as numbers.")
    event_time_zone: str = Field(
        "", description="Column of events with the zone of the user's clock at the time; it wins over the user's."
    )

    def wants(self, column: str) -> bool:
        """Whether the settings name a column of the source; other columns are not read."""
        return column in self.source_columns()

    def provided_columns(self, absent: list[str]) -> list[str]:
        """The canonical columns of items that the source has; ``absent`` are columns that it turned out not to have."""
        sources_of = {
            "title": [self.title], "text": self.text, "language": [self.language], "category": [self.category],
            "price": [self.price], "available": [self.available], "created_at": [self.created_at, self.created_year],
        }  # fmt: skip
        return [
            name
            for name, sources in sources_of.items()
            if any(each and f"items.{each}" not in absent for each in sources)
        ]

    def declared(self, subject: str) -> list[str]:
        """The declared columns of items, users or events."""
        kinds = ("attributes", "numbers", "vectors", "texts")
        return [name for kind in kinds for name in getattr(self, f"{subject}_{kind}", ())]

    def source_columns(self) -> set[str]:
        """The columns of the source that the settings name."""
        values = [value for name, value in vars(self).items() if name not in ("normalise_ids", "unrated")]
        names = {value for value in values if isinstance(value, str)} | {*self.labels.values()}
        return names.union(*(value for value in values if isinstance(value, tuple)))

    @field_validator("normalise_ids")
    @classmethod
    def _known_normalisations(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(names) - set(NORMALISATIONS)):
            raise ValueError(f"no such normalisation: {', '.join(unknown)}; there are {', '.join(NORMALISATIONS)}")
        return names

    @field_validator("timestamp_unit", "created_at_unit")
    @classmethod
    def _known_unit(cls, unit: str) -> str:
        if unit not in (*UNITS, *OTHER_UNITS) and "%" not in unit:
            units = ", ".join((*UNITS, *OTHER_UNITS))
            raise ValueError(f"unknown unit {unit}; there are {units}, or a pattern with %")
        return unit

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, zone: str) -> str:
        import zoneinfo

        if zone and zone not in zoneinfo.available_timezones():
            raise ValueError(f"unknown time zone {zone}; write UTC, or a name such as Europe/Berlin")
        return zone

    @field_validator(
        "item_attributes", "item_numbers", "item_vectors", "user_attributes", "user_numbers", "user_texts",
        "event_attributes", "event_numbers",
    )  # fmt: skip
    @classmethod
    def _not_canonical(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if reserved := [name for name in names if stored_name(name).casefold() in RESERVED_NAMES]:
            raise ValueError(f"{', '.join(reserved)}: canonical and internal columns have these names (in any case)")
        return names

    @model_validator(mode="after")
    def _stored_names_differ(self) -> "Columns":
        for subject in ("item", "user", "event"):
            zone = getattr(self, f"{subject}_time_zone", "")
            by_stored_name = {TIME_ZONE: zone} if zone else {}
            for name in self.declared(subject):
                if other := by_stored_name.get(stored_name(name).casefold()):
                    problem = f"{other} and {name} of {subject}s would be one column {stored_name(name)}: keep one"
                    raise SettingError(f"{subject}_attributes", problem, found=name)
                by_stored_name[stored_name(name).casefold()] = name
        return self

    @model_validator(mode="after")
    def _types_have_a_column(self) -> "Columns":
        if bool(self.event_type) != bool(self.event_types):
            raise SettingError(
                "event_types" if self.event_type else "event_type",
                "event_type and event_types must be set together: the column, and the labels of its values",
                found="not set",
            )
        return self


class AllColumns(Columns):
    """Column settings that want every column, for a source whose columns are not known yet."""

    def wants(self, column: str) -> bool:
        """True for every column."""
        return True


def stored_name(name: str) -> str:
    """The name of a declared column in the tables: `metadata.year` becomes `year`."""
    return name.rpartition(".")[2]


class TextFiles(FrozenModel):
    """The format of text files."""

    encoding: str = Field("utf-8", description="Encoding of CSV and JSON files: utf-8, cp1252, gb18030, utf-16...")
    delimiter: str = Field(
        "",
        description="Separator of columns, of one or several characters such as ::; by default a tab for .tsv, and "
        "detected for others.",
    )
    quote: str | None = Field(
        None,
        description="Quote around values with delimiters or line ends; empty for none. By default a double quote, and "
        "none in tab-separated text.",
    )
    escape: str = Field("", description="Sign that escapes the next character, such as \\ in files of MySQL or Spark.")
    header: bool = Field(True, description="Whether the first line of a CSV file names its columns.")
    names: dict[str, tuple[str, ...]] = Field(
        {},
        description="Table -> the names of its columns in their order, for CSV files whose first line is a row; a "
        "list names the columns of events.",
    )
    decimal: str = Field(".", description="Decimal sign: a point, or a comma as in the Excel of many countries.")
    missing: tuple[str, ...] = Field((), description="Words for a missing value, such as NULL or \\N.")

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str) -> str:
        import codecs

        try:
            return codecs.lookup(encoding).name
        except LookupError as error:
            raise ValueError(f"unknown encoding {encoding}") from error

    @field_validator("escape")
    @classmethod
    def _one_sign(cls, escape: str) -> str:
        if len(escape) > 1 or not escape.isascii():
            raise ValueError("the escape sign is one character, such as \\")
        return escape

    @field_validator("names", mode="before")
    @classmethod
    def _names_of_tables(cls, names: Any) -> Any:
        if isinstance(names, list | tuple):
            return {"events": names}
        if isinstance(names, dict) and (unknown := sorted(set(names) - set(TABLES))):
            raise ValueError(f"unknown tables {', '.join(unknown)}; there are {', '.join(TABLES)}")
        return names

    @field_validator("decimal")
    @classmethod
    def _known_decimal(cls, decimal: str) -> str:
        if decimal not in (".", ","):
            raise ValueError("the decimal sign is a point or a comma")
        return decimal


class IngestConfig(Source):
    """The source, and how to read it."""

    files: TextFiles = Field(TextFiles(), description="Format of the text files of `tables`.")
    columns: Columns = Field(Columns(), description="The source's column for each purpose.")
    labels: dict[str, Label] = Field(
        {},
        description="The labels of events, by name: what happened to an item that was shown, and which of it makes a "
        "positive. Without any, clicks, purchases and relevance above 0 are positives, or every event if it has none.",
    )
    window_start: str | None = Field(None, description="Start of the data window (ISO time, UTC), inclusive.")
    window_end: str | None = Field(None, description="End of the data window (ISO time, UTC), exclusive.")
    earliest: str = Field("1970-01-01", description="Events before this time (ISO, UTC) are rejected.")
    latest: str = Field("2100-01-01", description="Events at or after this time (ISO, UTC) are rejected.")
    hash_users: str = Field(
        "",
        pattern=r"^([A-Z_][A-Z0-9_]*)?$",
        description="Environment variable with the key that the ids of users are hashed with (HMAC-SHA256), such as "
        "RANKLINE_ID_KEY; empty keeps the ids.",
    )
    max_rejected_share: float = Field(
        0.05,
        description="Largest share of a table's rows that may be rejected before ingest fails.",
        ge=0,
        le=1,
    )
    min_events: int = Field(1, description="Fewest events in the window.", ge=1)
    memory_limit_mb: int = Field(
        1024, description="Memory of DuckDB for reading and sorting; what exceeds it spills to disk.", ge=64
    )

    changes: bool = Field(
        False,
        description="The items are changes to a catalogue (refresh --items): the last row of an item counts, and an "
        "empty file means that nothing changed.",
    )
    only: tuple[str, ...] = Field(
        (),
        description="The only columns that the items have (refresh --only); an empty cell then changes nothing. Empty "
        "for all columns that the settings name.",
    )

    def smaller(self) -> dict[str, tuple[Any, Any]]:
        """Setting -> (its value, a value that needs less memory), the most effective first."""
        return halved_settings(self, "memory_limit_mb", minimum=64)

    @field_validator("window_start", "window_end", "earliest", "latest")
    @classmethod
    def _utc(cls, value: str | None) -> str | None:
        """The same time in one format, so that two spellings are one setting."""
        if value is None:
            return None
        parsed = datetime.fromisoformat(value)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC).isoformat()

    @model_validator(mode="after")
    def _known_database(self) -> "IngestConfig":
        if self.format == "sql" and "://" in self.source and is_file_database(self):
            scheme = self.source.partition("://")[0]
            raise ValueError(
                f"sql reads a DuckDB file or postgresql://host/database, not {scheme}://; "
                "export the tables of another database as Parquet, and set ingest.format=tables"
            )
        return self

    @model_validator(mode="after")
    def _labels_fit(self) -> "IngestConfig":
        columns = self.columns
        others = {stored_name(name).casefold() for name in columns.declared("event")}
        taken = others | (RESERVED_NAMES - set(LABELS)) | {"request_id", "position"}
        read = {"relevance": "score"} if self.format == "beir" else columns.labels
        check_labels(self.labels, read, columns.event_types, taken=taken)
        if IMPRESSION in columns.event_types.values() and not self.effective_labels():
            raise SettingError(
                "columns.event_types",
                "event_types has impressions, but no label makes a positive: declare it in ingest.labels",
                found=", ".join(f"{value} = {label}" for value, label in columns.event_types.items()),
            )
        used = {name for name in ("request_id", "position") if getattr(columns, name)}
        used |= {FEEDBACK} if self.effective_labels() else set()
        if clash := sorted(used & others):
            raise SettingError(
                "columns.event_attributes",
                f"{', '.join(clash)}: ingest writes a column of this name; leave it out of event_attributes",
                found=", ".join(clash),
            )
        return self

    def effective_labels(self) -> dict[str, Label]:
        """The declared labels, or what the mapped ones mean by default; empty if every event is a positive."""
        read = {"relevance"} if self.format == "beir" else {*self.columns.labels}
        return effective_labels(self.labels, read | {*self.columns.event_types.values()})

    def label_columns(self) -> dict[str, str]:
        """Label -> the column that it is read from."""
        return mapped_columns(self.labels, self.columns.labels)

    @model_validator(mode="after")
    def _window_has_length(self) -> "IngestConfig":
        if self.window_start and self.window_end and self.window_start >= self.window_end:
            problem = f"the window is empty: it starts at {self.window_start} and ends at {self.window_end}"
            raise SettingError("window_end", problem, found=self.window_end)
        return self

"""The knobs of ingest."""

from datetime import UTC, datetime

from pydantic import Field, field_validator, model_validator

from rankline.contracts import EVENTS, ITEMS, LABELS, USERS, Frozen


class Columns(Frozen):
    """Which of the source's columns is what; an empty name means the source has no such column."""

    user_id: str = Field("user_id", description="Column of events and users that names the user.")
    item_id: str = Field("item_id", description="Column of events and items that names the item.")
    timestamp: str = Field("timestamp", description="Column of events with the moment, in unix seconds.")
    known_at: str = Field(
        "", description="Column of events with the moment the platform learnt of it; else the event's own."
    )
    labels: dict[str, str] = Field(
        {"rating": "rating"},
        description="Label (click, purchase, rating, relevance) to the column that carries it.",
    )
    title: str = Field("movie_title", description="Column of items with the title.")
    text: tuple[str, ...] = Field((), description="Columns of items whose words make up the text, in this order.")
    category: str = Field("class", description="Column of items with the categories.")
    created_year: str = Field("release_year", description="Column of items with the year the item came out.")
    language: str = Field("", description="Column of items with the language code.")
    price: str = Field("", description="Column of items with the price.")
    item_attributes: tuple[str, ...] = Field((), description="Further columns of items to keep.")
    user_attributes: tuple[str, ...] = Field(("age", "gender", "occupation"), description="Columns of users to keep.")
    event_attributes: tuple[str, ...] = Field((), description="Further columns of events to keep.")

    @field_validator("labels")
    @classmethod
    def _known_labels(cls, labels: dict[str, str]) -> dict[str, str]:
        if unknown := sorted(set(labels) - set(LABELS)):
            raise ValueError(f"unknown labels {', '.join(unknown)}; there are {', '.join(LABELS)}")
        return labels

    @field_validator("item_attributes", "user_attributes", "event_attributes")
    @classmethod
    def _not_canonical(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if taken := sorted(set(names) & {"release_year", *LABELS, *ITEMS.names, *USERS.names, *EVENTS.names}):
            raise ValueError(f"{', '.join(taken)}: these names are taken by the canonical columns")
        return names


class IngestConfig(Frozen):
    """Where the raw data is and how to read it."""

    source: str = Field(description="Folder of the source, or the path of its files without their suffix.")
    format: str = Field("recbole", description="Adapter that reads the source: recbole.")
    name: str | None = Field(None, description="Name of the data set, where the folder holds several.")
    columns: Columns = Field(Columns(), description="Which of the source's columns is what.")
    window_start: str | None = Field(None, description="First moment of the data window (ISO time, UTC), included.")
    window_end: str | None = Field(None, description="End of the data window (ISO time, UTC), not included.")
    max_rejected_share: float = Field(
        0.05,
        description="Largest share of a table's rows that may be set aside before ingest refuses.",
        ge=0,
        le=1,
    )
    min_events: int = Field(1, description="Fewest events the window must hold.", ge=1)
    memory_limit_mb: int = Field(
        1024, description="Memory for reading and sorting; what exceeds it goes to disk.", ge=64
    )

    @field_validator("window_start", "window_end")
    @classmethod
    def _utc(cls, moment: str | None) -> str | None:
        """The same moment written one way, so that two spellings are one setting."""
        if moment is None:
            return None
        at = datetime.fromisoformat(moment)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC).isoformat()

    @model_validator(mode="after")
    def _window_has_length(self) -> "IngestConfig":
        if self.window_start and self.window_end and self.window_start >= self.window_end:
            raise ValueError(f"the window is empty: it starts at {self.window_start} and ends at {self.window_end}")
        return self

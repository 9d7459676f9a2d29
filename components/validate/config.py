"""The settings of validate."""

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field, field_validator

from rankline.contracts import LABELS, FrozenModel
from rankline.runtime.memory import halved_settings


class ValidateConfig(FrozenModel):
    """What is expected of the tables; a critical failure stops the pipeline, a warning is reported."""

    profile_name: str = Field(
        "default",
        description="Name of the saved profile of the last good run, by default the recipe's.",
        pattern=r"^[\w.-]+$",
    )
    min_items: int = Field(1, description="Fewest rows of items (critical).", ge=1)
    min_users: int = Field(1, description="Fewest rows of users, if events have users (critical).", ge=1)
    min_queries: int = Field(0, description="Fewest rows of queries (critical).", ge=0)
    min_events: int = Field(1, description="Fewest rows of events (critical).", ge=1)
    min_year: int = Field(1990, description="Earliest year of an event (critical).", ge=1970, le=9999)
    scales: dict[str, tuple[float, float]] = Field(
        {"click": (0, 1), "purchase": (0, 1), "rating": (1, 5), "relevance": (0, 3)},
        description="Label -> its smallest and largest value (critical); drift is measured on this scale. "
        "Declared labels have theirs in ingest.labels.",
    )
    min_positive_share: float = Field(
        0.001,
        description="Smallest share of events that are positives, where events have labels (warning).",
        ge=0,
        le=1,
    )
    max_unused_share: float = Field(
        0.5,
        description="Largest share of events that labels make neither positive nor negative (warning).",
        ge=0,
        le=1,
    )
    min_described_share: float = Field(
        0.95, description="Smallest share of items with a title or a text (warning).", ge=0, le=1
    )
    min_active_share: float = Field(0.5, description="Smallest share of users with an event (warning).", ge=0, le=1)
    max_unavailable_share: float = Field(
        0.5, description="Largest share of items that may be unavailable (warning).", ge=0, le=1
    )
    max_volume_change: float = Field(
        0.5,
        description="Largest change of a table's row count since the last good run, as a share (see changes).",
        gt=0,
    )
    max_drift: float = Field(
        0.1,
        description="Largest share of a label's values that moved since the last good run (see changes).",
        gt=0,
        le=1,
    )
    changes: Literal["critical", "warning"] = Field(
        "warning", description="Severity of changed row counts or labels beyond their limits, and of missing columns."
    )
    max_age_days: float | None = Field(
        None,
        description="Largest age of the newest event in days (critical); none for no limit.",
        gt=0,
    )
    memory_limit_mb: int = Field(
        1024, description="Memory of DuckDB for checking rows; what exceeds it spills to disk.", ge=64
    )
    now: str | None = Field(
        None,
        description="Time (ISO, UTC) to use as now; by default the window's end, else the current time.",
    )

    def smaller(self) -> dict[str, tuple[Any, Any]]:
        """Setting -> (its value, a value that needs less memory), the most effective first."""
        return halved_settings(self, "memory_limit_mb", minimum=64)

    @field_validator("now")
    @classmethod
    def _utc(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parsed = datetime.fromisoformat(value)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC).isoformat()

    @field_validator("scales")
    @classmethod
    def _known_labels(cls, scales: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        if missing := sorted(set(LABELS) ^ set(scales)):
            raise ValueError(f"scales must have exactly the labels {', '.join(LABELS)}; see {', '.join(missing)}")
        if empty := [label for label, (low, high) in scales.items() if low >= high]:
            raise ValueError(f"the scale of {', '.join(empty)} is empty: the smallest value must be below the largest")
        return scales

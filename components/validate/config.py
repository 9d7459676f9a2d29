"""The knobs of validate."""

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field, field_validator

from rankline.contracts import LABELS, FrozenModel
from rankline.runtime.memory import halved_settings


class ValidateConfig(FrozenModel):
    """What the tables must be like; a critical fault stops the flow, a warning is told and goes on."""

    profile_name: str = Field(
        "default",
        description="Name under which the last good profile is kept: the recipe's.",
        pattern=r"^[\w.-]+$",
    )
    min_items: int = Field(1, description="Fewest rows of items (critical).", ge=1)
    min_users: int = Field(1, description="Fewest rows of users, where there are users (critical).", ge=1)
    min_queries: int = Field(0, description="Fewest rows of queries (critical).", ge=0)
    min_events: int = Field(1, description="Fewest rows of events (critical).", ge=1)
    min_year: int = Field(1990, description="No event is older than this year (critical).", ge=1970, le=9999)
    scales: dict[str, tuple[float, float]] = Field(
        {"click": (0, 1), "purchase": (0, 1), "rating": (1, 5), "relevance": (0, 3)},
        description="Label to its smallest and largest value (critical); drift is measured on it too.",
    )
    min_described_share: float = Field(
        0.95, description="Smallest share of items with a title or a text (warning).", ge=0, le=1
    )
    min_active_share: float = Field(
        0.5, description="Smallest share of users with an event of theirs (warning).", ge=0, le=1
    )
    max_unavailable_share: float = Field(
        0.5, description="Largest share of items that may be unavailable (warning).", ge=0, le=1
    )
    max_volume_change: float = Field(
        0.5,
        description="Largest change of a table's rows against the last good run, as a share (see changes).",
        gt=0,
    )
    max_drift: float = Field(
        0.1,
        description="Largest share of a label's values that may have moved since then (see changes).",
        gt=0,
        le=1,
    )
    changes: Literal["critical", "warning"] = Field(
        "warning", description="What a change of volume or labels beyond its limit, or a column gone, is."
    )
    max_age_days: float | None = Field(
        None,
        description="Oldest the newest event may be (critical); none for data that is old on purpose.",
        gt=0,
    )
    memory_limit_mb: int = Field(
        1024, description="Memory of DuckDB for looking at rows; what exceeds it goes to disk.", ge=64
    )
    now: str | None = Field(
        None,
        description="Moment (ISO time, UTC) taken for now; else the window's end, else the clock's time.",
    )

    def smaller(self) -> dict[str, tuple[Any, Any]]:
        """Setting -> (its value, what takes less memory), the most effective first."""
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
            raise ValueError(f"one scale a label is needed, for {', '.join(LABELS)}; see {', '.join(missing)}")
        if empty := [label for label, (low, high) in scales.items() if low >= high]:
            raise ValueError(f"the scale of {', '.join(empty)} has no length")
        return scales

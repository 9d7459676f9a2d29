"""The settings of featurize."""

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from rankline.contracts import FrozenModel
from rankline.runtime.memory import halved_settings


class FeaturizeConfig(FrozenModel):
    """How features are computed, requests are split into train, valid and test, and negatives are sampled."""

    split: Literal["leave_last_out", "time_cut"] = Field(
        "leave_last_out",
        description="leave_last_out holds out each user's last two events, time_cut everything after a time.",
    )
    baskets: bool = Field(
        False,
        description="The events of a user at one time are one order: a request is made before all of them, and asks "
        "for all of its new items; leave_last_out then holds out whole orders.",
    )
    train_share: float = Field(
        0.8,
        gt=0,
        lt=1,
        description="Share of events before the cut, if time_cut has no explicit times.",
    )
    valid_share: float = Field(0.1, gt=0, lt=1, description="Share of events between the cut and the test window.")
    cut: datetime | None = Field(
        None, description="Explicit end of training for time_cut (UTC); needs valid_until as well."
    )
    valid_until: datetime | None = Field(
        None, description="Explicit end of the valid window and start of the test window."
    )
    test_until: datetime | None = Field(
        None, description="Explicit end of the test window; by default the end of the data."
    )
    min_history: int = Field(
        1,
        ge=0,
        description="Fewest known events of a user before a request; 0 adds requests of users without a history.",
    )
    max_history: int = Field(50, ge=1, le=1000, description="Most events in a request's history.")
    train_requests_per_user: int = Field(
        10, ge=1, le=1000, description="Train requests per user, at the user's last train events."
    )
    impression_window_s: int = Field(
        1800,
        ge=0,
        description="Without request ids, impressions are of the request whose positive follows within this time.",
    )
    exposure_requests: int = Field(
        20_000, ge=1, description="Most requests per split of which everything that was shown is kept, the latest."
    )
    negatives: int = Field(50, ge=0, le=10_000, description="Negatives sampled per request.")
    popular_negatives: float = Field(
        0.5, ge=0, le=1, description="Share of negatives sampled by popularity^0.75; the others are uniform."
    )
    affinity_categories: int = Field(
        20, ge=1, le=1000, description="Most categories in a user's affinity, the largest shares first."
    )
    user_features: tuple[str, ...] = Field(
        (), description="Declared columns of users that the model reads, such as gender; a request may lack any."
    )
    context_features: tuple[str, ...] = Field(
        (),
        description="Declared columns of events that the model reads as the context of a request, such as device; a "
        "request may lack any.",
    )
    query_split: Literal["auto", "given", "random", "time"] = Field(
        "auto",
        description="How queries without a user are split: as the source says (given), by a hash of their words "
        "(random), or by time; auto is given if the source has splits, else random. If the source has only train and "
        "test, valid is taken from train: at least 50 queries, or a quarter of a small source.",
    )
    turns: int = Field(3, ge=1, le=100, description="Last turns of a conversation that make up its query.")
    join: Literal["fast", "feast"] = Field(
        "fast",
        description="fast: DuckDB joins what Feast defines, and Feast checks a sample; feast: Feast joins all rows.",
    )
    check_rows: int = Field(500, ge=1, description="Rows of each fast join that every run compares with Feast's own.")
    join_chunk: int = Field(100_000, ge=1, description="Rows that are joined and written at once; bounds memory.")
    history_days: int = Field(
        30,
        ge=1,
        description="Days before the end of the data for which the store keeps each user's history as it was then.",
    )
    memory_limit_mb: int = Field(
        2048, ge=256, description="Memory of DuckDB for snapshots and joins; what exceeds it spills to disk."
    )
    min_requests: int = Field(
        10,
        ge=1,
        description="Fewest requests in each of train, valid and test.",
    )
    seed: int = Field(7, ge=0, description="Seed of negatives, random query splits and checked rows.")

    def smaller(self) -> dict[str, tuple[Any, Any]]:
        """Setting -> (its value, a value that needs less memory), the most effective first."""
        return halved_settings(self, "memory_limit_mb", minimum=256) | halved_settings(
            self, "join_chunk", "negatives", "max_history"
        )

    @field_validator("user_features", "context_features")
    @classmethod
    def _plain_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names) or any(":" in name for name in names):
            raise ValueError("a feature is named once, and without a colon")
        return names

    @model_validator(mode="after")
    def _times_are_consistent(self) -> Self:
        times = [t for t in (self.cut, self.valid_until, self.test_until) if t is not None]
        if times and self.split != "time_cut":
            raise ValueError("cut, valid_until and test_until need split = time_cut")
        if times and (self.cut is None or self.valid_until is None):
            raise ValueError("an explicit time_cut needs both cut and valid_until")
        if any(t.tzinfo is None for t in times):
            raise ValueError("cut, valid_until and test_until need a time zone, such as 1998-04-01T00:00:00Z")
        if sorted(set(times)) != times:
            raise ValueError("cut, valid_until and test_until must be in increasing order")
        if self.train_share + self.valid_share >= 1:
            raise ValueError("train_share and valid_share must sum to less than 1: the rest is test")
        return self

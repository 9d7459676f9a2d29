"""Bodies of requests and responses."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rankline.contracts import MAX_EVENTS, FrozenState, History, Id
from rankline.features.transforms import MAX_TIME_S
from rankline.text import query_text
from serving.api.columns import check_columns


class UserRequest(BaseModel):
    """A user, a history in the request, or a complete snapshot."""

    model_config = ConfigDict(extra="forbid")

    user_id: Id | None = Field(None, description="the user whose history and features are looked up")
    history: History | None = Field(None, description="replaces the history that would be looked up")
    seen: list[Id] | None = Field(
        None,
        max_length=MAX_EVENTS,
        description="items to leave out besides those looked up; by default those of the given history",
    )
    frozen: FrozenState | None = Field(
        None, description="a snapshot of history and features at some time; replaces every lookup"
    )
    at: float | None = Field(
        None, ge=0, le=MAX_TIME_S, description="time of the request in unix seconds; by default now"
    )
    context: dict[str, Any] | None = Field(
        None,
        description="what is known of the request: the model's declared context features, and time_zone where it reads "
        "one; any may be left out. /v1/model lists them",
    )

    @model_validator(mode="after")
    def _check_consistent(self) -> UserRequest:
        if self.frozen is not None:
            given = [name for name in ("history", "seen", "at", "context") if getattr(self, name) is not None]
            if given:
                raise ValueError(f"a frozen state already contains {', '.join(given)}; give one or the other")
            if not 0 <= self.frozen.at <= MAX_TIME_S:
                raise ValueError(f"frozen.at: unix seconds from 0 to {MAX_TIME_S:.0f}")
            check_columns(self.frozen.item_features)
        history = self.history or (self.frozen.history if self.frozen else History())
        if any(len(values) not in (0, len(history.item_ids)) for values in (history.times, history.ratings)):
            raise ValueError("item_ids, times and ratings of a history must have the same length")
        return self


class RecommendRequest(UserRequest):
    """Recommend items to a user."""

    k: int = Field(10, ge=1, le=1000, description="number of items")
    exclude_seen: bool = Field(True, description="leave out items the user has already seen")


Text = Annotated[str, Field(max_length=20_000)]


class _QueryRequest(UserRequest):
    """A user who may also give a query or the turns of a conversation."""

    query: Text | None = Field(None, description="a search text; a history given with it counts as well")
    turns: list[Text] | None = Field(
        None, min_length=1, max_length=1000, description="a conversation, oldest turn first, instead of a query"
    )

    @model_validator(mode="after")
    def _check_single_query(self) -> _QueryRequest:
        if self.query is not None and self.turns is not None:
            raise ValueError("query and turns exclude each other; give one of them")
        return self

    def query_text(self, *, max_turns: int) -> str | None:
        """The query as the model reads it; None without a query or turns."""
        if self.query is None and self.turns is None:
            return None
        return query_text(self.query, self.turns, last=max_turns)


class SearchRequest(_QueryRequest):
    """Search by a query or a conversation, for a user or anonymously."""

    k: int = Field(10, ge=1, le=1000, description="number of items")
    exclude_seen: bool = Field(False, description="leave out items the user has already seen")

    @model_validator(mode="after")
    def _check_has_query(self) -> SearchRequest:
        if self.query is None and self.turns is None:
            raise ValueError("a search needs a query, or turns")
        return self


class RankRequest(_QueryRequest):
    """Rank the given items or labels for a user, a query, or both."""

    candidates: list[Id] = Field(min_length=1, max_length=10_000, description="item ids, in any order")
    k: int | None = Field(None, ge=1, description="number of items; by default all of them")


class SimilarRequest(BaseModel):
    """Find items similar to an item."""

    model_config = ConfigDict(extra="forbid")

    item_id: Id
    k: int = Field(10, ge=1, le=1000, description="number of items")


class RankedItem(BaseModel):
    """One ranked item."""

    item_id: str
    title: str
    score: float = Field(
        description="the value that items are sorted by: the first head's logit, or the order that the model declares"
    )
    heads: dict[str, float] = Field(
        description="what the model expects of each declared label: the calibrated chance of a binary one, else a "
        "value in the label's own unit; for a model without declared labels each head's logit through a sigmoid"
    )
    logits: dict[str, float] = Field(
        description="each head's output: a float32 with all its digits; of a label that comes after another one, the "
        "logit given that one"
    )
    sources: list[str] = Field(description="the candidate sources that proposed the item")
    probability: float | None = Field(
        None, description="the probability that the item is right; null if the model is not calibrated"
    )


class ItemsResponse(BaseModel):
    """Ranked items, and the model that ranked them."""

    request_id: str
    model_id: str
    revision: str = Field(description="the catalogue revision")
    items: list[RankedItem]


class RecommendResponse(ItemsResponse):
    """Items ranked for a user."""

    known_user: bool | None = Field(
        description="whether the feature store knows the user; null if it could not be asked"
    )
    degraded: list[str] = Field(description="parts that were unavailable and replaced by defaults")
    abstained: bool = Field(False, description="even the best item is too unlikely to be an answer")


class RankResponse(RecommendResponse):
    """Ranked candidates."""

    unknown: list[str] = Field(description="candidates that are not in the catalogue")
    hidden: list[str] = Field([], description="candidates that were taken down and are not ranked")
    withdrawn: list[str] = Field(
        [], description="candidates that are unavailable and not ranked; with a frozen state they are ranked"
    )


class ErrorResponse(BaseModel):
    """An error: what was expected, what was found, what to try."""

    error: str
    expected: str = ""
    found: str = ""
    hint: str = ""
    request_id: str = ""


class Readiness(BaseModel):
    """Whether the server answers requests, with which model, and what is missing."""

    ready: bool
    model_id: str | None
    revision: str | None
    precision: str | None
    provider: str | None
    features: dict[str, Any] = Field(
        description="state (off, opening, ready, down), why, service, watermark (unix seconds), lag_s (its age)"
    )
    refused: dict[str, str] | None = Field(description="a champion or catalogue that cannot be served, and the reason")
    hidden: int = Field(0, description="number of items taken down, including ids outside the catalogue")
    warning: str | None = Field(None, description="by whom and why the champion was promoted past the gates")
    repository_error: str | None = Field(description="why the model registry cannot be read")
    repository_age_s: float | None = Field(
        None, description="seconds since it was last read; null for a server that follows none"
    )


class ModelResponse(BaseModel):
    """The model that serves, and its catalogue."""

    request_id: str
    model_id: str
    revision: str
    precision: str
    provider: str
    heads: list[str]
    items: int = Field(description="number of items in the catalogue")
    hidden: list[str] = Field([], description="items taken down, including ids outside the catalogue")
    warning: str | None = Field(None, description="by whom and why the champion was promoted past the gates")
    context: dict[str, str] = Field(
        {}, description="what a request may say in `context`, and how each is read: number, choice, choices, text, zone"
    )
    manifest: dict[str, Any]

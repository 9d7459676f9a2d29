"""The settings of evaluate."""

import re
from typing import Any, Literal

from pydantic import Field, model_validator

from rankline.contracts import FrozenModel
from rankline.evaluation.metrics import RANKING
from rankline.runtime.memory import halved_settings


class EvaluateConfig(FrozenModel):
    """How a bundle is measured, and which baselines it is compared with."""

    ks: tuple[int, ...] = Field((5, 10, 50), description="List lengths of the ranking metrics.")
    primary: str = Field("ndcg@10", description="Metric of slices, plots and comparisons.")
    top_k: int = Field(100, ge=1, le=1000, description="Items requested from the server per request.")
    max_requests: int = Field(
        0, ge=0, description="Replay a seeded sample of this many requests; 0 replays all of them."
    )
    max_exposures: int = Field(
        5000, ge=0, description="Send a seeded sample of this many exposures to measure declared labels; 0 sends all."
    )
    seed: int = Field(7, description="Seed of the samples and of the bootstrap.")
    bootstrap_samples: int = Field(2000, ge=100, le=100_000, description="Bootstrap resamples per interval.")
    precision: Literal["fp32", "int8", "fp16"] = Field("fp32", description="Precision that the server loads.")
    provider: Literal["auto", "cpu", "cuda"] = Field(
        "auto",
        description="Where the measured server runs its graphs, as the option of `rankline serve` names it; auto is "
        "what the server starts with by default. Falling back to another one is an error.",
    )
    concurrency: int = Field(4, ge=1, le=64, description="Connections for the replay and for throughput.")
    latency_samples: int = Field(
        200, ge=1, le=100_000, description="Requests timed one at a time for the latency percentiles."
    )
    latency_k: int = Field(10, ge=1, le=1000, description="Items requested per timed request.")
    start_timeout_s: float = Field(120.0, gt=0, description="Longest wait until the server is ready, in seconds.")
    request_timeout_s: float = Field(30.0, gt=0, description="Longest wait for one answer, in seconds.")
    bins: int = Field(10, ge=2, le=100, description="Bins of the calibration plot and of the calibration error.")
    tie_tolerance: float = Field(
        1e-4, ge=0, description="Logits closer than this are ties when served order is compared with torch's."
    )
    new_user_events: int = Field(
        20, ge=0, description="Users with at most this many past events are in the slice of new users."
    )
    new_item_events: int = Field(
        5, ge=0, description="Items with at most this many training events are in the slice of new items."
    )
    short_query_words: int = Field(
        5, ge=1, description="Queries of at most this many words are in the slice of short queries."
    )
    head_share: float = Field(
        0.2, gt=0, lt=1, description="Share of the catalogue, the most popular items first, that is its head."
    )
    slice_values: int = Field(
        6,
        ge=0,
        le=50,
        description="Most values of each attribute of items, users or requests that get a slice: the most frequent.",
    )
    slices: tuple[str, ...] = Field(
        (), description="Slices beside these, whatever their size, such as item.category=Western or user.country=DE."
    )
    slice_minimum: int = Field(
        10, ge=1, description="Fewest requests of a slice; of a smaller one the report has the size and no scores."
    )
    knn_last: int = Field(20, ge=1, description="Last history items that the plain item-kNN baseline uses.")
    knn_decay: float = Field(
        0.6, gt=0, le=1, description="Factor of a history item's weight per step back, in item-kNN with decay."
    )
    knn_neighbours: int = Field(1000, ge=1, description="Neighbours per item in both item-kNN baselines.")
    stemmer: str = Field("", description="Snowball stemmer of the BM25 baseline, such as english; empty for none.")
    knn_shrink: float = Field(0.0, ge=0, description="Added to the denominator of item-kNN's cosine.")
    ease_items: int = Field(
        5000,
        ge=0,
        description="Largest catalogue for the baseline EASE, whose memory and time grow with its square and "
        "cube; 0 leaves it out.",
    )
    ease_penalty: float = Field(500.0, gt=0, description="L2 penalty of the baseline EASE.")
    tuning_requests: int = Field(
        300,
        ge=0,
        description="Validation requests that settings of baselines are chosen by: k1 and b of BM25, the "
        "decay of EASE, C of the logistic regression. 0 takes their defaults.",
    )
    tuned_items: int = Field(
        50_000, ge=0, description="Largest catalogue for which k1 and b of BM25 are chosen: each choice is an index."
    )
    classifier_labels: int = Field(
        200,
        ge=0,
        description="Most items for which they may be labels, with a logistic regression of words and "
        "characters as a baseline; 0 leaves it out.",
    )
    single_sources: bool = Field(
        True, description="Whether the report has each candidate source of the model alone, as source_towers."
    )
    word_controls: bool = Field(
        False,
        description="Whether the report has the controls of the words: rankings by the text vectors of a history, by "
        "those of other items, by random ones, and by TF-IDF in as many dimensions.",
    )
    example_users: int = Field(4, ge=0, le=50, description="Requests whose lists the HTML report shows.")

    def smaller(self) -> dict[str, tuple[Any, Any]]:
        """Setting -> (its value, a value that needs less memory), the most effective first."""
        reductions: dict[str, tuple[Any, Any]] = {} if self.max_requests else {"max_requests": (0, 2000)}
        return (
            reductions
            | halved_settings(self, "max_requests", "top_k", "knn_neighbours")
            | halved_settings(self, "bootstrap_samples", minimum=100)
        )

    @model_validator(mode="after")
    def _consistent(self) -> "EvaluateConfig":
        name, _, k = self.primary.partition("@")
        if name not in RANKING or not k.isdigit() or int(k) not in self.ks:
            raise ValueError(
                f"primary is {self.primary!r}: expected one of {', '.join(RANKING)} at one of {list(self.ks)}"
            )
        if wrong := [name for name in self.slices if not re.match(r"(item|user|context)\.[^=]+=.", name)]:
            raise ValueError(
                f"slices names {wrong[0]!r}: expected an attribute and its value, such as item.category=Western, "
                "user.country=DE or context.device=phone"
            )
        if min(self.ks) < 1 or max(self.ks) > self.top_k:
            raise ValueError(f"ks is {list(self.ks)}: expected list lengths between 1 and top_k={self.top_k}")
        return self

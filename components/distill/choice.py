"""What ranks: the fusion of the sources, the best of them, their fitted mix, or the scorer that learns on from it.

Each is judged on requests that it did not see. The mix serves unless another is better by more than two standard errors
of the paired difference: its weights are drawn towards the fusion's, so with few requests it is nearly the fusion, and
a choice among the others by few requests is mostly chance.

Shapes: R requests, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from components.distill import mixing, scorer
from components.distill.config import DistillConfig
from components.distill.scorer import NO_ROWS, ScorerInputs
from rankline.model.networks import Scorer
from rankline.runtime.progress import Progress
from rankline.train.fit import History

Floats = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Kind = Literal["fusion", "source", "mix", "scorer"]
ALTERNATIVES: tuple[Kind, ...] = ("fusion", "source", "scorer")  # to the mix
MIN_REQUESTS = {"fusion": 0, "source": 5, "mix": 5, "scorer": 100}  # with fewer it is not tried
STANDARD_ERRORS = 2.0
Train = Callable[[Floats, Ints], Scorer]  # from what the scorer begins at, without some rows


@dataclass(frozen=True)
class Choice:
    """What ranks, and the nDCG@10 of each alternative on requests that it did not see."""

    kind: Kind
    quality: Mapping[str, float]
    requests: int

    def summary(self, inputs: ScorerInputs) -> dict[str, Any]:
        """What is recorded: of what the ranking is made, and how it was chosen."""
        names = inputs.names
        weights_F = begin(self.kind, inputs)
        weights = {s: round(float(weights_F @ mixing.single(names, s)), 4) for s in mixing.sources(names)}
        return {
            "ranks_by": self.kind,
            "weights": {source: weight for source, weight in weights.items() if weight},
            "chosen_on": self.requests,
            "out_of_fold_ndcg@10": {kind: round(value, 4) for kind, value in self.quality.items()},
        }


def begin(kind: Kind, inputs: ScorerInputs, excluded_rows: Ints = NO_ROWS) -> Floats:
    """[F] the mix of a kind, from all requests but ``excluded_rows``; the scorer begins at the fitted one."""
    if kind == "fusion":
        return mixing.fusion(inputs.names)
    part = inputs.table.select(np.setdiff1d(np.arange(len(inputs.table.rows)), excluded_rows))
    if kind == "source":
        return mixing.single(inputs.names, mixing.best_source(part, inputs.names))
    return mixing.fitted(part, inputs.names)


def choose(inputs: ScorerInputs, config: DistillConfig, *, device: torch.device, progress: Progress) -> Choice:
    """Choose what ranks by cross-validation over the requests."""
    requests = len(scorer.usable_rows(inputs.table))
    kinds = [kind for kind in ("mix", *ALTERNATIVES) if requests >= MIN_REQUESTS[kind]]
    if config.scorer_choice != "auto":
        kinds = [config.scorer_choice] if requests >= MIN_REQUESTS[config.scorer_choice] else ["fusion"]
    if kinds == ["fusion"]:
        return Choice("fusion", {}, requests)

    def train(begin_F: Floats, fold: Ints) -> Scorer:
        return scorer.train(
            inputs, config, begin_F=begin_F, device=device, progress=progress, excluded_rows=fold
        )[0]  # fmt: skip

    quality = {kind: _out_of_fold(kind, inputs, config, train) for kind in kinds}
    chosen = kinds[0]
    for kind in kinds[1:]:
        if _clearly_better(quality[kind] - quality[chosen]):
            chosen = kind
    return Choice(chosen, {kind: float(scores_R.mean()) for kind, scores_R in quality.items()}, requests)


def _clearly_better(difference_R: Scores) -> bool:
    """Whether the mean difference exceeds two of its standard errors."""
    standard_error = difference_R.std(ddof=1) / np.sqrt(len(difference_R))
    return bool(difference_R.mean() > STANDARD_ERRORS * standard_error)


def _out_of_fold(kind: Kind, inputs: ScorerInputs, config: DistillConfig, train: Train) -> Scores:
    """[R] nDCG@10 of each request by what was learnt without it."""
    table = inputs.table
    out_R = np.zeros(len(table.rows))
    order = np.random.default_rng(config.seed).permutation(len(table.rows))
    for fold in np.array_split(order, min(config.scorer_folds, len(order))):
        part, begin_F = table.select(fold), begin(kind, inputs, fold)
        if kind == "scorer":
            out_R[fold] = scorer.ndcg(part, train(begin_F, fold), inputs.catalogue)
        else:
            out_R[fold] = mixing.ndcg_by_weights(part, begin_F)
    return out_R


def fit(
    choice: Choice,
    inputs: ScorerInputs,
    config: DistillConfig,
    *,
    device: torch.device,
    progress: Progress,
    excluded_rows: Ints = NO_ROWS,
) -> tuple[Scorer, History]:
    """The scorer of what was chosen, from all requests but ``excluded_rows``.

    Where a mix was chosen, the first head is left with it; a second head, whether an item is liked, is learnt anyway.
    """
    begin_F = begin(choice.kind, inputs, excluded_rows)
    learns = choice.kind == "scorer" or (inputs.heads > 1 and choice.requests >= MIN_REQUESTS["mix"])
    if learns:
        trained, history = scorer.train(
            inputs, config, begin_F=begin_F, device=device, progress=progress, excluded_rows=excluded_rows
        )
    else:
        trained, history = scorer.build(inputs, begin_F, config), History()
    if choice.kind != "scorer":
        trained.silence_first_head()
    return trained, history

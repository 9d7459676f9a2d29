"""How sources mix: a fusion that needs no requests, the best single source, or weights fitted to requests.

A mix is one weight per feature of a source; its score of a candidate is the weighted sum. It is what the scorer begins
at (`Scorer.begin_F`), and what it is left with where learning more does not pay.

Shapes: R requests, N candidates of one request, C candidates padded to the longest, F features, S sources.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from components.distill.candidate_table import CandidateTable
from rankline.contracts import FeatureNames
from rankline.model.scoring import SOURCE_ORDER

Floats = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
DISCOUNTS = 1.0 / np.log2(np.arange(2, 12))
# The towers' score is a logit, and the others' best is 1: a source's share is worth about a logit. Freshness is worth
# more where nothing else says what is wanted now, and nothing where a query says it all.
FUSION_WEIGHTS = {"towers": 1.0, "covisit": 1.0, "words": 1.0, "bm25": 3.0}
POPULAR_WITHOUT_QUERIES, POPULAR_WITH_BOTH, POPULAR_WITHOUT_USERS = 3.0, 1.0, 0.0
RIDGE = 1.0  # of the fitted weights, in standard deviations: as much as the loss of a few requests
LEAST_SPREAD = 0.01  # of a source: one that hardly tells candidates apart gets no enormous weight
STEPS = 50  # of L-BFGS: the loss is convex


def fusion(names: FeatureNames) -> Floats:
    """[F] plain fusion: every source has its fixed weight."""
    weights_F = np.zeros(len(names.columns), np.float32)
    columns = _columns(names)
    popular = POPULAR_WITH_BOTH if "bm25" in columns else POPULAR_WITHOUT_QUERIES
    weights = FUSION_WEIGHTS | {"popular": popular if "covisit" in columns else POPULAR_WITHOUT_USERS}
    for source, column in columns.items():
        weights_F[column] = weights[source]
    return weights_F


def single(names: FeatureNames, source: str) -> Floats:
    """[F] the order of one source."""
    weights_F = np.zeros(len(names.columns), np.float32)
    weights_F[_columns(names)[source]] = 1.0
    return weights_F


def sources(names: FeatureNames) -> list[str]:
    """The sources that the features of a model know."""
    return list(_columns(names))


def best_source(table: CandidateTable, names: FeatureNames) -> str:
    """The source with the highest nDCG@10 on the requests of a table."""
    quality = {source: ndcg_by_weights(table, single(names, source)).mean() for source in sources(names)}
    return max(quality, key=lambda source: quality[source])


def fitted(table: CandidateTable, names: FeatureNames) -> Floats:
    """[F] weights that make the targets most likely among their candidates, drawn towards those of the fusion.

    A conditional logit (McFadden 1974): a softmax over each request's candidates, with a ridge penalty on what differs
    from the fusion. Requests whose target is no candidate teach nothing.
    """
    begin_F, columns = fusion(names), list(_columns(names).values())
    usable = [r for r, places in enumerate(target_places(table)) if len(places)]
    if not usable:
        return begin_F
    inputs_RCS, real_RC, wanted_RC = _padded(table, usable, columns)
    spread_S = np.concatenate([table.features[r] for r in usable]).std(0)[columns]
    scale_S = torch.from_numpy(np.maximum(spread_S, LEAST_SPREAD))
    start_S = torch.from_numpy(begin_F[columns]) * scale_S
    weights_S = start_S.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS([weights_S], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits_RC = (inputs_RCS @ (weights_S / scale_S)).masked_fill(~real_RC, -1e9)
        value = -(wanted_RC * F.log_softmax(logits_RC, -1)).sum() + RIDGE * ((weights_S - start_S) ** 2).sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    begin_F[columns] = (weights_S.detach() / scale_S).numpy()
    return begin_F


def _padded(table: CandidateTable, rows: Sequence[int], columns: Sequence[int]) -> tuple[torch.Tensor, ...]:
    """The columns [R, C, S] of some requests, which places hold a candidate [R, C], and the weights of targets."""
    width, places = max(len(table.rows[r]) for r in rows), target_places(table)
    inputs_RCS = np.zeros((len(rows), width, len(columns)), np.float32)
    real_RC, wanted_RC = np.zeros((len(rows), width), bool), np.zeros((len(rows), width), np.float32)
    for n, r in enumerate(rows):
        count = len(table.rows[r])
        inputs_RCS[n, :count], real_RC[n, :count] = table.features[r][:, columns], True
        wanted_RC[n, places[r]] = 1.0 / len(places[r])
    return torch.from_numpy(inputs_RCS), torch.from_numpy(real_RC), torch.from_numpy(wanted_RC)


def target_places(table: CandidateTable) -> list[Ints]:
    """The places of each request's targets among its candidates."""
    return [np.flatnonzero(np.isin(rows, targets)) for rows, targets in zip(table.rows, table.targets)]


def ndcg_by_weights(table: CandidateTable, weights_F: Floats) -> Scores:
    """[R] nDCG@10 of each request ranked by a mix."""
    return ndcg(table, [features_NF @ weights_F for features_NF in table.features])


def ndcg(table: CandidateTable, scores: Sequence[Floats]) -> Scores:
    """[R] nDCG@10 of each request by its candidates' scores, with all of its targets and their gains."""
    out_R = np.zeros(len(table.rows))
    for r, (rows_N, scores_N) in enumerate(zip(table.rows, scores)):
        gains = table.gains[r] if table.gains else dict.fromkeys(table.targets[r].tolist(), 1.0)
        best = rows_N[np.argsort(-scores_N, kind="stable")[: len(DISCOUNTS)]]
        ideal = np.sort(list(gains.values()))[::-1][: len(DISCOUNTS)]
        if not len(ideal) or ideal[0] <= 0:
            continue
        gained = np.array([gains.get(int(row), 0.0) for row in best])
        out_R[r] = (gained @ DISCOUNTS[: len(gained)]) / (ideal @ DISCOUNTS[: len(ideal)])
    return out_R


def _columns(names: FeatureNames) -> dict[str, int]:
    """Source -> the column by which it orders candidates."""
    places = {name: place for place, name in enumerate(names.columns)}
    return {source: places[name] for source, name in SOURCE_ORDER.items() if name in places}

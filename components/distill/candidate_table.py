"""The candidates of requests with everything that the scorer reads of them.

Shapes: R requests, N candidates of one request, B requests of a batch, C candidates padded to the longest,
D vector size, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rankline.contracts import FeatureNames, FrozenState
from rankline.evaluation.snapshot_requests import SnapshotRequest
from rankline.features.transforms import stars
from rankline.model import scoring
from rankline.model.networks import HistoryTower
from rankline.model.scoring import CandidateSettings, Catalogue
from rankline.runtime.progress import Progress

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CandidateTable:
    """The candidates, features and targets of some requests."""

    ids: list[str]
    left_RD: Floats
    rows: list[Ints]
    features: list[Floats]
    targets: list[Ints]
    likes: list[Floats]
    gains: list[dict[int, float]] = field(default_factory=list)  # row of a target -> its weight; empty: all alike

    @property
    def mean_gain(self) -> float:
        """The mean weight of a target."""
        return float(np.mean([gain for gains in self.gains for gain in gains.values()]))

    @property
    def recall(self) -> float:
        """Share of the requests whose target is among their candidates."""
        hits = [bool(np.isin(targets, rows).any()) for rows, targets in zip(self.rows, self.targets)]
        return float(np.mean(hits)) if hits else 0.0

    @property
    def mean_candidates(self) -> float:
        """Mean number of candidates per request."""
        return float(np.mean([len(rows) for rows in self.rows])) if self.rows else 0.0

    def select(self, rows: Ints) -> CandidateTable:
        """The table of some of the requests."""

        def pick(values: list[Any]) -> list[Any]:
            return [values[row] for row in rows]

        return CandidateTable(
            pick(self.ids),
            self.left_RD[rows],
            pick(self.rows),
            pick(self.features),
            pick(self.targets),
            pick(self.likes),
            pick(self.gains) if self.gains else [],
        )

    def batch(self, picked: Ints, catalogue: Catalogue) -> tuple[torch.Tensor, ...]:
        """left [B, D], items [B, C, D], features [B, C, F], and which places hold a candidate [B, C]."""
        width = max(len(self.rows[r]) for r in picked)
        rows_BC = np.zeros((len(picked), width), np.int64)
        features_BCF = np.zeros((len(picked), width, self.features[0].shape[1]), np.float32)
        real_BC = np.zeros((len(picked), width), bool)
        for b, r in enumerate(picked):
            count = len(self.rows[r])
            rows_BC[b, :count], features_BCF[b, :count], real_BC[b, :count] = self.rows[r], self.features[r], True
        items_BCD = catalogue.vectors_ID[rows_BC]
        return tuple(torch.from_numpy(a) for a in (self.left_RD[picked], items_BCD, features_BCF, real_BC))


@dataclass(frozen=True)
class CandidateDrawer:
    """Draws candidates as serving does.

    ``queries`` has the vector [D] of each request with a query, by its id; ``profile`` gives what is known of the user
    and of the request as a vector [D].
    """

    tower: HistoryTower
    catalogue: Catalogue
    settings: CandidateSettings
    names: FeatureNames
    queries: Mapping[str, Floats]
    profile: Callable[[FrozenState], Floats] | None = None

    def draw(
        self,
        requests: Sequence[SnapshotRequest],
        *,
        progress: Progress,
        fixed_candidates: Sequence[Ints] | None = None,
        with_shown: bool = False,
    ) -> CandidateTable:
        """The table of some requests, with drawn candidates or with ``fixed_candidates``.

        ``with_shown`` adds the negatives of a request to the candidates drawn for it, seen or not.
        """
        catalogue, settings = self.catalogue, self.settings
        lefts, rows, features = [], [], []
        for done, request in enumerate(requests):
            state = scoring.truncate_history(request.state, settings.max_history)
            left_D = self.left_vector(request)
            scores = scoring.source_scores(state, left_D, catalogue, settings, query=request.query or "")
            if fixed_candidates is None:
                seen = catalogue.rows(state.seen)
                rows_N = scoring.draw_candidates(scores, seen, per_source=settings.candidates_per_source)
                if with_shown and request.shown:
                    rows_N = np.union1d(rows_N, catalogue.rows(request.shown))
            else:
                rows_N = fixed_candidates[done]
            context = scoring.context_features(state)
            lefts.append(left_D)
            rows.append(rows_N)
            features.append(scoring.candidate_features(state, context, rows_N, scores, catalogue, self.names))
            progress.update(done + 1, len(requests))
        return CandidateTable(
            ids=[request.request_id for request in requests],
            left_RD=np.stack(lefts) if lefts else np.zeros((0, self.tower.size), np.float32),
            rows=rows,
            features=features,
            targets=[catalogue.rows(request.targets) for request in requests],
            likes=[np.array(request.target_ratings, np.float32) for request in requests],
            gains=[self._gains(request) for request in requests]
            if any(request.target_weights for request in requests)
            else [],
        )

    def _gains(self, request: SnapshotRequest) -> dict[int, float]:
        index = self.catalogue.index
        weighted = zip(request.targets, request.target_weights)
        return {index[item]: weight for item, weight in weighted if item in index}

    @torch.no_grad()
    def left_vector(self, request: SnapshotRequest) -> Floats:
        """[D] the left vector of one request: its history's plus its query's plus what is known of it; zeros where
        there is nothing."""
        query_D = self.queries.get(request.request_id, np.zeros(self.tower.size, np.float32))
        if self.profile is not None:
            query_D = query_D + self.profile(request.state)
        history = scoring.truncate_history(request.state, self.settings.max_history).history
        ratings = history.ratings or [0.0] * len(history.item_ids)
        known = [(item, rating) for item, rating in zip(history.item_ids, ratings) if item in self.catalogue.index]
        if not known:
            return query_D
        rows_L = self.catalogue.rows([item for item, _ in known])
        ratings_L = stars([rating for _, rating in known])
        left_BD = self.tower(
            torch.from_numpy(self.catalogue.vectors_ID[rows_L])[None],
            torch.from_numpy(ratings_L)[None],
            torch.tensor([len(rows_L)]),
        )
        left_D: Floats = left_BD[0].numpy() + query_D
        return left_D

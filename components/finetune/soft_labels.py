"""The combined teacher: its sequence teachers, its cross-encoder, or both with their scores added.

Shapes: R requests of a split, A of them with a query, C candidates, I items, K ranks, T text size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from components.finetune.config import FinetuneConfig
from components.finetune.cross_encoder import CrossEncoderScorer, with_targets
from components.finetune.sequence import rankings
from components.finetune.sequence.rankings import CandidateBatch, TeacherEnsemble
from rankline.runtime.progress import Progress
from rankline.train.examples import Examples, Requests

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
PAIR_WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
USER_SCORE_ROWS = 64  # requests scored at once
CENTROID = "untuned_centroid"


@dataclass(frozen=True)
class UntunedVectors:
    """The vectors that the untuned encoder gives to the items and the test queries: a baseline.

    Where the items are labels, also the mean of the vectors of each label's training texts.
    """

    items_IT: Floats
    queries_AT: Floats
    centroids_IT: Floats | None = None

    def rankings(self, query: int) -> dict[str, Ints]:
        """System -> [I] the items for a test query, the closest first."""
        references = {"untuned_encoder": self.items_IT, CENTROID: self.centroids_IT}
        return {
            name: np.argsort(-(vectors_IT @ self.queries_AT[query]), kind="stable")
            for name, vectors_IT in references.items()
            if vectors_IT is not None
        }


class CombinedTeacher:
    """The teacher of one run: sequence teachers, a cross-encoder, or both."""

    def __init__(
        self,
        data: Examples,
        ensemble: TeacherEnsemble | None,
        cross_encoder: CrossEncoderScorer | None,
        untuned: UntunedVectors,
        config: FinetuneConfig,
    ) -> None:
        self._data, self._ensemble, self._cross_encoder = data, ensemble, cross_encoder
        self._untuned, self._config = untuned, config
        self._fused = ensemble.fused() if ensemble is not None else []
        self.weight = self._best_weight() if ensemble is not None and cross_encoder is not None else 1.0

    def soft_labels(self, split: str, *, progress: Progress) -> dict[str, npt.NDArray[Any]]:
        """candidates [R, C] and their logits [R, C], the targets among them: what the student learns from."""
        requests, config = self._data.splits[split], self._config
        progress.phase("scoring candidates for the student")
        labels: dict[str, npt.NDArray[Any]] = {}
        if self._ensemble is not None:
            labels = rankings.soft_scores(
                self._ensemble, self._data, requests, count=config.soft_candidates, seed=config.seed, progress=progress
            )
        rows = requests.query_rows
        if self._cross_encoder is None or not len(rows):
            return labels
        chosen_AC = with_targets(self._candidates(requests, rows), requests, rows)
        logits_AC = self._combined_scores(requests, rows, chosen_AC, progress)
        if not labels:  # every request has a query
            return {"candidates": chosen_AC, "logits": logits_AC}
        width = labels["candidates"].shape[1]
        places = np.arange(width) % chosen_AC.shape[1]  # a catalogue smaller than the width is repeated
        labels["candidates"][rows], labels["logits"][rows] = chosen_AC[:, places], logits_AC[:, places]
        return labels

    def rankings(self) -> dict[str, Ints]:
        """[R, K] the best unseen items of each test request: the teacher's, and the untuned encoder's.

        Where the items are labels, also those of the nearest centroid of the untuned encoder.
        """
        requests = self._data.splits["test"]
        best = self._user_rankings(requests)
        rows = requests.query_rows
        if self._cross_encoder is None or not len(rows):
            return best
        candidates_AC = self._candidates(requests, rows)
        scores_AC = self._combined_scores(requests, rows, candidates_AC, Progress())
        if self._untuned.centroids_IT is not None:
            best[CENTROID] = np.full_like(best["untuned_encoder"], -1)
        for a, row in enumerate(rows):
            untuned = self._untuned.rankings(a)
            closest = untuned["untuned_encoder"]
            reranked = candidates_AC[a][np.argsort(-scores_AC[a], kind="stable")]
            # the items that were not reranked follow in the encoder's order
            full_ranking = np.concatenate([reranked, closest[~np.isin(closest, reranked)]])
            for name, order in {"teacher": full_ranking, **untuned}.items():
                unseen = order[~np.isin(order, requests.seen[row])][: best[name].shape[1]]
                best[name][row] = -1
                best[name][row, : len(unseen)] = unseen
        return best

    def _user_rankings(self, requests: Requests) -> dict[str, Ints]:
        """[R, K] rankings by the users' histories; -1 everywhere where there are no users."""
        depth = self._config.rankings_depth
        if self._ensemble is None:
            return {name: np.full((len(requests), depth), -1) for name in ("teacher", "untuned_encoder")}
        return {
            "teacher": rankings.rank_all(self._ensemble, self._data, requests, depth=depth).best_RK,
            "untuned_encoder": rankings.closest_to_history(self._untuned.items_IT, requests, depth),
        }

    def _candidates(self, requests: Requests, rows: Ints) -> Ints:
        """[A, C] candidates of the requests with a query, the same at every call."""
        assert self._cross_encoder is not None
        rng = np.random.default_rng(self._config.seed)
        return self._cross_encoder.finder.candidates(requests, rows, self._config.soft_candidates, rng)

    def _combined_scores(self, requests: Requests, rows: Ints, candidates_AC: Ints, progress: Progress) -> Floats:
        """[A, C] the cross-encoder's scores, plus the sequence teachers' where there are any."""
        assert self._cross_encoder is not None
        cross_scores_AC = self._cross_encoder.scores(requests, rows, candidates_AC, progress=progress)
        if self._ensemble is None:
            return cross_scores_AC
        return np.asarray(self._user_scores(requests, rows, candidates_AC) + self.weight * cross_scores_AC, np.float32)

    def _user_scores(self, requests: Requests, rows: Ints, candidates_AC: Ints) -> Floats:
        assert self._ensemble is not None
        out_AC = np.zeros(candidates_AC.shape, np.float32)
        for start in range(0, len(rows), USER_SCORE_ROWS):
            part = slice(start, start + USER_SCORE_ROWS)
            batch = CandidateBatch(self._data, requests, rows[part], candidates_AC[part])
            out_AC[part] = self._ensemble.member_logits(self._fused, batch).mean(0).cpu().numpy()
        return out_AC

    def _best_weight(self) -> float:
        """The weight of the cross-encoder beside the sequence teachers that fits the validation requests best."""
        assert self._cross_encoder is not None
        requests = self._data.splits["valid"]
        rows = requests.query_rows[: self._config.pair_valid_requests]
        candidates_AC = with_targets(self._candidates(requests, rows), requests, rows)
        user_scores_AC = self._user_scores(requests, rows, candidates_AC)
        cross_scores_AC = self._cross_encoder.scores(requests, rows, candidates_AC, progress=Progress())
        return best_weight(user_scores_AC, cross_scores_AC, [requests.targets[row] for row in rows], candidates_AC)


def best_weight(user_scores_AC: Floats, cross_scores_AC: Floats, targets: list[Ints], candidates_AC: Ints) -> float:
    """The weight of the pair scores with which a softmax over the candidates gives the targets most."""
    losses = []
    for weight in PAIR_WEIGHTS:
        log_probability_AC = torch.log_softmax(torch.from_numpy(user_scores_AC + weight * cross_scores_AC), -1).numpy()
        of_targets = [log_probability_AC[a, np.isin(candidates_AC[a], rows)].mean() for a, rows in enumerate(targets)]
        losses.append(-float(np.mean(of_targets)))
    return PAIR_WEIGHTS[int(np.argmin(losses))]

"""What the teacher thinks of candidates, whichever sides it has: the user's, the query's, or both added up.

Shapes: R requests of a split, A of them asked in words, C candidates, I items, K ranks, T text size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from components.finetune import rankings, sequence_model
from components.finetune.config import FinetuneConfig
from components.finetune.cross_encoder import PairScorer, with_targets
from components.finetune.rankings import TeacherEnsemble
from rankline.runtime.progress import Progress
from rankline.train.examples import Examples, Requests

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
PAIR_WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class UntunedVectors:
    """What the encoder made of the items and of the test queries before anything was done to it: a baseline."""

    items_IT: Floats
    queries_AT: Floats


class CombinedTeacher:
    """The judges of one run: a panel of user-side teachers, a cross-encoder, or both."""

    def __init__(
        self,
        data: Examples,
        ensemble: TeacherEnsemble | None,
        pair_scorer: PairScorer | None,
        untuned: UntunedVectors,
        config: FinetuneConfig,
        device: torch.device,
    ) -> None:
        self._data, self._ensemble, self._pair_scorer, self._config, self._device = (
            data,
            ensemble,
            pair_scorer,
            config,
            device,
        )
        self._untuned = untuned
        self._fused = ensemble.fused() if ensemble is not None else []
        self.weight = self._best_weight() if ensemble is not None and pair_scorer is not None else 1.0

    def soft_labels(self, split: str, *, progress: Progress) -> dict[str, npt.NDArray[Any]]:
        """candidates [R, C] and their logits [R, C], the targets among them: what the student learns from."""
        requests, count = self._data.splits[split], self._config.soft_candidates
        progress.phase("scoring candidates for the student")
        labels: dict[str, npt.NDArray[Any]] = {}
        if self._ensemble is not None:
            labels = rankings.soft_scores(
                self._ensemble, self._data, requests, count=count, probability_I=sequence_model.negative_probabilities(self._data),
                seed=self._config.seed, device=self._device, progress=progress,
            )  # fmt: skip
        rows = requests.query_rows
        if self._pair_scorer is None or not len(rows):
            return labels
        candidates_AC = self._candidates(requests, rows)
        chosen_AC = with_targets(candidates_AC, requests, rows)
        logits_AC = self._combined_scores(requests, rows, chosen_AC, progress)
        if not labels:  # everything is asked in words
            return {"candidates": chosen_AC, "logits": logits_AC}
        width = labels["candidates"].shape[1]
        places = np.arange(width) % chosen_AC.shape[1]  # a catalogue smaller than the width repeats itself
        labels["candidates"][rows], labels["logits"][rows] = chosen_AC[:, places], logits_AC[:, places]
        return labels

    def rankings(self) -> dict[str, Ints]:
        """[R, K] the best unseen items of each test request: the teacher's, and the untuned encoder's."""
        requests, depth = self._data.splits["test"], self._config.rankings_depth
        if self._ensemble is not None:
            ranked = rankings.rank_all(self._ensemble, self._data, requests, device=self._device, depth=depth)
            best = {
                "teacher": ranked.best_RK,
                "untuned_encoder": rankings.closest_to_history(
                    torch.from_numpy(self._untuned.items_IT), requests, depth
                ),
            }
        else:
            best = {name: np.full((len(requests), depth), -1) for name in ("teacher", "untuned_encoder")}
        rows = requests.query_rows
        if self._pair_scorer is None or not len(rows):
            return best
        candidates_AC = self._candidates(requests, rows)
        scores_AC = self._combined_scores(requests, rows, candidates_AC, Progress())
        for a, row in enumerate(rows):
            closest = np.argsort(-(self._untuned.items_IT @ self._untuned.queries_AT[a]), kind="stable")
            reranked = candidates_AC[a][np.argsort(-scores_AC[a], kind="stable")]
            # behind what was reranked come the encoder's others
            full_ranking = np.concatenate([reranked, closest[~np.isin(closest, reranked)]])
            for name, order in (("teacher", full_ranking), ("untuned_encoder", closest)):
                unseen = order[~np.isin(order, requests.seen[row])][: best[name].shape[1]]
                best[name][row] = -1
                best[name][row, : len(unseen)] = unseen
        return best

    def _candidates(self, requests: Requests, rows: Ints) -> Ints:
        """[A, C] candidates of the requests asked in words, the same at every call."""
        assert self._pair_scorer is not None
        rng = np.random.default_rng(self._config.seed)
        return self._pair_scorer.finder.candidates(requests, rows, self._config.soft_candidates, rng)

    def _combined_scores(self, requests: Requests, rows: Ints, candidates_AC: Ints, progress: Progress) -> Floats:
        """[A, C] the cross-encoder's scores, and the user side's added where there is one."""
        assert self._pair_scorer is not None
        pair_scores_AC = self._pair_scorer.scores(requests, rows, candidates_AC, progress=progress)
        if self._ensemble is None:
            return pair_scores_AC
        return np.asarray(self._user_scores(requests, rows, candidates_AC) + self.weight * pair_scores_AC, np.float32)

    def _user_scores(self, requests: Requests, rows: Ints, candidates_AC: Ints) -> Floats:
        assert self._ensemble is not None
        out_AC = np.zeros(candidates_AC.shape, np.float32)
        for start in range(0, len(rows), 64):
            part = slice(start, start + 64)
            logits_MBC = self._ensemble.member_logits(
                self._fused, self._data, requests, rows[part], candidates_AC[part], self._device
            )
            out_AC[part] = logits_MBC.mean(0).cpu().numpy()
        return out_AC

    def _best_weight(self) -> float:
        """How much the cross-encoder counts beside the user side: what fits the validation requests best."""
        assert self._pair_scorer is not None
        requests = self._data.splits["valid"]
        rows = requests.query_rows[: self._config.pair_valid_requests]
        candidates_AC = with_targets(self._candidates(requests, rows), requests, rows)
        user_scores_AC = self._user_scores(requests, rows, candidates_AC)
        pair_scores_AC = self._pair_scorer.scores(requests, rows, candidates_AC, progress=Progress())
        return best_weight(user_scores_AC, pair_scores_AC, [requests.targets[row] for row in rows], candidates_AC)


def best_weight(user_scores_AC: Floats, pair_scores_AC: Floats, targets: list[Ints], candidates_AC: Ints) -> float:
    """The weight of ``of_pairs_AC`` with which a softmax over the candidates gives the targets most."""
    losses = []
    for weight in PAIR_WEIGHTS:
        log_probability_AC = torch.log_softmax(torch.from_numpy(user_scores_AC + weight * pair_scores_AC), -1).numpy()
        right = [log_probability_AC[a, np.isin(candidates_AC[a], wanted)].mean() for a, wanted in enumerate(targets)]
        losses.append(-float(np.mean(right)))
    return PAIR_WEIGHTS[int(np.argmin(losses))]

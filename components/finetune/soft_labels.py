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
from components.finetune.cross_encoder import Pairs, with_targets
from components.finetune.rankings import Panel
from rankline.runtime.progress import Progress
from rankline.train.examples import Examples, Requests

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Untuned:
    """What the encoder made of the items and of the test queries before anything was done to it: a baseline."""

    items_IT: Floats
    queries_AT: Floats


class Opinions:
    """The judges of one run: a panel of user-side teachers, a cross-encoder, or both."""

    def __init__(
        self,
        data: Examples,
        panel: Panel | None,
        pairs: Pairs | None,
        untuned: Untuned,
        config: FinetuneConfig,
        device: torch.device,
    ) -> None:
        self._data, self._panel, self._pairs, self._config, self._device = data, panel, pairs, config, device
        self._untuned = untuned
        self._fused = panel.fused() if panel is not None else []
        self.weight = self._best_weight() if panel is not None and pairs is not None else 1.0

    def soft(self, split: str, *, progress: Progress) -> dict[str, npt.NDArray[Any]]:
        """candidates [R, C] and their logits [R, C], the targets among them: what the student learns from."""
        requests, count = self._data.splits[split], self._config.soft_candidates
        progress.phase("scoring candidates for the student")
        told: dict[str, npt.NDArray[Any]] = {}
        if self._panel is not None:
            told = rankings.soft_scores(
                self._panel, self._data, requests, count=count, chance_I=sequence_model.chances(self._data),
                seed=self._config.seed, device=self._device, progress=progress,
            )  # fmt: skip
        rows = requests.asked
        if self._pairs is None or not len(rows):
            return told
        found_AC = self._found(requests, rows)
        chosen_AC = with_targets(found_AC, requests, rows)
        logits_AC = self._both(requests, rows, chosen_AC, progress)
        if not told:  # everything is asked in words
            return {"candidates": chosen_AC, "logits": logits_AC}
        width = told["candidates"].shape[1]
        places = np.arange(width) % chosen_AC.shape[1]  # a catalogue smaller than the width repeats itself
        told["candidates"][rows], told["logits"][rows] = chosen_AC[:, places], logits_AC[:, places]
        return told

    def rankings(self) -> dict[str, Ints]:
        """[R, K] the best unseen items of each test request: the teacher's, and the untuned encoder's."""
        requests, depth = self._data.splits["test"], self._config.rankings_depth
        if self._panel is not None:
            ranked = rankings.rank_all(self._panel, self._data, requests, device=self._device, depth=depth)
            best = {
                "teacher": ranked.best_RK,
                "untuned_encoder": rankings.closest_to_history(
                    torch.from_numpy(self._untuned.items_IT), requests, depth
                ),
            }
        else:
            best = {name: np.full((len(requests), depth), -1) for name in ("teacher", "untuned_encoder")}
        rows = requests.asked
        if self._pairs is None or not len(rows):
            return best
        found_AC = self._found(requests, rows)
        scores_AC = self._both(requests, rows, found_AC, Progress())
        for a, row in enumerate(rows):
            closest = np.argsort(-(self._untuned.items_IT @ self._untuned.queries_AT[a]), kind="stable")
            reranked = found_AC[a][np.argsort(-scores_AC[a], kind="stable")]
            # behind what was reranked come the encoder's others
            whole = np.concatenate([reranked, closest[~np.isin(closest, reranked)]])
            for name, order in (("teacher", whole), ("untuned_encoder", closest)):
                unseen = order[~np.isin(order, requests.seen[row])][: best[name].shape[1]]
                best[name][row] = -1
                best[name][row, : len(unseen)] = unseen
        return best

    def _found(self, requests: Requests, rows: Ints) -> Ints:
        """[A, C] candidates of the requests asked in words, the same at every call."""
        assert self._pairs is not None
        rng = np.random.default_rng(self._config.seed)
        return self._pairs.finder.candidates(requests, rows, self._config.soft_candidates, rng)

    def _both(self, requests: Requests, rows: Ints, candidates_AC: Ints, progress: Progress) -> Floats:
        """[A, C] the cross-encoder's scores, and the user side's added where there is one."""
        assert self._pairs is not None
        of_pairs_AC = self._pairs.scores(requests, rows, candidates_AC, progress=progress)
        if self._panel is None:
            return of_pairs_AC
        return np.asarray(self._of_users(requests, rows, candidates_AC) + self.weight * of_pairs_AC, np.float32)

    def _of_users(self, requests: Requests, rows: Ints, candidates_AC: Ints) -> Floats:
        assert self._panel is not None
        out_AC = np.zeros(candidates_AC.shape, np.float32)
        for start in range(0, len(rows), 64):
            part = slice(start, start + 64)
            told_MBC = self._panel.opinions(
                self._fused, self._data, requests, rows[part], candidates_AC[part], self._device
            )
            out_AC[part] = told_MBC.mean(0).cpu().numpy()
        return out_AC

    def _best_weight(self) -> float:
        """How much the cross-encoder counts beside the user side: what fits the validation requests best."""
        assert self._pairs is not None
        requests = self._data.splits["valid"]
        rows = requests.asked[: self._config.pair_valid_requests]
        found_AC = with_targets(self._found(requests, rows), requests, rows)
        of_users_AC = self._of_users(requests, rows, found_AC)
        of_pairs_AC = self._pairs.scores(requests, rows, found_AC, progress=Progress())
        return best_weight(of_users_AC, of_pairs_AC, [requests.targets[row] for row in rows], found_AC)


def best_weight(of_users_AC: Floats, of_pairs_AC: Floats, targets: list[Ints], candidates_AC: Ints) -> float:
    """The weight of ``of_pairs_AC`` with which a softmax over the candidates gives the targets most."""
    losses = []
    for weight in WEIGHTS:
        chance_AC = torch.log_softmax(torch.from_numpy(of_users_AC + weight * of_pairs_AC), -1).numpy()
        right = [chance_AC[a, np.isin(candidates_AC[a], wanted)].mean() for a, wanted in enumerate(targets)]
        losses.append(-float(np.mean(right)))
    return WEIGHTS[int(np.argmin(losses))]

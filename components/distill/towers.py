"""The two towers: fused item vectors on the right, the history tower on the left.

Shapes: B windows or requests, L history events, C candidates, I items, S sampled items, D vector size.

Rows of a table that has a gradient are taken by F.embedding: on several threads the gradient of table[rows] is
summed in whatever order they come, and no run would be like another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.distill.config import DistillConfig
from rankline import training
from rankline.examples import Examples, Requests
from rankline.model import HistoryTower, ItemFusion
from rankline.progress import Progress


class Towers(nn.Module):
    """What serves: item vectors computed ahead of time, a left vector computed for each request."""

    def __init__(self, fusion: ItemFusion, tower: HistoryTower, side_IS: Tensor) -> None:
        super().__init__()
        self.fusion, self.tower = fusion, tower
        self.side_IS: Tensor
        self.register_buffer("side_IS", side_IS)

    @classmethod
    def make(cls, data: Examples, *, text_size: int, size: int, config: DistillConfig) -> Towers:
        """Fresh towers for the catalogue of ``data``."""
        side_IS = torch.from_numpy(data.side_IS)
        fusion = ItemFusion(
            items=len(data.item_ids),
            text_size=text_size,
            side_size=side_IS.shape[1],
            size=size,
            own_dropout=config.own_dropout,
            known_I=torch.from_numpy(data.known_I),
        )
        tower = HistoryTower(
            size=size,
            max_history=config.max_history,
            layers=config.layers,
            heads=config.heads,
            dropout=config.dropout,
        )
        return cls(fusion, tower, side_IS)

    def begin_from(self, weights: dict[str, Tensor]) -> int:
        """Take the teacher's tensors whose names and shapes agree; how many there were."""
        own = self.state_dict()
        shared = {k: v for k, v in weights.items() if k in own and own[k].shape == v.shape}
        self.load_state_dict({**own, **shared})
        return len(shared)

    @torch.no_grad()
    def item_vectors(self, text_IT: Tensor) -> npt.NDArray[np.float32]:
        """[I, D] the right vectors of the catalogue."""
        self.eval()
        vectors_ID: npt.NDArray[np.float32] = self.fusion(text_IT, self.side_IS).numpy()
        return vectors_ID


def train(
    model: Towers,
    data: Examples,
    text_IT: Tensor,
    soft: Any,
    *,
    config: DistillConfig,
    device: torch.device,
    progress: Progress,
    checkpoints: Path | None,
) -> dict[str, Any]:
    """Train the towers and leave the best of them in ``model``, on the CPU; the curve and where it was best."""
    rng = np.random.default_rng(config.seed)
    requests = data.splits["train"]
    candidates_RC, logits_RC = soft["train_candidates"], soft["train_logits"]
    model.to(device)
    text_IT = text_IT.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    chance_I = np.bincount(np.concatenate(data.sequences.items), minlength=len(data.item_ids)) + 1.0
    chance_I /= chance_I.sum()

    keeper = training.Checkpoints(checkpoints)
    state = keeper.load(rng) or {"epoch": 0, "best": -1.0, "best_epoch": 0, "stale": 0, "curve": []}
    resumed_at = state["epoch"]
    if resumed_at:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])

    progress.phase("training the towers")
    for epoch in range(state["epoch"], config.epochs):
        if state["stale"] >= config.patience:
            break
        model.train()
        windows = data.sequences.windows(rng, config.max_history)
        batches = training.window_batches(windows, rng, config.batch_size)
        losses = []
        for step, batch in enumerate(batches):
            fraction = (epoch + step / len(batches)) / config.epochs
            rate = training.rate_at(fraction, peak=config.learning_rate, warm_up=config.warm_up)
            optimizer.param_groups[0]["lr"] = rate
            fused_ID = model.fusion(text_IT, model.side_IS)

            # ground truth: the next item at every position
            items_BL, ratings_BL, next_BL = (part.to(device) for part in training.pad(batch))
            here = next_BL >= 0
            hidden_ND = model.tower.hidden(F.embedding(items_BL, fused_ID), ratings_BL)[here]
            hard_loss = next_item_loss(
                hidden_ND, fused_ID, next_BL[here], sampled=config.sampled_items, chance_I=chance_I, rng=rng
            )

            # the teacher's opinion of some candidates of some requests
            rows = rng.integers(0, len(requests), config.requests_per_step)
            left_BD = left_of(model.tower, fused_ID, requests, rows, device)
            candidates_BC = torch.from_numpy(candidates_RC[rows]).to(device)
            student_BC = torch.einsum("bd,bcd->bc", left_BD, F.embedding(candidates_BC, fused_ID))
            teacher_BC = torch.from_numpy(logits_RC[rows]).to(device)
            soft_loss = config.temperature**2 * F.kl_div(
                F.log_softmax(student_BC / config.temperature, -1),
                F.log_softmax(teacher_BC / config.temperature, -1),
                log_target=True,
                reduction="batchmean",
            )

            loss = hard_loss + config.soft_weight * soft_loss
            value = float(loss.detach())
            training.check_finite(value, step="distill", epoch=epoch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
            optimizer.step()
            losses.append(value)
            progress.update(
                epoch * len(batches) + step + 1,
                config.epochs * len(batches),
                loss=value,
                lr=rate,
                valid=state["best"] if state["best"] >= 0 else float("nan"),
            )

        point = {"epoch": epoch, "loss": float(np.mean(losses))}
        if (epoch + 1) % config.evaluate_every == 0 or epoch + 1 == config.epochs:
            point["valid_ndcg@10"] = reached = _validate(model, text_IT, data.splits["valid"], device)
            state["stale"] = 0 if reached > state["best"] else state["stale"] + 1
            if reached > state["best"]:
                weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
                state.update(best=reached, best_epoch=epoch, weights=weights)
        state["curve"].append(point)
        state["epoch"] = epoch + 1
        keeper.save({**state, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, rng)

    model.load_state_dict(state["weights"])
    model.cpu().eval()
    return {**{name: state[name] for name in ("best", "best_epoch", "curve")}, "resumed_at": resumed_at}


def next_item_loss(
    hidden_ND: Tensor,
    fused_ID: Tensor,
    next_N: Tensor,
    *,
    sampled: int,
    chance_I: npt.NDArray[np.float64],
    rng: np.random.Generator,
) -> Tensor:
    """Softmax cross-entropy over the catalogue, or an estimate of it from ``sampled`` items.

    Each drawn item stands for as many as its chance tells: less the log of how often it is expected in the draw, it
    makes the sum in the softmax right on average (Bengio & Senecal 2008), so that popular items, drawn often, are
    not punished for it. A drawn item that is the target is left out, for the target is there already.
    """
    if not sampled or sampled >= len(fused_ID):
        return F.cross_entropy(hidden_ND @ fused_ID.T, next_N)
    drawn_S = torch.from_numpy(rng.choice(len(chance_I), sampled, p=chance_I)).to(next_N.device)
    log_expected_I = torch.from_numpy(np.log(chance_I * sampled)).float().to(next_N.device)
    target_N1 = (hidden_ND * F.embedding(next_N, fused_ID)).sum(-1, keepdim=True)
    others_NS = hidden_ND @ F.embedding(drawn_S, fused_ID).T - log_expected_I[drawn_S]
    others_NS = others_NS.masked_fill(drawn_S.unsqueeze(0) == next_N.unsqueeze(1), -1e4)
    first_N = torch.zeros_like(next_N)
    return F.cross_entropy(torch.cat([target_N1, others_NS], 1), first_N)


def left_of(tower: HistoryTower, fused_ID: Tensor, requests: Requests, rows: Any, device: torch.device) -> Tensor:
    """[B, D] the left vectors of some requests."""
    items_BL = torch.from_numpy(requests.items_RL[rows]).to(device)
    ratings_BL = torch.from_numpy(requests.ratings_RL[rows]).to(device)
    lengths_B = torch.from_numpy(requests.lengths_R[rows]).to(device)
    left_BD: Tensor = tower(F.embedding(items_BL, fused_ID), ratings_BL, lengths_B)
    return left_BD


@torch.no_grad()
def _validate(model: Towers, text_IT: Tensor, requests: Requests, device: torch.device) -> float:
    """nDCG@10 of the towers alone over all unseen items."""
    model.eval()
    fused_ID = model.fusion(text_IT, model.side_IS)
    ranks = []
    for start in range(0, len(requests), 256):
        rows = np.arange(start, min(start + 256, len(requests)))
        scores_BI = (left_of(model.tower, fused_ID, requests, rows, device) @ fused_ID.T).cpu().numpy()
        for row, scores_I in zip(rows, scores_BI):
            scores_I[requests.seen[row]] = -np.inf
            ranks.append(training.rank_of(scores_I, requests.targets[row][0]))
    return training.ndcg_of_ranks(np.array(ranks), k=10)

"""The two towers: fused item vectors on the right; on the left what a history and a query say, added up.

Where items are sampled (`sampled_items` below the catalogue), a step fuses, scores and moves only the items it has to
do with; else it takes them all (rankline/train/sampled_items.py).

Shapes: B windows or requests, L history events, C candidates, I items, S sampled items, N items read with gradients,
T text size, D vector size; rows_T are the items touched.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.distill import ranking
from components.distill.config import DistillConfig
from components.distill.encode import EncodedTexts
from rankline.model import adapters
from rankline.model.networks import HistoryTower, ItemFusion
from rankline.runtime.progress import Progress
from rankline.train import sampled_items, training
from rankline.train.examples import Examples, Requests
from rankline.train.sampled_items import FusedItems

Ints = npt.NDArray[np.int64]
NO_WINDOWS = torch.zeros(3, 0, 0, dtype=torch.long)


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

    def left(
        self, fused: FusedItems, requests: Requests, rows: Any, queries_BT: Tensor, device: torch.device
    ) -> Tensor:
        """[B, D] the left vectors of some requests: the history's, and the query's where one is asked."""
        ratings_BL = torch.from_numpy(requests.ratings_RL[rows]).to(device)
        lengths_B = torch.from_numpy(requests.lengths_R[rows]).to(device)
        left_BD: Tensor = self.tower(fused.lookup(requests.items_RL[rows]), ratings_BL, lengths_B)
        asked_B = torch.tensor([bool(requests.queries[row]) for row in rows], device=device)
        if bool(asked_B.any()):
            left_BD = left_BD + asked_B.unsqueeze(1) * self.fusion.text(queries_BT)
        return left_BD

    def load_matching(self, weights: dict[str, Tensor]) -> int:
        """Take the teacher's tensors whose names and shapes agree; how many there were."""
        current = self.state_dict()
        shared = {k: v for k, v in weights.items() if k in current and current[k].shape == v.shape}
        self.load_state_dict({**current, **shared})
        return len(shared)

    @torch.no_grad()
    def query_vectors(self, requests: Requests, queries_RT: Tensor) -> dict[str, npt.NDArray[np.float32]]:
        """Request id -> [D] its query's part of the left vector, of the requests that are asked in words."""
        self.eval()
        asked = requests.query_rows
        vectors_ND = self.fusion.text(queries_RT[torch.from_numpy(asked)]).numpy()
        return {requests.ids[row]: vector_D for row, vector_D in zip(asked, vectors_ND)}

    def item_vectors(self, text_IT: Tensor) -> npt.NDArray[np.float32]:
        """[I, D] the right vectors of the catalogue."""
        self.eval()
        vectors_ID: npt.NDArray[np.float32] = sampled_items.fuse_all(self.fusion, text_IT, self.side_IS).numpy()
        return vectors_ID


def train(
    model: Towers,
    data: Examples,
    encoded_texts: EncodedTexts,
    soft: Any,
    *,
    config: DistillConfig,
    device: torch.device,
    progress: Progress,
    checkpoints: Path | None,
) -> dict[str, Any]:
    """Train the towers and leave the best of them in ``model``, on the CPU; the curve and where it was best.

    With ``config.train_encoder`` the encoder in ``reading`` is trained, too, and left as it was at its best.
    """
    rng = np.random.default_rng(config.seed)
    requests = data.splits["train"]
    candidates_RC, logits_RC = soft["train_candidates"], soft["train_logits"]
    model.to(device)
    if config.train_encoder:
        encoded_texts.prepare_training(config)

    # Optimizer: the encoder moves at its own, much smaller, rate; own vectors one by one where items are sampled
    sampled = config.sampled_items if config.sampled_items < len(data.item_ids) else 0
    item_embedding = (
        sampled_items.SparseItemEmbedding(model.fusion, learning_rate=config.learning_rate) if sampled else None
    )
    dense = [weight for weight in model.parameters() if item_embedding is None or weight is not item_embedding.table_ID]
    groups: list[dict[str, Any]] = [{"params": dense, "peak": config.learning_rate}]
    if config.train_encoder:
        groups += adapters.parameter_groups(
            encoded_texts.encoder.backbone, peak=config.encoder_learning_rate, decay=config.encoder_layer_decay
        )
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
    dense_weights = [weight for group in groups for weight in group["params"]]
    use_bf16 = training.pick_autocast(config.precision, device)
    probability_I = data.counts_I + 1.0
    probability_I /= probability_I.sum()
    sampler = training.ItemSampler(probability_I)

    checkpointer = training.Checkpoints(checkpoints)
    state = checkpointer.load(rng) or {"epoch": 0, "best": -1.0, "best_epoch": -1, "stale": 0, "curve": []}
    resumed_at = state["epoch"]
    if resumed_at:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if item_embedding is not None:
            item_embedding.optimizer.load_state_dict(state["own_optimizer"])
        if config.train_encoder:
            encoded_texts.restore(state["reading"])
    elif data.has_queries:  # what the untuned encoder reaches is where it starts, and no training may leave it worse
        valid_ndcg = _validate(model, encoded_texts, data.splits["valid"], device)
        state.update(best=valid_ndcg, weights=_cpu_state(model), best_reading=_encoder_state(encoded_texts, config))

    progress.phase("training the towers")
    for epoch in range(state["epoch"], config.epochs):
        if state["stale"] >= config.patience:
            break
        model.train()
        encoded_texts.encoder.train(config.train_encoder)
        batches = _epoch_batches(data, rng, config)
        losses = []
        for step, (windows, asked) in enumerate(batches):
            fraction = (epoch + step / len(batches)) / config.epochs
            for group in (*optimizer.param_groups, *(item_embedding.optimizer.param_groups if item_embedding else ())):
                group["lr"] = training.learning_rate_at(
                    fraction, peak=group.get("peak", config.learning_rate), warm_up=config.warm_up
                )
            # requests whose candidates the teacher has scored; of those asked in words the same as below
            rows = asked if len(asked) else rng.integers(0, len(requests), config.requests_per_step)
            targets = np.array([rng.choice(requests.targets[row]) for row in asked], np.int64)
            if config.train_encoder:
                hard_BC = candidates_RC[rows, rng.integers(0, candidates_RC.shape[1], (2, len(rows)))]
                chosen = rng.permutation(np.concatenate([targets, hard_BC.ravel()]))[: config.encoder_items_per_step]
                fresh_N, fresh_NT, queries_BT = encoded_texts.encode_with_gradients(
                    requests, rows, chosen, use_bf16=use_bf16
                )
            else:
                fresh_N, fresh_NT, queries_BT = (
                    sampled_items.NO_ITEMS,
                    None,
                    encoded_texts.queries["train"][torch.from_numpy(rows)],
                )
            items_BL, ratings_BL, next_BL = training.pad_windows(windows) if windows else NO_WINDOWS
            sampled_S = sampler(rng, sampled)

            rows_T = own_TD = None
            if item_embedding is not None:
                following_N, histories_BL = next_BL[next_BL >= 0], requests.items_RL[rows]
                rows_T = sampled_items.unique_items(
                    items_BL, following_N, histories_BL, candidates_RC[rows], targets, fresh_N, sampled_S
                )
                own_TD = item_embedding.gather(rows_T)
            fused = sampled_items.fuse(
                model.fusion,
                encoded_texts.items_IT,
                model.side_IS,
                rows_T,
                own_TD=own_TD,
                fresh_N=fresh_N,
                fresh_NT=fresh_NT,
            )
            loss = torch.zeros((), device=device)

            # ground truth: the next item at every position
            if windows:
                is_target_BL = (next_BL >= 0).to(device)
                hidden_ND = model.tower.hidden(fused.lookup(items_BL.numpy()), ratings_BL.to(device))[is_target_BL]
                loss = loss + training.next_item_loss(
                    hidden_ND, fused.vectors_TD, next_BL.to(device)[is_target_BL], sampled_S=sampled_S, probability_I=probability_I,
                    rows_T=rows_T,
                )  # fmt: skip

            # ground truth: an item that answers a query, among those that do not
            left_BD = model.left(fused, requests, rows, queries_BT, device)
            if len(asked):
                other_targets = [np.setdiff1d(requests.targets[row], target) for row, target in zip(rows, targets)]
                loss = loss + training.next_item_loss(
                    left_BD, fused.vectors_TD, torch.from_numpy(targets).to(device), sampled_S=sampled_S,
                    probability_I=probability_I, rows_T=rows_T, other_targets=other_targets,
                )  # fmt: skip

            # the teacher's opinion of some candidates
            student_BC = torch.einsum("bd,bcd->bc", left_BD, fused.lookup(candidates_RC[rows]))
            teacher_BC = torch.from_numpy(logits_RC[rows]).to(device)
            soft_loss = config.temperature**2 * F.kl_div(
                F.log_softmax(student_BC / config.temperature, -1),
                F.log_softmax(teacher_BC / config.temperature, -1),
                log_target=True,
                reduction="batchmean",
            )

            loss = loss + config.soft_weight * soft_loss
            value = float(loss.detach())
            training.check_finite(value, step="distill", epoch=epoch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_([*dense_weights, *([own_TD] if own_TD is not None else [])], config.gradient_clip)
            optimizer.step()
            if item_embedding is not None and rows_T is not None and own_TD is not None:
                item_embedding.apply_gradient(rows_T, own_TD)
            losses.append(value)
            progress.update(
                epoch * len(batches) + step + 1,
                config.epochs * len(batches),
                loss=value,
                lr=optimizer.param_groups[0]["lr"],
                valid=state["best"] if state["best"] >= 0 else float("nan"),
            )

        point = {"epoch": epoch, "loss": float(np.mean(losses))}
        if (epoch + 1) % config.evaluate_every == 0 or epoch + 1 == config.epochs:
            if config.train_encoder:  # every word as the encoder reads it now, for that is what will be served
                encoded_texts.encode_items(Progress())
                encoded_texts.encode_queries()
            point["valid_ndcg@10"] = valid_ndcg = _validate(model, encoded_texts, data.splits["valid"], device)
            state["stale"] = 0 if valid_ndcg > state["best"] else state["stale"] + 1
            if valid_ndcg > state["best"]:
                state.update(best=valid_ndcg, best_epoch=epoch, weights=_cpu_state(model))
                state["best_reading"] = _encoder_state(encoded_texts, config)
        state["curve"].append(point)
        state["epoch"] = epoch + 1
        extra = {"reading": encoded_texts.state()} if config.train_encoder else {}
        if item_embedding is not None:
            extra["own_optimizer"] = item_embedding.optimizer.state_dict()
        checkpointer.save({**state, **extra, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, rng)

    model.load_state_dict(state["weights"])
    model.cpu().eval()
    counts = adapters.count_parameters(encoded_texts.encoder)
    if config.train_encoder:
        encoded_texts.restore(state["best_reading"], merged=True)
    summary = {name: state[name] for name in ("best", "best_epoch", "curve")}
    return {**summary, "resumed_at": resumed_at, "encoder_weights": counts}


def _cpu_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _encoder_state(encoded_texts: EncodedTexts, config: DistillConfig) -> dict[str, Any] | None:
    """The encoder as it is now, where training changes it."""
    return encoded_texts.state() if config.train_encoder else None


def _epoch_batches(data: Examples, rng: np.random.Generator, config: DistillConfig) -> list[tuple[list[Any], Ints]]:
    """An epoch's steps: windows over users' events, and the rows of train requests asked in words."""
    asked = rng.permutation(data.splits["train"].query_rows) if data.has_queries else np.zeros(0, np.int64)
    if not data.has_users:
        parts = np.array_split(asked, max(1, -(-len(asked) // config.batch_size)))
        return [([], part) for part in parts]
    windows = training.window_batches(data.sequences.windows(rng, config.max_history), rng, config.batch_size)
    return [(batch, part) for batch, part in zip(windows, np.array_split(asked, len(windows)))]


def _validate(model: Towers, encoded_texts: EncodedTexts, requests: Requests, device: torch.device) -> float:
    """nDCG@10 of the towers alone over all unseen items, by the first target of each request."""
    ranks_R = ranking.target_ranks(
        model, requests, encoded_texts.items_IT, encoded_texts.queries["valid"], device=device
    )
    return training.ndcg_of_ranks(ranks_R, k=10)

"""The teacher of users: the loop that learns which item comes next, and which of some candidates was chosen.

Data, model, optimizer, schedule, loop, evaluation, save, in that order. All that is random is drawn for a whole step
(`_drawn`), by every process alike; what is then computed in parts is weighted so that the parts add up to the step.

Shapes: B windows or requests, L history events, C candidates, S sampled items, I items, N items read with gradients,
D vector size, H heads, F features, T text size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from components.finetune import augment
from components.finetune import encoder as encoders
from components.finetune.config import FinetuneConfig
from components.finetune.distributed import DistributedContext
from components.finetune.masked_lm import MaskedLanguageModel, MaskedTexts
from components.finetune.rankings import TeacherEnsemble, rank_all, score_candidates
from rankline.model import adapters
from rankline.model.networks import HistoryTower, ItemFusion, Teacher, TextEncoder
from rankline.runtime.progress import Progress
from rankline.text import Tokenizer
from rankline.train import sampled_items, training
from rankline.train.examples import Examples

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TrainedTeacher:
    """A teacher as it was in its best epoch; ``reader`` is its own encoder where that was trained, too."""

    model: Teacher
    text_IT: Tensor
    reader: TextEncoder
    told: dict[str, Any]


@dataclass(frozen=True)
class StepInputs:
    """All that one step needs, drawn before it is computed."""

    items_BL: Ints
    ratings_BL: Ints
    next_BL: Ints
    visible_BL: npt.NDArray[np.bool_] | None
    fresh_N: Ints
    masked: MaskedTexts | None
    rows_B: Ints
    drawn_C: Ints
    sampled_S: Ints


def negative_probabilities(data: Examples) -> npt.NDArray[np.float64]:
    """How often each item is drawn as a negative: as often as it occurs, softened."""
    counts_I = np.bincount(np.concatenate(data.sequences.items), minlength=len(data.item_ids))
    probability_I = (counts_I + 1.0) ** 0.75
    return probability_I / probability_I.sum()


def train(
    data: Examples,
    reader: TextEncoder,
    tokenizer: Tokenizer,
    text_IT: Tensor,
    side_IS: Tensor,
    *,
    config: FinetuneConfig,
    seed: int,
    use_bf16: bool,
    device: torch.device,
    ranks: DistributedContext,
    progress: Progress,
    checkpoints: Path | None,
    load_weights: Callable[[Teacher], None] | None = None,
) -> TrainedTeacher:
    """Train one teacher; a killed run goes on from its last epoch. Where the encoder is trained, ``reader`` changes.

    ``begin`` puts other weights than fresh ones into it; then no training may leave it worse than it began.

    Raises:
        TrainingError: the loss became NaN.
    """
    # Data
    train, valid = data.splits["train"], data.splits["valid"]
    rng = np.random.default_rng(seed)
    text_IT = text_IT.clone() if config.train_encoder else text_IT

    # Model
    model = _build_teacher(data, reader.size, side_IS.shape[1], config=config, rng=rng)
    if load_weights is not None:
        load_weights(model)
    model = model.to(device)
    masked_lm = None
    if config.train_encoder:
        adapters.freeze_lowest(reader.backbone, config.encoder_frozen_layers)
        reader.backbone = adapters.attach(
            reader.backbone,
            kind=config.peft,
            rank=config.peft_rank,
            alpha=config.peft_alpha,
            dropout=config.peft_dropout,
            targets=config.peft_targets,
        )
        masked_lm = MaskedLanguageModel(reader, tokenizer).to(device)
        ranks.broadcast_weights(masked_lm)
    ranks.broadcast_weights(model)
    compiled = (
        training.compile_modules(*([model.tower] + ([reader.backbone] if masked_lm else []))) if config.compile else ""
    )

    # Optimizer: the encoder moves at its own, much smaller, rate; own vectors one by one where items are sampled
    item_embedding = (
        sampled_items.SparseItemEmbedding(model.fusion, learning_rate=config.learning_rate)
        if config.sampled_items
        else None
    )
    dense = [weight for weight in model.parameters() if item_embedding is None or weight is not item_embedding.table_ID]
    groups: list[dict[str, Any]] = [{"params": dense, "peak": config.learning_rate}]
    if masked_lm is not None:
        groups += adapters.parameter_groups(
            reader.backbone, peak=config.encoder_learning_rate, decay=config.encoder_layer_decay
        )
        groups.append({"params": list(masked_lm.transform.parameters()), "peak": config.encoder_learning_rate})
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
    dense_weights = [weight for group in groups for weight in group["params"]]

    # Negatives are drawn as often as items occur (softened), and the draw is corrected for in the loss
    probability_I = negative_probabilities(data)
    sampler = training.ItemSampler(probability_I)
    log_expected_I = torch.from_numpy(np.log(probability_I * config.negatives)).float().to(device)
    target_R = np.array([targets[0] for targets in train.targets], np.int64)
    like_R = np.array([ratings[0] for ratings in train.target_ratings], np.float32)

    checkpointer = training.Checkpoints(checkpoints)
    state = ranks.broadcast(checkpointer.load(rng) if ranks.is_main else None)
    state = state or {"epoch": 0, "best": -1.0, "best_epoch": 0, "stale": 0, "curve": []}
    resumed_at = state["epoch"]
    if resumed_at:
        rng.bit_generator.state = state["numpy"]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if item_embedding is not None:
            item_embedding.optimizer.load_state_dict(state["own_optimizer"])
        if masked_lm is not None:
            masked_lm.load_state_dict(state["language"])
            text_IT = state["words"].to(device)

    elif load_weights is not None:
        valid_ndcg = training.ndcg_of_ranks(
            rank_all(
                TeacherEnsemble([(model, text_IT)], side_IS), data, valid, device=device, ranks=ranks
            ).target_ranks,
            k=10,
        )
        state.update(best=valid_ndcg, best_epoch=-1, at_start=valid_ndcg, weights=_cpu_state(model))
        if masked_lm is not None:
            state.update(text=text_IT.clone(), reader=_cpu_state(reader))

    # Loop
    for epoch in range(state["epoch"], config.epochs):
        if state["stale"] >= config.patience:
            break
        ranks.reseed(seed, epoch)
        model.train()
        windows = augment.augment_windows(data.sequences.windows(rng, config.max_history), rng, config)
        batches = training.window_batches(windows, rng, config.batch_size)
        losses, language_losses = [], []
        for step, batch in enumerate(batches):
            fraction = (epoch + step / len(batches)) / config.epochs
            for group in (*optimizer.param_groups, *(item_embedding.optimizer.param_groups if item_embedding else ())):
                group["lr"] = training.learning_rate_at(
                    fraction, peak=group.get("peak", config.learning_rate), warm_up=config.warm_up
                )
            drawn = _draw_step(batch, data, len(train), masked_lm, sampler, rng=rng, config=config)
            optimizer.zero_grad(set_to_none=True)

            # only some items are read with gradients in a step, each by one process; the others keep their vectors
            encoded_NT = fresh_NT = None
            language_loss = torch.zeros((), device=device)
            if masked_lm is not None and drawn.masked is not None:
                local_rows = slice(ranks.rank, None, ranks.world_size)
                part = drawn.masked.part(local_rows)
                encoded_NT, language_loss = masked_lm(part, use_bf16=use_bf16, device=device)
                language_loss = language_loss * (part.target_BW.sum() / max(1, drawn.masked.target_BW.sum()))
                fresh_NT = ranks.gather_rows(encoded_NT.detach(), len(drawn.fresh_N)).requires_grad_()
                text_IT[torch.from_numpy(drawn.fresh_N).to(device)] = fresh_NT.detach()

            rows_T = _step_items(drawn, train, target_R) if item_embedding is not None else None
            own_TD = item_embedding.gather(rows_T) if item_embedding is not None and rows_T is not None else None
            clipped_weights = [*dense_weights, *([own_TD] if own_TD is not None else [])]

            value = torch.zeros(2, device=device)
            for part in ranks.slices(config.accumulate):
                fused = sampled_items.fuse(
                    model.fusion, text_IT, side_IS, rows_T, own_TD=own_TD, fresh_N=drawn.fresh_N, fresh_NT=fresh_NT
                )

                # what comes next, at every position, among all items
                next_BL = torch.from_numpy(drawn.next_BL[part]).to(device)
                events_BLD = fused.lookup(drawn.items_BL[part])
                if drawn.visible_BL is not None:
                    events_BLD = events_BLD * torch.from_numpy(drawn.visible_BL[part]).to(device).unsqueeze(-1)
                hidden_BLD = model.tower.hidden(events_BLD, torch.from_numpy(drawn.ratings_BL[part]).to(device))
                is_target_BL = next_BL >= 0
                next_share = float(is_target_BL.sum()) / float((drawn.next_BL >= 0).sum())
                next_loss = torch.zeros((), device=device)
                if next_share:
                    next_loss = training.next_item_loss(
                        hidden_BLD[is_target_BL], fused.vectors_TD, next_BL[is_target_BL], sampled_S=drawn.sampled_S,
                        probability_I=probability_I, rows_T=rows_T,
                    ) * next_share  # fmt: skip

                # which of some candidates, given everything
                rows = drawn.rows_B[part]
                row_share = len(rows) / len(drawn.rows_B)
                ranking_loss = like_loss = torch.zeros((), device=device)
                if row_share:
                    candidates_BC = np.concatenate([target_R[rows, None], np.tile(drawn.drawn_C, (len(rows), 1))], 1)
                    logits_BCH = score_candidates(model, fused, data, train, rows, candidates_BC, device)
                    candidates = torch.from_numpy(candidates_BC).to(device)
                    click_BC = logits_BCH[:, :, 0] - log_expected_I[candidates]
                    repeated = candidates[:, 1:] == candidates[:, :1]
                    click_BC[:, 1:] = click_BC[:, 1:].masked_fill(repeated, -1e4)
                    first_B = torch.zeros(len(rows), dtype=torch.long, device=device)
                    ranking_loss = F.cross_entropy(click_BC, first_B) * row_share
                    rated = torch.from_numpy(like_R[rows]).to(device)
                    like_loss = row_share * F.binary_cross_entropy_with_logits(
                        logits_BCH[:, 0, 1], (rated >= 4).float(), weight=(rated > 0).float()
                    )

                loss = ranking_loss + config.next_item_weight * next_loss + config.like_weight * like_loss
                if loss.requires_grad:
                    loss.backward()
                value[0] += loss.detach()

            if (
                encoded_NT is not None and fresh_NT is not None
            ):  # what the users say of the items goes on to the encoder
                if fresh_NT.grad is None:
                    fresh_NT.grad = torch.zeros_like(fresh_NT)
                ranks.sum([fresh_NT.grad])
                backward_roots: list[tuple[Tensor, Tensor | None]] = [
                    (encoded_NT, fresh_NT.grad[local_rows]),
                    (config.language_weight * language_loss, None),
                ]
                backward_roots = [(end, gradient) for end, gradient in backward_roots if end.requires_grad]
                if backward_roots:
                    torch.autograd.backward(
                        [end for end, _ in backward_roots], [gradient for _, gradient in backward_roots]
                    )
                value[1] = language_loss.detach()
            ranks.sum([value])
            total = float(value[0]) + config.language_weight * float(value[1])
            training.check_finite(total, step="finetune", epoch=epoch)
            ranks.all_reduce_gradients(clipped_weights)
            torch.nn.utils.clip_grad_norm_(clipped_weights, config.gradient_clip)
            optimizer.step()
            if item_embedding is not None and rows_T is not None and own_TD is not None:
                item_embedding.apply_gradient(rows_T, own_TD)
            losses.append(total)
            if masked_lm is not None:
                language_losses.append(float(value[1]))
            progress.update(
                epoch * len(batches) + step + 1,
                config.epochs * len(batches),
                loss=total,
                lr=optimizer.param_groups[0]["lr"],
                valid=state["best"] if state["best"] >= 0 else float("nan"),
            )

        # Evaluation
        point = {"epoch": epoch, "loss": float(np.mean(losses))}
        if language_losses:
            point["language_loss"] = float(np.mean(language_losses))
        if (epoch + 1) % config.evaluate_every == 0 or epoch + 1 == config.epochs:
            if masked_lm is not None:  # every item as the encoder reads it now, for that is what will be served
                text_IT = encoders.encode_all(
                    reader, tokenizer, data.words, device=device, progress=Progress(), ranks=ranks
                )
            ensemble = TeacherEnsemble([(model, text_IT)], side_IS)
            told = rank_all(ensemble, data, valid, device=device, ranks=ranks).target_ranks
            point["valid_ndcg@10"] = valid_ndcg = training.ndcg_of_ranks(told, k=10)
            state["stale"] = 0 if valid_ndcg > state["best"] else state["stale"] + 1
            if valid_ndcg > state["best"]:
                state.update(best=valid_ndcg, best_epoch=epoch, weights=_cpu_state(model))
                if masked_lm is not None:
                    state.update(text=text_IT.clone(), reader=_cpu_state(reader))
        state["curve"].append(point)
        state["epoch"] = epoch + 1
        extra = {"language": masked_lm.state_dict(), "words": text_IT} if masked_lm is not None else {}
        if item_embedding is not None:
            extra["own_optimizer"] = item_embedding.optimizer.state_dict()
        if ranks.is_main:
            checkpointer.save({**state, **extra, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, rng)

    # Save: the best epoch is handed on, its adapters merged into the encoder's own weights
    model.load_state_dict(state["weights"])
    model.eval()
    counts = adapters.count_parameters(reader.backbone) if masked_lm is not None else (0, 0)
    if masked_lm is not None:
        reader.load_state_dict(state["reader"])
        reader.backbone = adapters.merge(reader.backbone)
        text_IT = state["text"].to(device)
    return TrainedTeacher(
        model=model,
        text_IT=text_IT,
        reader=reader,
        told={
            **{name: state[name] for name in ("best", "best_epoch", "curve")},
            "epochs": state["epoch"],
            "resumed_at": resumed_at,
            "at_start": state.get("at_start", -1.0),
            "encoder_weights": counts,
            "compiled": compiled,
        },
    )


def _build_teacher(
    data: Examples, text_size: int, side_size: int, *, config: FinetuneConfig, rng: np.random.Generator
) -> Teacher:
    """A fresh teacher for the catalogue of ``data``."""
    fusion = ItemFusion(
        items=len(data.item_ids),
        text_size=text_size,
        side_size=side_size,
        size=config.vector_size,
        own_dropout=config.own_dropout,
        known_I=torch.from_numpy(data.known_I),
    )
    tower = HistoryTower(
        size=config.vector_size,
        max_history=config.max_history,
        layers=config.layers,
        heads=config.heads,
        dropout=config.dropout,
    )
    train = data.splits["train"]
    sample = rng.permutation(len(train))[:512]
    random_items = rng.integers(0, len(data.item_ids), (len(sample), 16))
    sample_NF = torch.from_numpy(data.features(train, sample, random_items)).flatten(0, 1)
    model = Teacher(fusion=fusion, tower=tower, features=sample_NF.shape[1], heads=config.heads, dropout=config.dropout)
    model.standardize.fit(sample_NF)
    return model


def _draw_step(
    batch: list[tuple[Any, Any]],
    data: Examples,
    requests: int,
    masked_lm: MaskedLanguageModel | None,
    sampler: training.ItemSampler,
    *,
    rng: np.random.Generator,
    config: FinetuneConfig,
) -> StepInputs:
    """Everything random about one step, drawn for the whole of it."""
    items_BL, ratings_BL, next_BL = (part.numpy() for part in training.pad_windows(batch))
    visible_BL = augment.visible_events([len(items) - 1 for items, _ in batch], items_BL.shape[1], rng, config)
    fresh_N, masked = np.zeros(0, np.int64), None
    if masked_lm is not None:
        fresh_N = np.unique(rng.choice(np.unique(items_BL), config.encoder_items_per_step))
        masked = masked_lm.masked([data.words[i] for i in fresh_N], rng=rng)
    return StepInputs(
        items_BL=items_BL,
        ratings_BL=ratings_BL,
        next_BL=next_BL,
        visible_BL=visible_BL,
        fresh_N=fresh_N,
        masked=masked,
        rows_B=rng.integers(0, requests, config.requests_per_step),
        drawn_C=sampler(rng, config.negatives),
        sampled_S=sampler(rng, config.sampled_items) if config.sampled_items else np.zeros(0, np.int64),
    )


def _step_items(drawn: StepInputs, train: Any, target_R: Ints) -> Ints:
    """[T] the items that a step has to do with, sorted."""
    following = drawn.next_BL[drawn.next_BL >= 0]
    asked = (train.items_RL[drawn.rows_B], target_R[drawn.rows_B], drawn.drawn_C)
    return sampled_items.unique_items(drawn.items_BL, following, *asked, drawn.sampled_S, drawn.fresh_N)


def _cpu_state(model: Any) -> dict[str, Any]:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}

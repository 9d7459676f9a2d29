"""finetune: train the full-interaction teacher.

Reads    features/  (items, sequences, requests with features: see featurize)
Writes   teacher/   weights.safetensors, teacher.json, curve.json
                    encoder/ (the language model and its tokenizer), text_vectors.npy
                    soft.npz        its scores over candidate sets, for distillation
                    rankings.parquet  its and the untuned encoder's rankings of the frozen test requests

Shapes: B requests or windows, L history events, C candidates, I items, D vector size, H heads, W tokens.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from components.finetune.config import FinetuneConfig
from rankline.progress import Progress


def finetune(
    features: Path,
    teacher: Path,
    *,
    config: FinetuneConfig,
    progress: Progress,
    checkpoints: Path | None = None,
) -> dict[str, Any]:
    """Train the teacher on the features in ``features``; a killed run goes on from its last epoch.

    Raises:
        SourceError: the encoder is missing or not the one promised.
        DeviceError: the device asked for is not there.
        TrainingError: the loss became NaN.
    """
    import numpy as np
    import torch
    import torch.nn.functional as F
    from safetensors.torch import save_file

    from components.finetune import encoder as encoders
    from components.finetune.joint import LanguageHead
    from components.finetune.rankings import (
        best_unseen,
        mean_history,
        rank_all,
        score,
        soft_scores,
        write_rankings,
    )
    from rankline import examples, training
    from rankline.model import HEADS, HistoryTower, ItemFusion, Teacher

    # Data
    data = examples.read(features, max_history=config.max_history)
    train, valid, test = (data.splits[name] for name in ("train", "valid", "test"))
    device = training.pick_device(config.device)
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)

    # The language model reads every item once; these vectors stay as they are unless it is trained, too
    encoders.prepare(
        config.encoder, teacher / "encoder", words=data.words, sha256=config.encoder_sha256, seed=config.seed
    )
    tokenizer = encoders.tokenizer_of(teacher / "encoder", source=config.encoder, max_tokens=config.max_tokens)
    reader = encoders.read(teacher / "encoder", source=config.encoder).to(device)
    half = training.pick_autocast(config.precision, device)
    encoders.refuse_if_unfit(reader, tokenizer, source=config.encoder, max_tokens=config.max_tokens)
    progress.phase("reading the items' words")
    untuned_IT = encoders.encode_all(reader, tokenizer, data.words, device=device, progress=progress)
    text_IT = untuned_IT.clone()

    # Model
    side_IS = torch.from_numpy(data.side_IS).to(device)
    known_I = torch.from_numpy(data.known_I)
    fusion = ItemFusion(
        items=len(data.item_ids),
        text_size=reader.size,
        side_size=side_IS.shape[1],
        size=config.vector_size,
        own_dropout=config.own_dropout,
        known_I=known_I,
    )
    tower = HistoryTower(
        size=config.vector_size,
        max_history=config.max_history,
        layers=config.layers,
        heads=config.heads,
        dropout=config.dropout,
    )
    sample = rng.permutation(len(train))[:512]
    anything = rng.integers(0, len(data.item_ids), (len(sample), 16))
    seen_NF = torch.from_numpy(data.features(train, sample, anything)).flatten(0, 1)
    model = Teacher(fusion=fusion, tower=tower, features=seen_NF.shape[1], heads=config.heads, dropout=config.dropout)
    model.standardize.fit(seen_NF)
    model.to(device)
    language = LanguageHead(reader, tokenizer) if config.train_encoder else None
    if language is not None:
        language.to(device)

    # Optimizer: the encoder moves at its own, much smaller, rate
    groups = [{"params": list(model.parameters()), "peak": config.learning_rate}]
    if language is not None:
        groups.append({"params": list(language.parameters()), "peak": config.encoder_learning_rate})
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)

    # Negatives are drawn as often as items occur (softened), and the draw is corrected for in the loss
    counts_I = np.bincount(np.concatenate(data.sequences.items), minlength=len(data.item_ids))
    chance_I = (counts_I + 1.0) ** 0.75
    chance_I /= chance_I.sum()
    log_chance_I = torch.from_numpy(np.log(chance_I * config.negatives)).float().to(device)
    target_R = np.array([targets[0] for targets in train.targets], np.int64)
    like_R = np.array([ratings[0] for ratings in train.target_ratings], np.float32)

    keeper = training.Checkpoints(checkpoints)
    state = keeper.load(rng) or {"epoch": 0, "best": -1.0, "best_epoch": 0, "stale": 0, "curve": []}
    resumed_at = state["epoch"]
    if resumed_at:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if language is not None:
            language.load_state_dict(state["language"])
            text_IT = state["words"].to(device)

    # Loop
    progress.phase("training the teacher")
    for epoch in range(state["epoch"], config.epochs):
        if state["stale"] >= config.patience:
            break
        model.train()
        batches = training.window_batches(data.sequences.windows(rng, config.max_history), rng, config.batch_size)
        losses, language_losses = [], []
        for step, batch in enumerate(batches):
            fraction = (epoch + step / len(batches)) / config.epochs
            for group in optimizer.param_groups:
                group["lr"] = training.rate_at(fraction, peak=group["peak"], warm_up=config.warm_up)
            items_BL, ratings_BL, next_BL = (part.to(device) for part in training.pad(batch))

            language_loss = torch.zeros((), device=device)
            words_IT = text_IT
            if language is not None:
                # only some items are read with gradients in a step; the others keep their last vectors
                touched = rng.choice(np.unique(items_BL.cpu().numpy()), config.encoder_items_per_step)
                fresh_BT, language_loss = language.read(
                    [data.words[i] for i in np.unique(touched)], rng=rng, half=half, device=device
                )
                words_IT = text_IT.index_copy(0, torch.from_numpy(np.unique(touched)).to(device), fresh_BT)
                text_IT[torch.from_numpy(np.unique(touched)).to(device)] = fresh_BT.detach()
                language_losses.append(float(language_loss.detach()))
            fused_ID = model.fusion(words_IT, side_IS)

            # what comes next, at every position, among all items; F.embedding, because on several threads the
            # gradient of fused_ID[...] is summed in whatever order they come, and no run would be like another
            hidden_BLD = model.tower.hidden(F.embedding(items_BL, fused_ID), ratings_BL)
            here = next_BL >= 0
            next_loss = F.cross_entropy(hidden_BLD[here] @ fused_ID.T, next_BL[here])

            # which of some candidates, given everything
            rows = rng.integers(0, len(train), config.requests_per_step)
            drawn_C = rng.choice(len(data.item_ids), config.negatives, p=chance_I)
            candidates_BC = np.concatenate([target_R[rows, None], np.tile(drawn_C, (len(rows), 1))], 1)
            logits_BCH = score(model, fused_ID, data, train, rows, candidates_BC, device)
            candidates = torch.from_numpy(candidates_BC).to(device)
            click_BC = logits_BCH[:, :, 0] - log_chance_I[candidates]
            repeated = candidates[:, 1:] == candidates[:, :1]
            click_BC[:, 1:] = click_BC[:, 1:].masked_fill(repeated, -1e4)
            ranking_loss = F.cross_entropy(click_BC, torch.zeros(len(rows), dtype=torch.long, device=device))
            rated = torch.from_numpy(like_R[rows]).to(device)
            like_loss = F.binary_cross_entropy_with_logits(
                logits_BCH[:, 0, 1], (rated >= 4).float(), weight=(rated > 0).float()
            )

            loss = (
                ranking_loss
                + config.next_item_weight * next_loss
                + config.like_weight * like_loss
                + config.language_weight * language_loss
            )
            value = float(loss.detach())
            training.check_finite(value, step="finetune", epoch=epoch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], config.gradient_clip)
            optimizer.step()
            losses.append(value)
            progress.update(
                epoch * len(batches) + step + 1,
                config.epochs * len(batches),
                loss=value,
                lr=optimizer.param_groups[0]["lr"],
                valid=state["best"] if state["best"] >= 0 else float("nan"),
            )

        # Evaluation
        point = {"epoch": epoch, "loss": float(np.mean(losses))}
        if language_losses:
            point["language_loss"] = float(np.mean(language_losses))
        if (epoch + 1) % config.evaluate_every == 0 or epoch + 1 == config.epochs:
            if language is not None:  # every item as the encoder reads it now, for that is what will be served
                text_IT = encoders.encode_all(reader, tokenizer, data.words, device=device, progress=Progress())
            ranks = rank_all(model, text_IT, side_IS, data, valid, device=device).target_ranks
            point["valid_ndcg@10"] = reached = training.ndcg_of_ranks(ranks, k=10)
            state["stale"] = 0 if reached > state["best"] else state["stale"] + 1
            if reached > state["best"]:
                state.update(best=reached, best_epoch=epoch, weights=_copied(model), text=text_IT.clone())
                if language is not None:
                    state["reader"] = _copied(reader)
        state["curve"].append(point)
        state["epoch"] = epoch + 1
        extra = {"language": language.state_dict(), "words": text_IT} if language is not None else {}
        keeper.save({**state, **extra, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, rng)

    # Save the best, and what the steps after this one need of it
    model.load_state_dict(state["weights"])
    text_IT = state["text"].to(device)
    if language is not None:
        reader.load_state_dict(state["reader"])
        reader.backbone.save_pretrained(teacher / "encoder")
    model.eval()
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, teacher / "weights.safetensors")
    np.save(teacher / "text_vectors.npy", text_IT.cpu().numpy())
    sizes = {name: getattr(config, name) for name in ("vector_size", "max_history", "layers", "heads")}
    (teacher / "teacher.json").write_text(
        json.dumps({**sizes, "max_tokens": config.max_tokens, "label_heads": list(HEADS)}, indent=2)
    )
    (teacher / "curve.json").write_text(json.dumps(state["curve"], indent=2))
    progress.phase("scoring candidates for the student")
    soft = {
        split: soft_scores(
            model, text_IT, side_IS, data, data.splits[split],
            count=config.soft_candidates, chance_I=chance_I, seed=config.seed, device=device, progress=progress,
        )
        for split in ("train", "valid")
    }  # fmt: skip
    np.savez(
        teacher / "soft.npz",
        **{f"{split}_{part}": values for split, pair in soft.items() for part, values in pair.items()},
    )
    progress.phase("ranking the frozen requests")
    ranked = rank_all(model, text_IT, side_IS, data, test, device=device, depth=config.rankings_depth)
    untuned_RI = mean_history(untuned_IT, test)
    write_rankings(
        teacher / "rankings.parquet",
        data.item_ids,
        test.ids,
        {"teacher": ranked.best_RK, "untuned_encoder": best_unseen(untuned_RI, test, config.rankings_depth)},
    )
    keeper.clear()
    return {
        "valid_ndcg@10": round(state["best"], 4),
        "best_epoch": state["best_epoch"],
        "epochs": state["epoch"],
        "resumed_at_epoch": resumed_at,
        "requests": len(train),
        "device": str(device),
        "encoder": "trained jointly" if language is not None else "frozen",
        "encoder_precision": "bf16" if half and language is not None else "fp32",
    }


def _copied(model: Any) -> dict[str, Any]:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}

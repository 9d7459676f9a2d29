"""The work of finetune in its order: data, encoder, teachers, cross-encoder, labels, save.

Shapes: I items, A test requests with a query, T text size, S side size.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor

from components.finetune import cross_encoder, warm_start
from components.finetune import encoder as encoders
from components.finetune.centroids import centroids
from components.finetune.context import TrainingContext
from components.finetune.cross_encoder import CrossEncoderScorer
from components.finetune.encoder import EncoderSource
from components.finetune.language.adaptation import adapt
from components.finetune.sequence import model as sequence_model
from components.finetune.sequence import rankings
from components.finetune.sequence.inputs import TeacherInputs
from components.finetune.sequence.model import TrainedTeacher
from components.finetune.sequence.rankings import TeacherEnsemble
from components.finetune.soft_labels import CombinedTeacher, UntunedVectors
from components.finetune.warm_start import WarmWeights
from rankline.model.networks import HEADS, TextEncoder
from rankline.runtime.progress import Progress
from rankline.text import Tokenizer
from rankline.train.champion_weights import ORIGIN, SCRATCH, WarmStart
from rankline.train.checkpoints import Checkpoints
from rankline.train.encode import encode_all
from rankline.train.examples import Examples, read_examples
from rankline.train.fit import History
from rankline.train.ranks import ndcg_of_ranks


@dataclass(frozen=True)
class TrainedModels:
    """What the trainings of a run produced: sequence teachers, a cross-encoder, an adapted encoder."""

    members: list[TrainedTeacher]
    cross_encoder: tuple[CrossEncoderScorer, History] | None
    adapted: dict[str, Any] | None

    def ensemble(self, side_IS: Tensor) -> TeacherEnsemble | None:
        """The sequence teachers together."""
        members = [(trained.model, trained.text_IT) for trained in self.members]
        return TeacherEnsemble(members, side_IS) if members else None


def train_teacher(
    features: Path, teacher: Path, context: TrainingContext, start: WarmStart | None = None
) -> dict[str, Any]:
    """Train the teacher on ``features`` and write it to ``teacher``; the step's result."""
    config = context.config
    data = read_examples(features, max_history=config.max_history)
    warm = warm_start.open_weights(start, data, config)
    torch.manual_seed(config.seed)

    encoder, tokenizer = _load_encoder(teacher, data, warm, context)
    text_IT, untuned = _encode_untuned(encoder, tokenizer, data, warm, context)
    adapted = None
    if config.adapt_steps:
        adapted = adapt(encoder, tokenizer, _all_texts(data), context.in_folder("adapt"))
        torch.manual_seed(config.seed)
        context.progress.phase("encoding the items again")
        text_IT = _encode(encoder, tokenizer, data.item_texts, context)

    _encode_profiles(encoder, tokenizer, data, context)
    side_IS = torch.from_numpy(data.side_IS).to(context.device)
    inputs = TeacherInputs(data, encoder, tokenizer, text_IT, side_IS)
    members = _train_members(inputs, warm, context)
    if not context.distributed.is_main:  # the rest is the work of one process
        return {}
    models = TrainedModels(members, _train_cross_encoder(inputs, warm, teacher, context), adapted)
    _save(teacher, models, inputs, context)
    origin = warm_start.origin_metadata(data, config, warm, start, text_size=encoder.size)
    (teacher / ORIGIN).write_text(json.dumps(origin, indent=2))

    combined = CombinedTeacher(
        data, models.ensemble(side_IS), models.cross_encoder[0] if models.cross_encoder else None, untuned, config
    )
    soft = _write_labels(teacher, data, combined, context.progress)
    result = {
        "requests": len(data.splits["train"]),
        "device": str(context.device),
        "encoder": "trained jointly" if config.train_encoder else "frozen",
        "encoder_precision": "bf16" if context.use_bf16 and config.train_encoder else "fp32",
        **_training_result(models, combined, context),
        **_ensemble_result(models, inputs, soft, context),
        **_warm_result(models, data, warm, context),
    }
    Checkpoints(context.checkpoints).clear()
    return result


def _all_texts(data: Examples) -> list[str]:
    return [*data.item_texts, *data.train_queries]


def _encode(encoder: TextEncoder, tokenizer: Tokenizer, texts: list[str], context: TrainingContext) -> Tensor:
    """[I, T] the vectors of texts; several processes share the work."""
    return encode_all(
        encoder, tokenizer, texts, device=context.device, progress=context.progress, distributed=context.distributed
    )


def _load_encoder(
    teacher: Path, data: Examples, warm: WarmWeights, context: TrainingContext
) -> tuple[TextEncoder, Tokenizer]:
    """Lay the encoder into the teacher's folder and load it; the first of several processes gives it to all."""
    config, is_main = context.config, context.distributed.is_main
    with tempfile.TemporaryDirectory() as scratch:
        folder = teacher / "encoder" if is_main else Path(scratch)
        if is_main and warm.folder and warm.own_encoder:
            shutil.copytree(warm.folder / "encoder", folder)
        elif is_main:
            encoders.prepare_encoder(EncoderSource.of(config), folder, texts=_all_texts(data), seed=config.seed)
        context.distributed.broadcast_files(folder, encoders.ENCODER_FILES)
        tokenizer = encoders.load_tokenizer(folder, source=config.encoder, max_tokens=config.max_tokens)
        encoder = encoders.load_encoder(folder, source=config.encoder).to(context.device)
    encoders.check_compatible(encoder, tokenizer, source=config.encoder, max_tokens=config.max_tokens)
    return encoder, tokenizer


def _encode_untuned(
    encoder: TextEncoder, tokenizer: Tokenizer, data: Examples, warm: WarmWeights, context: TrainingContext
) -> tuple[Tensor, UntunedVectors]:
    """[I, T] the items' vectors, and those of the encoder that nobody trained, which evaluation compares with."""
    config, device = context.config, context.device
    context.progress.phase("encoding the items")
    text_IT = _encode(encoder, tokenizer, data.item_texts, context)
    test = data.splits["test"]
    queries = [test.queries[row] for row in test.query_rows]
    if not (warm.own_encoder and context.distributed.is_main):
        return text_IT, _untuned_vectors(encoder, tokenizer, data, queries, context, text_IT.cpu().numpy())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "encoder"
        encoders.prepare_encoder(EncoderSource.of(config), folder, texts=_all_texts(data), seed=config.seed)
        encoder = encoders.load_encoder(folder, source=config.encoder).to(device)
        tokenizer = encoders.load_tokenizer(folder, source=config.encoder, max_tokens=config.max_tokens)
    untuned = _untuned_vectors(encoder, tokenizer, data, queries, context)
    torch.manual_seed(config.seed)
    return text_IT, untuned


def _untuned_vectors(
    encoder: TextEncoder,
    tokenizer: Tokenizer,
    data: Examples,
    queries: list[str],
    context: TrainingContext,
    items_IT: npt.NDArray[np.float32] | None = None,
) -> UntunedVectors:
    """The vectors of queries and labels, and those of items unless they are known."""

    def encode(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return encode_all(encoder, tokenizer, list(texts), device=context.device, progress=Progress()).cpu().numpy()

    items_IT = encode(data.item_texts) if items_IT is None else items_IT
    return UntunedVectors(items_IT, encode(queries), centroids(data, encode, seed=context.config.seed))


def _encode_profiles(encoder: TextEncoder, tokenizer: Tokenizer, data: Examples, context: TrainingContext) -> None:
    """Encode the texts of users, as the encoder reads them before it is trained with a teacher."""
    if data.profile is None or not data.profile.texts:
        return
    for requests in data.splits.values():
        if requests.profiles is not None:
            requests.profiles.text_UT = _encode(encoder, tokenizer, requests.profiles.texts, context).to(context.device)


def _train_members(inputs: TeacherInputs, warm: WarmWeights, context: TrainingContext) -> list[TrainedTeacher]:
    """Train the sequence teachers, each from its own seed; none where there are no users."""
    config, members = context.config, []
    warm_config = config
    if warm.model_id and config.warm_epochs:
        warm_config = config.model_copy(update={"epochs": config.warm_epochs})
    copied = config.train_encoder and config.teachers > 1
    for member in range(config.teachers if inputs.data.has_users else 0):
        label = f" {member + 1} of {config.teachers}" if config.teachers > 1 else ""
        context.progress.phase(f"training the teacher{label}")
        if member:
            torch.manual_seed(config.seed + member)
        is_warm = warm.has_member(member)
        load_weights = functools.partial(warm.load_weights, data=inputs.data, member=member)
        own = context.in_folder(f"teacher-{member}") if member else context
        members.append(
            sequence_model.train(
                dataclasses.replace(inputs, encoder=copy.deepcopy(inputs.encoder)) if copied else inputs,
                own.with_config(warm_config if is_warm else config),
                seed=config.seed + member,
                load_weights=load_weights if is_warm else None,
            )
        )
    return members


def _train_cross_encoder(
    inputs: TeacherInputs, warm: WarmWeights, teacher: Path, context: TrainingContext
) -> tuple[CrossEncoderScorer, History] | None:
    if not inputs.data.has_queries:
        return None
    return cross_encoder.train(
        inputs,
        context.in_folder("pairs"),
        folder=teacher / "encoder",
        load_weights=warm.load_cross_encoder if warm.folder else None,
    )


def _save(teacher: Path, models: TrainedModels, inputs: TeacherInputs, context: TrainingContext) -> None:
    """Write the weights, their curves, and what the later steps read of the settings."""
    config = context.config
    if models.cross_encoder is not None:
        scorer, history = models.cross_encoder
        save_file(scorer.weights(), teacher / "pairs.safetensors")
        (teacher / "pairs.json").write_text(json.dumps(history.curve, indent=2))
    if models.members and config.train_encoder:  # the first teacher's encoder is the one that is kept
        models.members[0].encoder.backbone.save_pretrained(teacher / "encoder")
    elif config.adapt_steps:
        inputs.encoder.backbone.save_pretrained(teacher / "encoder")
    if not models.members:
        np.save(teacher / "text_vectors.npy", inputs.text_IT.cpu().numpy())
    for member, trained in enumerate(models.members):
        suffix = f"-{member}" if member else ""
        weights = {name: value.contiguous() for name, value in trained.model.state_dict().items()}
        save_file(weights, teacher / f"weights{suffix}.safetensors")
        if not member or config.train_encoder:
            np.save(teacher / f"text_vectors{suffix}.npy", trained.text_IT.cpu().numpy())
        (teacher / f"curve{suffix}.json").write_text(json.dumps(trained.history.curve, indent=2))
    sizes = {name: getattr(config, name) for name in (*warm_start.SIZES, "max_tokens")}
    (teacher / "teacher.json").write_text(json.dumps({**sizes, "label_heads": list(HEADS)}, indent=2))
    warm_start.write_items(teacher / "items.parquet", inputs.data)
    if models.adapted is not None:
        (teacher / "adaptation.json").write_text(json.dumps(models.adapted, indent=2))


def _write_labels(
    teacher: Path, data: Examples, combined: CombinedTeacher, progress: Progress
) -> dict[str, dict[str, Any]]:
    """Write the soft labels for the student and the rankings for evaluation; the soft labels of each split."""
    soft = {split: combined.soft_labels(split, progress=progress) for split in ("train", "valid")}
    arrays: dict[str, Any] = {
        f"{split}_{part}": values for split, labels in soft.items() for part, values in labels.items()
    }
    np.savez(teacher / "soft.npz", **arrays)
    progress.phase("ranking the test requests")
    rankings.write_rankings(teacher / "rankings.parquet", data.item_ids, data.splits["test"].ids, combined.rankings())
    return soft


def _training_result(models: TrainedModels, combined: CombinedTeacher, context: TrainingContext) -> dict[str, Any]:
    """What the trainings reached."""
    config, result = context.config, dict[str, Any]()
    if models.members:
        first = models.members[0]
        result |= {
            "valid_ndcg@10": round(first.history.best, 4),
            "best_epoch": first.history.best_epoch,
            "epochs": first.history.epochs,
            "resumed_at_epoch": first.history.resumed_at,
        }
        if config.train_encoder:
            result["encoder_weights_trained"], result["encoder_weights"] = first.encoder_weights
        if config.compile:
            result["compiled"] = first.compiled
    if models.cross_encoder is not None:
        history = models.cross_encoder[1]
        result |= {
            "pairs_valid_ndcg@10": round(history.best, 4),
            "pairs_best_epoch": history.best_epoch,
            "pairs_resumed_at_epoch": history.resumed_at,
            "pairs_weight": combined.weight,
        }
    if models.adapted is not None:
        result |= {name: round(models.adapted[name], 2) for name in ("perplexity_before", "perplexity_after")}
    if context.distributed.world_size > 1:
        result["processes"] = context.distributed.world_size
    return result


def _ensemble_result(
    models: TrainedModels, inputs: TeacherInputs, soft: dict[str, dict[str, Any]], context: TrainingContext
) -> dict[str, Any]:
    """What several teachers reach together, and how far they disagree."""
    ensemble = models.ensemble(inputs.side_IS)
    if ensemble is None or context.config.teachers == 1:
        return {}
    ranked = rankings.rank_all(ensemble, inputs.data, inputs.data.splits["valid"])
    return {
        "valid_ndcg@10": round(ndcg_of_ranks(ranked.target_ranks, k=10), 4),
        "teachers_valid_ndcg@10": [round(trained.history.best, 4) for trained in models.members],
        "teachers_deviation": round(float(soft["valid"]["deviation"].mean()), 4),
    }


def _warm_result(models: TrainedModels, data: Examples, warm: WarmWeights, context: TrainingContext) -> dict[str, Any]:
    """What the run started from."""
    if not context.config.warm_start:
        return {}
    members, first_is_warm = models.members, bool(models.members) and warm.has_member(0)
    result: dict[str, Any] = {"began_from": warm.model_id or SCRATCH, "began_why": warm.why}
    if warm.folder:
        matched = len(warm.matched_rows(data)) if first_is_warm else 0
        result["items_found_again"] = f"{matched} of {len(data.item_ids)}"
        if cold := sum(not warm.has_member(member) for member in range(len(members))):
            result["teachers_from_scratch"] = f"{cold} of {len(members)}"
    if first_is_warm:
        result["valid_ndcg@10_at_start"] = round(members[0].history.at_start, 4)
    return result

"""The work of distill in its order: towers, candidate sources, scorer, calibration, save.

The towers learn from the ground truth and the teacher's soft labels; the candidate sources are counted from the
training sequences; the scorer weighs them all. The scorer learns from the validation requests, which the towers have
not seen: on training requests the towers look better than they are.

Shapes: I items, D vector size, R requests, C candidates.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sparse
import torch
from safetensors.torch import load_file, save_file

from components.distill import calibration, choice, head_calibration, scorer, towers_trainer
from components.distill.candidate_table import CandidateDrawer
from components.distill.config import DistillConfig
from components.distill.encode import EncodedTexts
from components.distill.impressions import Impressions, check_order, declared_labels
from components.distill.profile_vectors import ProfileVectors
from components.distill.scorer import ScorerInputs
from components.distill.towers import Towers
from components.distill.towers_trainer import TowersInputs
from rankline.evaluation.snapshot_requests import read_exposures, read_snapshot_requests
from rankline.features import candidate_sources, label_values
from rankline.features.bm25 import Bm25
from rankline.features.label_values import liked_from
from rankline.features.profile import ProfileEncoder, ProfileFields
from rankline.features.rating_scale import history_scale
from rankline.features.words import word_vectors
from rankline.labels import Label
from rankline.model.networks import HEADS, LabelHeads, Scorer, TextEncoder
from rankline.model.order import RANK
from rankline.model.policy import POLICY_FILE, ServingPolicy
from rankline.model.scoring import CandidateSettings, Catalogue, feature_names
from rankline.runtime.progress import Progress
from rankline.text import Tokenizer
from rankline.train.checkpoints import Checkpoints
from rankline.train.device import pick_device
from rankline.train.examples import Examples, read_examples
from rankline.train.fit import History


@dataclass(frozen=True)
class TrainedTowers:
    """The towers at their best, with the texts as their encoder reads them."""

    model: Towers
    texts: EncodedTexts
    history: History
    encoder_weights: tuple[int, int]  # trained, and all
    loaded_tensors: int  # taken from the teacher


def train_student(
    features: Path,
    teacher: Path,
    student: Path,
    config: DistillConfig,
    *,
    progress: Progress,
    checkpoints: Path | None = None,
) -> dict[str, Any]:
    """Train the student and write it to ``student``; the step's result."""
    device = pick_device(config.device)
    torch.manual_seed(config.seed)
    data = read_examples(features, max_history=config.max_history)
    labels = declared_labels(features)
    check_order(config.order, labels, features)
    soft = np.load(teacher / "soft.npz")

    towers = _train_towers(teacher, data, soft, config, progress=progress, checkpoints=checkpoints)
    drawer = _candidate_drawer(towers, data, config)

    progress.phase("drawing candidates")
    soft_labels = zip(soft["valid_candidates"], soft["valid_logits"]) if config.scorer_soft_weight else ()
    inputs = ScorerInputs.draw(
        list(read_snapshot_requests(features, "valid")),
        drawer,
        dict(zip(data.splits["valid"].ids, soft_labels)),
        heads=1 if labels else len(HEADS),
        liked=liked_from(data.summary),
        progress=progress,
    )
    progress.phase("choosing what ranks")
    chosen = choice.choose(inputs, config, device=device, progress=progress)
    trained_scorer, history = choice.fit(chosen, inputs, config, device=device, progress=progress)
    policy, calibrated = _calibrate(chosen, inputs, config, device=device, progress=progress)

    heads = None
    if labels:
        progress.phase("training the heads of the labels")
        impressions = Impressions.draw(list(read_exposures(features, "valid")), drawer, labels, progress=progress)
        heads = head_calibration.fit_labels(impressions, drawer.catalogue, config, device=device)
        policy = policy.model_copy(update={"heads": heads.policies})
        calibrated |= {"heads": heads.reached}
    scale = history_scale(label_values.declared_labels(data.summary))
    policy = policy.model_copy(update={"order": config.order, "rating_scale": scale})

    _save(student, towers, trained_scorer, heads.model if heads else None, drawer.catalogue, teacher)
    (student / POLICY_FILE).write_text(policy.model_dump_json(indent=2) + "\n")
    curves = {"towers": towers.history.curve, "scorer": history.curve}
    settings = _settings(teacher, data, drawer, config, labels) | {"ranks_by": chosen.kind}
    documents = {"curve": curves, "student": settings, "choice": chosen.summary(inputs)}
    documents |= {"heads": heads.reached} if heads else {}
    for name, content in documents.items():
        (student / f"{name}.json").write_text(json.dumps(content, indent=2))
    progress.phase("scoring the test requests")
    table = drawer.draw(list(read_snapshot_requests(features, "test")), progress=progress)
    scorer.write_parity(student / "parity.parquet", table, trained_scorer, drawer.catalogue)
    Checkpoints(checkpoints).clear()
    return {
        **_towers_result(towers),
        "candidates_recall": round(inputs.table.recall, 4),
        "candidates_mean": round(inputs.table.mean_candidates, 1),
        **chosen.summary(inputs),
        **calibrated,
        **_encoder_result(towers, config),
        "device": str(device),
    }


def _calibrate(
    chosen: choice.Choice, inputs: ScorerInputs, config: DistillConfig, *, device: torch.device, progress: Progress
) -> tuple[ServingPolicy, dict[str, Any]]:
    """The policy of a calibrated model where the settings ask for one, and what it reaches."""
    if config.calibrate == "none" or not inputs.table.rows:
        return ServingPolicy(), {}
    return calibration.fit_policy(
        inputs,
        lambda fold: choice.fit(chosen, inputs, config, device=device, progress=progress, excluded_rows=fold)[0],
        config=config,
    )


def _teacher_settings(teacher: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((teacher / "teacher.json").read_text())
    return settings


def _train_towers(
    teacher: Path, data: Examples, soft: Any, config: DistillConfig, *, progress: Progress, checkpoints: Path | None
) -> TrainedTowers:
    """Train the towers, from the teacher's weights where `from_teacher` asks for it."""
    settings, folder = _teacher_settings(teacher), teacher / "encoder"
    text_IT = torch.from_numpy(np.load(teacher / "text_vectors.npy"))
    progress.phase("encoding the queries")
    texts = EncodedTexts(
        data,
        TextEncoder.load(folder),
        Tokenizer(folder / "tokenizer.json", max_tokens=settings["max_tokens"]),
        text_IT,
        device=pick_device(config.device),
    )
    model = Towers.make(data, text_size=text_IT.shape[1], size=settings["vector_size"], config=config)
    if data.has_queries:
        model.fusion.init_from_text(text_IT, likeness=config.likeness)
    weights_path = teacher / "weights.safetensors"
    weights = load_file(weights_path) if weights_path.is_file() else {}  # a teacher of queries alone has none
    loaded_tensors = model.load_matching(weights) if config.from_teacher else 0
    del weights  # with a large catalogue they are large as well
    inputs = TowersInputs(data, texts, soft["train_candidates"], soft["train_logits"])
    history, encoder_weights = towers_trainer.train(model, inputs, config, progress=progress, checkpoints=checkpoints)
    return TrainedTowers(model, texts, history, encoder_weights, loaded_tensors)


def _candidate_drawer(towers: TrainedTowers, data: Examples, config: DistillConfig) -> CandidateDrawer:
    """Count the other sources from the training sequences, and combine them with the towers."""
    model, texts, sequences = towers.model, towers.texts, data.sequences.items
    covisit = candidate_sources.covisitation(
        sequences,
        len(data.item_ids),
        window=config.covisit_window,
        step_decay=config.covisit_step_decay,
        max_neighbours=config.covisit_neighbours,
    )
    bm25 = Bm25.from_texts(data.item_texts, stemmer=config.stemmer, k1=config.bm25_k1, b=config.bm25_b)
    catalogue = Catalogue(
        item_ids=data.item_ids,
        index=data.index,
        vectors_ID=model.item_vectors(texts.items_IT.cpu()),
        categories_IC=data.categories_IC,
        vocabulary=data.vocabulary,
        covisit=covisit,
        popularity_I=candidate_sources.popularity(sequences, len(data.item_ids)),
        bm25=bm25 if data.has_queries else None,
        words_IV=word_vectors(data.item_texts, stemmer=config.stemmer) if data.has_users else None,
    )
    queries = {
        request: vector_D
        for split in ("valid", "test")
        for request, vector_D in model.query_vectors(data.splits[split], texts.queries[split].cpu()).items()
    }
    settings = CandidateSettings(
        candidates_per_source=config.candidates_per_source,
        covisit_decay=config.covisit_decay,
        max_history=config.max_history,
    )
    names = feature_names(users=data.has_users, queries=data.has_queries, service=data.summary["service"])
    profile = None if data.profile is None else ProfileVectors(data.profile, model, texts)
    return CandidateDrawer(model.tower, catalogue, settings, names, queries, profile)


def _save(
    student: Path,
    towers: TrainedTowers,
    trained_scorer: Scorer,
    heads: LabelHeads | None,
    catalogue: Catalogue,
    teacher: Path,
) -> None:
    """Write the weights, the text tower and the candidate sources."""
    (student / "sources").mkdir(parents=True)
    weights = {f"towers.{name}": value for name, value in towers.model.state_dict().items()}
    weights |= {f"scorer.{name}": value for name, value in trained_scorer.state_dict().items()}
    weights |= {f"labels.{name}": value for name, value in heads.state_dict().items()} if heads else {}
    save_file({name: value.cpu().contiguous() for name, value in weights.items()}, student / "weights.safetensors")
    shutil.copytree(teacher / "encoder", student / "encoder")
    if towers.texts.is_trained:
        towers.texts.encoder.cpu().backbone.save_pretrained(student / "encoder")
    np.save(student / "text_vectors.npy", towers.texts.items_IT.cpu().numpy())
    sparse.save_npz(student / "sources" / "covisit.npz", catalogue.covisit)
    np.save(student / "sources" / "popularity.npy", catalogue.popularity_I)


def _settings(
    teacher: Path, data: Examples, drawer: CandidateDrawer, config: DistillConfig, labels: Mapping[str, Label]
) -> dict[str, Any]:
    """The content of student.json: what export needs to load the student and to serve it alike."""
    settings = _teacher_settings(teacher)
    return {
        "vector_size": settings["vector_size"],
        "max_tokens": settings["max_tokens"],
        "heads": [RANK, *labels] if labels else list(HEADS),
        "scorer_hidden": config.scorer_hidden,
        "scorer_pair": config.scorer_pair,
        **({"label_hidden": config.label_hidden} if labels else {}),
        "tower": {name: getattr(config, name) for name in ("max_history", "layers", "heads")},
        "knobs": {"candidates_per_source": config.candidates_per_source, "covisit_decay": config.covisit_decay},
        "features": drawer.names.model_dump(),
        "turns": data.summary["turns"],
        "users": data.has_users,
        "side": data.side.model_dump(),
        **_profile_settings(data),
        "history_words": {"stemmer": config.stemmer} if data.has_users else None,
        "bm25": {"stemmer": config.stemmer, "k1": config.bm25_k1, "b": config.bm25_b} if data.has_queries else None,
    }


def _profile_settings(data: Examples) -> dict[str, Any]:
    """How the declared fields are encoded, where there are any."""
    if data.profile is None:
        fields = ProfileFields(**data.summary.get("profile", {}))
        return {"profile": ProfileEncoder(columns=[], time_zone=True).model_dump()} if fields.time_zone else {}
    return {"profile": data.profile.model_dump()}


def _towers_result(towers: TrainedTowers) -> dict[str, Any]:
    return {
        "towers_valid_ndcg@10": round(towers.history.best, 4),
        "towers_best_epoch": towers.history.best_epoch,
        "resumed_at_epoch": towers.history.resumed_at,
        "from_teacher": f"{towers.loaded_tensors} tensors",
    }


def _encoder_result(towers: TrainedTowers, config: DistillConfig) -> dict[str, Any]:
    if not config.train_encoder:
        return {}
    return dict(zip(("encoder_weights_trained", "encoder_weights"), towers.encoder_weights))

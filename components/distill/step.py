"""distill: from the teacher to a student that is built to be served.

Reads    features/  teacher/
Writes   student/   weights.safetensors, student.json, curve.json
                    encoder/, text_vectors.npy     the text tower
                    sources/covisit.npz, sources/popularity.npy
                    policy.json                    how sure it is, and when it abstains
                    parity.parquet                 candidates and torch's logits for the frozen test requests

Three things are learnt, one after the other: the two towers (ground truth and the teacher's soft scores), the
candidate sources (counted from the training sequences), and the scorer that mixes them. The scorer learns from
the validation requests, which the towers have not seen: on training requests they look better than they are.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from components.distill.config import DistillConfig
from rankline.runtime.progress import Progress


def distill(
    features: Path,
    teacher: Path,
    student: Path,
    *,
    config: DistillConfig,
    progress: Progress,
    checkpoints: Path | None = None,
) -> dict[str, Any]:
    """Make the student of the teacher in ``teacher``; a killed run goes on from its last epoch.

    Raises:
        DeviceError: the device asked for is not there.
        TooSmall: there are too few validation requests to learn the mix from.
        TrainingError: the loss became NaN.
        UsageError: the adapters asked for have no place in the encoder.
    """
    import numpy as np
    import scipy.sparse as sparse
    import torch
    from safetensors.torch import load_file, save_file

    from components.distill import calibration, towers
    from components.distill import scorer as mix
    from components.distill.encode import EncodedTexts
    from rankline.evaluation import snapshot_requests
    from rankline.features import candidate_sources
    from rankline.features.bm25 import Bm25
    from rankline.model.networks import HEADS, TextEncoder
    from rankline.model.policy import POLICY_FILE, ServingPolicy
    from rankline.model.scoring import CandidateSettings, Catalogue, feature_names
    from rankline.text import Tokenizer
    from rankline.train import examples, training

    device = training.pick_device(config.device)
    torch.manual_seed(config.seed)
    data = examples.read_examples(features, max_history=config.max_history)
    teacher_settings = json.loads((teacher / "teacher.json").read_text())
    teacher_weights_path = teacher / "weights.safetensors"
    teacher_weights = (
        load_file(teacher_weights_path) if teacher_weights_path.is_file() else {}
    )  # a teacher of queries alone has none
    text_IT = torch.from_numpy(np.load(teacher / "text_vectors.npy"))
    soft = np.load(teacher / "soft.npz")

    # The towers
    encoder = teacher / "encoder"
    progress.phase("reading the queries")
    reading = EncodedTexts(
        data,
        TextEncoder.read(encoder),
        Tokenizer(encoder / "tokenizer.json", max_tokens=teacher_settings["max_tokens"]),
        text_IT,
        device=device,
    )
    model = towers.Towers.make(data, text_size=text_IT.shape[1], size=teacher_settings["vector_size"], config=config)
    if data.has_queries:
        model.fusion.init_from_text(text_IT, likeness=config.likeness)
    loaded_tensors = model.load_matching(teacher_weights) if config.from_teacher else 0
    del teacher_weights  # with a large catalogue they are large, too
    towers_summary = towers.train(
        model, data, reading, soft, config=config, device=device, progress=progress, checkpoints=checkpoints
    )
    vectors_ID = model.item_vectors(reading.items_IT.cpu())
    queries = {
        request: vector_D
        for split in ("valid", "test")
        for request, vector_D in model.query_vectors(data.splits[split], reading.queries[split].cpu()).items()
    }

    # The other sources, from the training sequences alone
    covisit = candidate_sources.covisitation(
        data.sequences.items,
        len(data.item_ids),
        window=config.covisit_window,
        step_decay=config.covisit_step_decay,
        max_neighbours=config.covisit_neighbours,
    )
    popularity_I = candidate_sources.popularity(data.sequences.items, len(data.item_ids))
    words = Bm25.from_texts(data.words, stemmer=config.stemmer, k1=config.bm25_k1, b=config.bm25_b)

    # The scorer that mixes them
    catalogue = Catalogue(
        item_ids=data.item_ids,
        index=data.index,
        vectors_ID=vectors_ID,
        categories_IC=data.categories_IC,
        vocabulary=data.vocabulary,
        covisit=covisit,
        popularity_I=popularity_I,
        bm25=words if data.has_queries else None,
    )
    settings = CandidateSettings(
        candidates_per_source=config.candidates_per_source,
        covisit_decay=config.covisit_decay,
        max_history=config.max_history,
    )
    names = feature_names(users=data.has_users, queries=data.has_queries)
    progress.phase("drawing candidates")
    valid = list(snapshot_requests.read_snapshot_requests(features, "valid"))
    soft_rows = {request: row for row, request in enumerate(data.splits["valid"].ids)}
    table = mix.CandidateTable.draw(valid, model.tower, catalogue, settings, names, queries=queries, progress=progress)

    def train_scorer(rows: Any) -> tuple[Any, dict[str, Any]]:
        """A scorer that has not seen some of the validation requests."""
        return mix.train(
            table,
            valid,
            catalogue,
            soft=(soft["valid_candidates"], soft["valid_logits"], soft_rows),
            names=names,
            config=config,
            device=device,
            progress=progress,
            tower=model.tower,
            queries=queries,
            excluded_rows=rows,
        )

    scorer, scorer_summary = train_scorer(mix.NO_ROWS)
    policy, calibrated = ServingPolicy(), {}
    if config.calibrate != "none":
        policy, calibrated = calibration.fit_policy(
            table, catalogue, names, lambda rows: train_scorer(rows)[0], config=config
        )

    # Save
    (student / "sources").mkdir(parents=True)
    weights = {f"towers.{name}": value for name, value in model.state_dict().items()}
    weights |= {f"scorer.{name}": value for name, value in scorer.state_dict().items()}
    save_file({name: value.cpu().contiguous() for name, value in weights.items()}, student / "weights.safetensors")
    shutil.copytree(encoder, student / "encoder")
    if config.train_encoder:
        reading.encoder.cpu().backbone.save_pretrained(student / "encoder")
    np.save(student / "text_vectors.npy", reading.items_IT.cpu().numpy())
    (student / POLICY_FILE).write_text(policy.model_dump_json(indent=2) + "\n")
    sparse.save_npz(student / "sources" / "covisit.npz", covisit)
    np.save(student / "sources" / "popularity.npy", popularity_I)
    (student / "curve.json").write_text(
        json.dumps({"towers": towers_summary["curve"], "scorer": scorer_summary["curve"]}, indent=2)
    )
    (student / "student.json").write_text(
        json.dumps(
            {
                "vector_size": teacher_settings["vector_size"],
                "max_tokens": teacher_settings["max_tokens"],
                "heads": list(HEADS),
                "scorer_hidden": config.scorer_hidden,
                "scorer_pair": config.scorer_pair,
                "tower": {name: getattr(config, name) for name in ("max_history", "layers", "heads")},
                "knobs": {
                    "candidates_per_source": config.candidates_per_source,
                    "covisit_decay": config.covisit_decay,
                },
                "features": names.model_dump(),
                "turns": data.summary["turns"],
                "users": data.has_users,
                "side": data.side.model_dump(),
                "bm25": {"stemmer": config.stemmer, "k1": config.bm25_k1, "b": config.bm25_b}
                if data.has_queries
                else None,
            },
            indent=2,
        )
    )
    progress.phase("what torch says of the frozen requests")
    test = list(snapshot_requests.read_snapshot_requests(features, "test"))
    mix.write_parity(
        student / "parity.parquet",
        mix.CandidateTable.draw(test, model.tower, catalogue, settings, names, queries=queries, progress=progress),
        scorer,
        catalogue,
    )
    training.Checkpoints(checkpoints).clear()
    weights_trained = dict(zip(("encoder_weights_trained", "encoder_weights"), towers_summary["encoder_weights"]))
    return {
        "towers_valid_ndcg@10": round(towers_summary["best"], 4),
        "towers_best_epoch": towers_summary["best_epoch"],
        "resumed_at_epoch": towers_summary["resumed_at"],
        "from_teacher": f"{loaded_tensors} tensors",
        "candidates_recall": round(table.recall, 4),
        "candidates_mean": round(table.mean_candidates, 1),
        "scorer_fit_ndcg@10": round(scorer_summary["ndcg"], 4),
        **calibrated,
        **(weights_trained if config.train_encoder else {}),
        "device": str(device),
    }

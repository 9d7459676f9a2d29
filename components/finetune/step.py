"""finetune: train the full-interaction teacher.

Reads    features/  (items, sequences, requests with features: see featurize)
Writes   teacher/   teacher.json
                    weights.safetensors, curve.json; weights-1.safetensors… of further teachers   (of users' events)
                    pairs.safetensors, pairs.json: the cross-encoder and its curve                (of queries)
                    encoder/ (the language model and its tokenizer), text_vectors.npy
                    soft.npz        its scores over candidate sets, for distillation
                    rankings.parquet  its and the untuned encoder's rankings of the frozen test requests
                    origin.json, items.parquet   what it was made of and began with: what the next one may begin with
                    adaptation.json   perplexities before and after domain-adaptive pre-training, where that was on

Shapes: I items, T text size, S side size.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.finetune.config import FinetuneConfig
from rankline.runtime.progress import Progress
from rankline.train.champion_weights import ORIGIN, SCRATCH, WarmStart


def finetune(
    features: Path,
    teacher: Path,
    *,
    config: FinetuneConfig,
    progress: Progress,
    checkpoints: Path | None = None,
    start: WarmStart | None = None,
) -> dict[str, Any]:
    """Train the teacher on the features in ``features``; a killed run goes on from its last epoch.

    With ``start`` it begins with the weights of another model, as far as they fit.

    Under torchrun, or with ``config.processes`` above one, several processes do it together and the first one writes.

    Raises:
        SourceError: the encoder is missing or not the one promised.
        DeviceError: the device asked for is not there.
        TrainingError: the loss became NaN, or one of several processes died.
        OutOfMemory: memory ran out.
    """
    from components.finetune import distributed as together
    from components.finetune import torchrun
    from rankline.runtime import memory
    from rankline.train import training

    processes = config.processes or max(1, training.gpu_count() if config.device != "cpu" else 0)
    if processes > 1 and not together.is_distributed():
        return torchrun.launch_processes(
            features, teacher, config=config, processes=processes, progress=progress, checkpoints=checkpoints,
            start=start,
        )  # fmt: skip
    with together.init_distributed(config.device) as (ranks, device), memory.explain_out_of_memory("finetune", config):
        return _finetune(
            features, teacher, config=config, progress=progress, checkpoints=checkpoints, ranks=ranks, device=device,
            start=start,
        )  # fmt: skip


def _finetune(
    features: Path,
    teacher: Path,
    *,
    config: FinetuneConfig,
    progress: Progress,
    checkpoints: Path | None,
    ranks: Any,
    device: Any,
    start: WarmStart | None = None,
) -> dict[str, Any]:
    import copy
    import json
    import shutil
    import tempfile

    import numpy as np
    import torch
    from safetensors.torch import save_file

    from components.finetune import adapt, cross_encoder, rankings, sequence_model, soft_labels, warm_start
    from components.finetune import encoder as encoders
    from rankline.model.networks import HEADS
    from rankline.train import examples, training

    # Data
    data = examples.read_examples(features, max_history=config.max_history)
    texts = [*data.words, *data.train_queries]
    warm_weights = warm_start.open_weights(start, data, config)
    cold_config = config  # as one that begins with nothing is trained
    if warm_weights.model_id and config.warm_epochs:
        config = config.model_copy(update={"epochs": config.warm_epochs})
    names = warm_start.side_names(features, data)
    torch.manual_seed(config.seed)

    # The language model; where several train, the first fetches it for all
    scratch = None if ranks.is_main else tempfile.TemporaryDirectory()
    folder = Path(scratch.name) if scratch else teacher / "encoder"

    def prepare(target: Path) -> None:
        encoders.prepare_encoder(
            config.encoder,
            target,
            words=texts,
            sha256=config.encoder_sha256,
            seed=config.seed,
            revision=config.encoder_revision,
            cache=Path(config.encoder_cache),
            pooling=config.pooling,
        )

    if ranks.is_main and warm_weights.folder and warm_weights.own_encoder:
        shutil.copytree(warm_weights.folder / "encoder", folder)
    elif ranks.is_main:
        prepare(folder)
    ranks.broadcast_files(folder, encoders.ENCODER_FILES)
    tokenizer = encoders.load_tokenizer(folder, source=config.encoder, max_tokens=config.max_tokens)
    reader = encoders.load_encoder(folder, source=config.encoder).to(device)
    use_bf16 = training.pick_autocast(config.precision, device)
    encoders.check_compatible(reader, tokenizer, source=config.encoder, max_tokens=config.max_tokens)

    # It reads every item once; these vectors stay as they are unless it is trained, too
    progress.phase("reading the items' words")
    untuned_IT = encoders.encode_all(reader, tokenizer, data.words, device=device, progress=progress, ranks=ranks)
    test = data.splits["test"]
    untuned_AT = encoders.encode_all(
        reader, tokenizer, [test.queries[row] for row in test.query_rows], device=device, progress=Progress()
    )
    text_IT, adapted = untuned_IT, None
    if warm_weights.own_encoder and ranks.is_main:  # the one that nobody trained is what evaluation compares with
        with tempfile.TemporaryDirectory() as told:
            prepare(Path(told) / "encoder")
            untuned_encoder = encoders.load_encoder(Path(told) / "encoder", source=config.encoder).to(device)
            words = encoders.load_tokenizer(Path(told) / "encoder", source=config.encoder, max_tokens=config.max_tokens)
            asked_words = [test.queries[row] for row in test.query_rows]
            untuned_IT = encoders.encode_all(untuned_encoder, words, data.words, device=device, progress=Progress())
            untuned_AT = encoders.encode_all(untuned_encoder, words, asked_words, device=device, progress=Progress())
            torch.manual_seed(config.seed)
    if config.adapt_steps:
        adapted = adapt.adapt(
            reader, tokenizer, texts, config=config, use_bf16=use_bf16, device=device, ranks=ranks, progress=progress,
            checkpoints=checkpoints / "adapt" if checkpoints else None,
        )  # fmt: skip
        torch.manual_seed(config.seed)
        progress.phase("reading the items' words again")
        text_IT = encoders.encode_all(reader, tokenizer, data.words, device=device, progress=progress, ranks=ranks)

    # The teachers, each from a seed of its own; the first one's encoder is the one that is kept
    side_IS = torch.from_numpy(data.side_IS).to(device)
    members: list[Any] = []
    matched_items: dict[int, int] = {}

    def load_weights(member: int) -> Callable[[Any], None]:
        def fill(model: Any) -> None:
            matched_items[member] = warm_weights.load_weights(model, data, names, member=member)

        return fill

    for member in range(config.teachers if data.has_users else 0):
        label = f" {member + 1} of {config.teachers}" if config.teachers > 1 else ""
        progress.phase(f"training the teacher{label}")
        if member:
            torch.manual_seed(config.seed + member)
        members.append(
            sequence_model.train(
                data,
                copy.deepcopy(reader) if config.train_encoder and config.teachers > 1 else reader,
                tokenizer,
                text_IT,
                side_IS,
                config=config if warm_weights.has_member(member) else cold_config,
                seed=config.seed + member,
                use_bf16=use_bf16,
                device=device,
                ranks=ranks,
                progress=progress,
                checkpoints=checkpoints / f"teacher-{member}" if checkpoints and member else checkpoints,
                load_weights=load_weights(member) if warm_weights.has_member(member) else None,
            )
        )
    if scratch:  # what is left is one process's work
        scratch.cleanup()
        return {}

    # What queries and items say to each other, word by word
    asked = None
    if data.has_queries:
        asked = cross_encoder.train(
            data, reader, text_IT, folder=folder, config=config, device=device, progress=progress,
            checkpoints=checkpoints / "pairs" if checkpoints else None,
            load_weights=warm_weights.load_cross_encoder if warm_weights.folder else None,
        )  # fmt: skip
        save_file(asked.weights(), teacher / "pairs.safetensors")
        (teacher / "pairs.json").write_text(json.dumps(asked.summary["curve"], indent=2))

    # Save the best of each, and what the steps after this one need of it
    if members and config.train_encoder:
        members[0].reader.backbone.save_pretrained(teacher / "encoder")
    elif config.adapt_steps:
        reader.backbone.save_pretrained(teacher / "encoder")
    if not members:
        np.save(teacher / "text_vectors.npy", text_IT.cpu().numpy())
    for member, trained in enumerate(members):
        suffix = f"-{member}" if member else ""
        save_file(
            {k: v.contiguous() for k, v in trained.model.state_dict().items()}, teacher / f"weights{suffix}.safetensors"
        )
        if not member or config.train_encoder:
            np.save(teacher / f"text_vectors{suffix}.npy", trained.text_IT.cpu().numpy())
        (teacher / f"curve{suffix}.json").write_text(json.dumps(trained.told["curve"], indent=2))
    sizes = {name: getattr(config, name) for name in ("vector_size", "max_history", "layers", "heads")}
    (teacher / "teacher.json").write_text(
        json.dumps({**sizes, "max_tokens": config.max_tokens, "label_heads": list(HEADS)}, indent=2)
    )
    (teacher / ORIGIN).write_text(
        json.dumps(warm_start.origin_metadata(features, data, config, warm_weights, start), indent=2)
    )
    warm_start.write_items(teacher / "items.parquet", data)
    if adapted is not None:
        (teacher / "adaptation.json").write_text(json.dumps(adapted, indent=2))

    # What they think together, for the student and for evaluation
    ensemble = (
        rankings.TeacherEnsemble([(trained.model, trained.text_IT) for trained in members], side_IS)
        if members
        else None
    )
    untuned = soft_labels.UntunedVectors(untuned_IT.cpu().numpy(), untuned_AT.cpu().numpy())
    combined_teacher = soft_labels.CombinedTeacher(data, ensemble, asked, untuned, config, device)
    soft = {split: combined_teacher.soft_labels(split, progress=progress) for split in ("train", "valid")}
    np.savez(
        teacher / "soft.npz",
        **{f"{split}_{part}": values for split, told in soft.items() for part, values in told.items()},
    )
    progress.phase("ranking the frozen requests")
    rankings.write_rankings(teacher / "rankings.parquet", data.item_ids, test.ids, combined_teacher.rankings())
    result = {
        "requests": len(data.splits["train"]),
        "device": str(device),
        "encoder": "trained jointly" if config.train_encoder else "frozen",
        "encoder_precision": "bf16" if use_bf16 and config.train_encoder else "fp32",
    }
    if members:
        first = members[0].told
        result |= {
            "valid_ndcg@10": round(first["best"], 4),
            "best_epoch": first["best_epoch"],
            "epochs": first["epochs"],
            "resumed_at_epoch": first["resumed_at"],
        }
        if config.train_encoder:
            result["encoder_weights_trained"], result["encoder_weights"] = first["encoder_weights"]
        if config.compile:
            result["compiled"] = first["compiled"]
    if asked is not None:
        result |= {
            "pairs_valid_ndcg@10": round(asked.summary["best"], 4),
            "pairs_best_epoch": asked.summary["best_epoch"],
            "pairs_resumed_at_epoch": asked.summary["resumed_at"],
            "pairs_weight": combined_teacher.weight,
        }
    if adapted is not None:
        result |= {k: round(adapted[k], 2) for k in ("perplexity_before", "perplexity_after")}
    if ranks.world_size > 1:
        result["processes"] = ranks.world_size
    if ensemble is not None and config.teachers > 1:
        ensemble_ranking = rankings.rank_all(ensemble, data, data.splits["valid"], device=device)
        result |= {
            "valid_ndcg@10": round(training.ndcg_of_ranks(ensemble_ranking.target_ranks, k=10), 4),
            "teachers_valid_ndcg@10": [round(trained.told["best"], 4) for trained in members],
            "teachers_deviation": round(float(soft["valid"]["deviation"].mean()), 4),
        }
    if config.warm_start:
        result |= {"began_from": warm_weights.model_id or SCRATCH, "began_why": warm_weights.why}
        if warm_weights.folder:
            result |= {"items_found_again": f"{matched_items.get(0, 0)} of {len(data.item_ids)}"}
        if warm_weights.folder and (cold := sum(not warm_weights.has_member(member) for member in range(len(members)))):
            result |= {"teachers_from_scratch": f"{cold} of {len(members)}"}
        if warm_weights.has_member(0) and members:
            result |= {"valid_ndcg@10_at_start": round(members[0].told["at_start"], 4)}
    training.Checkpoints(checkpoints).clear()
    return result

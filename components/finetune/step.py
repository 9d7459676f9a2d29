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
from rankline.train.champion_weights import ORIGIN, SCRATCH, Start


def finetune(
    features: Path,
    teacher: Path,
    *,
    config: FinetuneConfig,
    progress: Progress,
    checkpoints: Path | None = None,
    start: Start | None = None,
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

    processes = config.processes or max(1, training.gpus() if config.device != "cpu" else 0)
    if processes > 1 and not together.launched():
        return torchrun.spread(
            features, teacher, config=config, processes=processes, progress=progress, checkpoints=checkpoints,
            start=start,
        )  # fmt: skip
    with together.joined(config.device) as (ranks, device), memory.told("finetune", config):
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
    start: Start | None = None,
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
    data = examples.read(features, max_history=config.max_history)
    texts = [*data.words, *data.train_queries]
    begun = warm_start.opened(start, data, config)
    whole = config  # as one that begins with nothing is trained
    if begun.model_id and config.warm_epochs:
        config = config.model_copy(update={"epochs": config.warm_epochs})
    names = warm_start.side_names(features, data)
    torch.manual_seed(config.seed)

    # The language model; where several train, the first fetches it for all
    scratch = None if ranks.writes else tempfile.TemporaryDirectory()
    folder = Path(scratch.name) if scratch else teacher / "encoder"

    def prepare(place: Path) -> None:
        encoders.prepare(
            config.encoder,
            place,
            words=texts,
            sha256=config.encoder_sha256,
            seed=config.seed,
            revision=config.encoder_revision,
            cache=Path(config.encoder_cache),
            pooling=config.pooling,
        )

    if ranks.writes and begun.folder and begun.own_encoder:
        shutil.copytree(begun.folder / "encoder", folder)
    elif ranks.writes:
        prepare(folder)
    ranks.same_files(folder, encoders.FILES)
    tokenizer = encoders.tokenizer_of(folder, source=config.encoder, max_tokens=config.max_tokens)
    reader = encoders.read(folder, source=config.encoder).to(device)
    half = training.pick_autocast(config.precision, device)
    encoders.refuse_if_unfit(reader, tokenizer, source=config.encoder, max_tokens=config.max_tokens)

    # It reads every item once; these vectors stay as they are unless it is trained, too
    progress.phase("reading the items' words")
    untuned_IT = encoders.encode_all(reader, tokenizer, data.words, device=device, progress=progress, ranks=ranks)
    test = data.splits["test"]
    untuned_AT = encoders.encode_all(
        reader, tokenizer, [test.queries[row] for row in test.asked], device=device, progress=Progress()
    )
    text_IT, adapted = untuned_IT, None
    if begun.own_encoder and ranks.writes:  # the one that nobody trained is what evaluation compares with
        with tempfile.TemporaryDirectory() as told:
            prepare(Path(told) / "encoder")
            plain = encoders.read(Path(told) / "encoder", source=config.encoder).to(device)
            words = encoders.tokenizer_of(Path(told) / "encoder", source=config.encoder, max_tokens=config.max_tokens)
            asked_words = [test.queries[row] for row in test.asked]
            untuned_IT = encoders.encode_all(plain, words, data.words, device=device, progress=Progress())
            untuned_AT = encoders.encode_all(plain, words, asked_words, device=device, progress=Progress())
            torch.manual_seed(config.seed)
    if config.adapt_steps:
        adapted = adapt.adapt(
            reader, tokenizer, texts, config=config, half=half, device=device, ranks=ranks, progress=progress,
            checkpoints=checkpoints / "adapt" if checkpoints else None,
        )  # fmt: skip
        torch.manual_seed(config.seed)
        progress.phase("reading the items' words again")
        text_IT = encoders.encode_all(reader, tokenizer, data.words, device=device, progress=progress, ranks=ranks)

    # The teachers, each from a seed of its own; the first one's encoder is the one that is kept
    side_IS = torch.from_numpy(data.side_IS).to(device)
    members: list[Any] = []
    found: dict[int, int] = {}

    def begin(member: int) -> Callable[[Any], None]:
        def fill(model: Any) -> None:
            found[member] = begun.begin(model, data, names, member=member)

        return fill

    for member in range(config.teachers if data.has_users else 0):
        of = f" {member + 1} of {config.teachers}" if config.teachers > 1 else ""
        progress.phase(f"training the teacher{of}")
        if member:
            torch.manual_seed(config.seed + member)
        members.append(
            sequence_model.train(
                data,
                copy.deepcopy(reader) if config.train_encoder and config.teachers > 1 else reader,
                tokenizer,
                text_IT,
                side_IS,
                config=config if begun.has(member) else whole,
                seed=config.seed + member,
                half=half,
                device=device,
                ranks=ranks,
                progress=progress,
                checkpoints=checkpoints / f"teacher-{member}" if checkpoints and member else checkpoints,
                begin=begin(member) if begun.has(member) else None,
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
            begin=begun.begin_pairs if begun.folder else None,
        )  # fmt: skip
        save_file(asked.weights(), teacher / "pairs.safetensors")
        (teacher / "pairs.json").write_text(json.dumps(asked.told["curve"], indent=2))

    # Save the best of each, and what the steps after this one need of it
    if members and config.train_encoder:
        members[0].reader.backbone.save_pretrained(teacher / "encoder")
    elif config.adapt_steps:
        reader.backbone.save_pretrained(teacher / "encoder")
    if not members:
        np.save(teacher / "text_vectors.npy", text_IT.cpu().numpy())
    for member, trained in enumerate(members):
        mark = f"-{member}" if member else ""
        save_file(
            {k: v.contiguous() for k, v in trained.model.state_dict().items()}, teacher / f"weights{mark}.safetensors"
        )
        if not member or config.train_encoder:
            np.save(teacher / f"text_vectors{mark}.npy", trained.text_IT.cpu().numpy())
        (teacher / f"curve{mark}.json").write_text(json.dumps(trained.told["curve"], indent=2))
    sizes = {name: getattr(config, name) for name in ("vector_size", "max_history", "layers", "heads")}
    (teacher / "teacher.json").write_text(
        json.dumps({**sizes, "max_tokens": config.max_tokens, "label_heads": list(HEADS)}, indent=2)
    )
    (teacher / ORIGIN).write_text(json.dumps(warm_start.origin(features, data, config, begun, start), indent=2))
    warm_start.write_items(teacher / "items.parquet", data)
    if adapted is not None:
        (teacher / "adaptation.json").write_text(json.dumps(adapted, indent=2))

    # What they think together, for the student and for evaluation
    panel = rankings.Panel([(trained.model, trained.text_IT) for trained in members], side_IS) if members else None
    untuned = soft_labels.Untuned(untuned_IT.cpu().numpy(), untuned_AT.cpu().numpy())
    judges = soft_labels.Opinions(data, panel, asked, untuned, config, device)
    soft = {split: judges.soft(split, progress=progress) for split in ("train", "valid")}
    np.savez(
        teacher / "soft.npz",
        **{f"{split}_{part}": values for split, told in soft.items() for part, values in told.items()},
    )
    progress.phase("ranking the frozen requests")
    rankings.write_rankings(teacher / "rankings.parquet", data.item_ids, test.ids, judges.rankings())
    result = {
        "requests": len(data.splits["train"]),
        "device": str(device),
        "encoder": "trained jointly" if config.train_encoder else "frozen",
        "encoder_precision": "bf16" if half and config.train_encoder else "fp32",
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
            "pairs_valid_ndcg@10": round(asked.told["best"], 4),
            "pairs_best_epoch": asked.told["best_epoch"],
            "pairs_resumed_at_epoch": asked.told["resumed_at"],
            "pairs_weight": judges.weight,
        }
    if adapted is not None:
        result |= {k: round(adapted[k], 2) for k in ("perplexity_before", "perplexity_after")}
    if ranks.world > 1:
        result["processes"] = ranks.world
    if panel is not None and config.teachers > 1:
        own = rankings.rank_all(panel, data, data.splits["valid"], device=device)
        result |= {
            "valid_ndcg@10": round(training.ndcg_of_ranks(own.target_ranks, k=10), 4),
            "teachers_valid_ndcg@10": [round(trained.told["best"], 4) for trained in members],
            "teachers_deviation": round(float(soft["valid"]["deviation"].mean()), 4),
        }
    if config.warm_start:
        result |= {"began_from": begun.model_id or SCRATCH, "began_why": begun.why}
        if begun.folder:
            result |= {"items_found_again": f"{found.get(0, 0)} of {len(data.item_ids)}"}
        if begun.folder and (cold := sum(not begun.has(member) for member in range(len(members)))):
            result |= {"teachers_from_scratch": f"{cold} of {len(members)}"}
        if begun.has(0) and members:
            result |= {"valid_ndcg@10_at_start": round(members[0].told["at_start"], 4)}
    training.Checkpoints(checkpoints).clear()
    return result

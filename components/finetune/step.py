"""finetune: train the full-interaction teacher.

Reads    features/  (items, sequences, requests with features: see featurize)
Writes   teacher/   teacher.json
                    weights.safetensors, curve.json; weights-1.safetensors… of further teachers   (users' events)
                    pairs.safetensors, pairs.json: the cross-encoder and its curve                (queries)
                    encoder/ (the language model and its tokenizer), text_vectors.npy
                    soft.npz        its scores over candidate sets, for distillation
                    rankings.parquet  its and the untuned encoder's rankings of the test requests, and for labels the
                                      nearest centroid's
                    origin.json, items.parquet   its data and its start, for the next warm start
                    adaptation.json   perplexities before and after domain-adaptive pre-training, where that is on
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.finetune.config import FinetuneConfig
from rankline.runtime.progress import Progress
from rankline.train.champion_weights import WarmStart


def finetune(
    features: Path,
    teacher: Path,
    *,
    config: FinetuneConfig,
    progress: Progress,
    checkpoints: Path | None = None,
    start: WarmStart | None = None,
) -> dict[str, Any]:
    """Train the teacher on the features in ``features``; a killed run resumes from its last epoch.

    With ``start`` it starts from the weights of another model, as far as they fit. With ``config.processes`` above
    one, or under torchrun, several processes train it together and the first one writes.

    Raises:
        SourceError: the encoder is missing, or its sha256 is another one.
        DeviceError: the device is not available.
        TrainingError: the loss is not a number, or one of several processes died.
        OutOfMemory: memory ran out.
    """
    from components.finetune import launch
    from components.finetune.context import TrainingContext
    from components.finetune.teacher import train_teacher
    from rankline.runtime import memory
    from rankline.train import device as devices
    from rankline.train.distributed import init_distributed, is_distributed

    processes = config.processes or max(1, devices.gpu_count() if config.device != "cpu" else 0)
    if processes > 1 and not is_distributed():
        return launch.launch_processes(
            config=config,
            processes=processes,
            start=start,
            features=features,
            teacher=teacher,
            checkpoints=checkpoints,
            progress=progress.path,
        )
    with init_distributed(config.device) as (distributed, device), memory.explain_out_of_memory("finetune", config):
        use_bf16 = devices.pick_autocast(config.precision, device)
        context = TrainingContext(config, device, use_bf16, distributed, progress, checkpoints)
        return train_teacher(features, teacher, context, start)

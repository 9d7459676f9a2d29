"""The Kubeflow door of finetune."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.images import TRAIN


@dsl.component(base_image=TRAIN, install_kfp_package=False)
def finetune(features: Input[Dataset], config: dict, run: dict, job: str, champion: str, teacher: Output[Model]):
    """Train the full-interaction teacher on the training split, from the champion's weights where that is asked for."""
    import json
    from pathlib import Path

    from components.finetune import encoder
    from components.finetune.config import FinetuneConfig
    from components.finetune.step import finetune
    from rankline import weights
    from rankline.door import Run, perform
    from rankline.repository import Repository

    settings = FinetuneConfig(**config)
    here = Run.of(run, job)
    lineage, start = {"encoder": encoder.digest_of(settings.encoder)}, None
    if settings.warm_start:
        data = json.loads((Path(features.path) / "summary.json").read_text())["data_digest"]
        start = weights.start(Repository(here.repository), champion, data)
        lineage[weights.LINEAGE] = start.digest
    perform(
        "finetune",
        finetune,
        settings,
        run=here,
        inputs={"features": Path(features.path)},
        outputs={"teacher": Path(teacher.path)},
        lineage=lineage,
        heavy=("torch", "transformers", "safetensors.torch"),
        fetched=lambda: {"start": start.fetched(Repository(here.repository), here.workspace) if start else None},
    )

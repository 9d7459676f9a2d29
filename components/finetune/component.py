"""The Kubeflow door of finetune."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.images import TRAIN


@dsl.component(base_image=TRAIN, install_kfp_package=False)
def finetune(features: Input[Dataset], config: dict, run: dict, job: str, teacher: Output[Model]):
    """Train the full-interaction teacher on the training split."""
    from pathlib import Path

    from components.finetune import encoder
    from components.finetune.config import FinetuneConfig
    from components.finetune.step import finetune
    from rankline.door import Run, perform

    settings = FinetuneConfig(**config)
    perform(
        "finetune",
        finetune,
        settings,
        run=Run.of(run, job),
        inputs={"features": Path(features.path)},
        outputs={"teacher": Path(teacher.path)},
        lineage={"encoder": encoder.digest_of(settings.encoder)},
        heavy=("torch", "transformers", "safetensors.torch"),
    )

"""The Kubeflow component of finetune."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.images import TRAIN


@dsl.component(base_image=TRAIN, install_kfp_package=False)
def finetune(features: Input[Dataset], config: dict, run: dict, job: str, champion: str, teacher: Output[Model]):
    """Train the teacher on the training split, from the champion's weights if finetune.warm_start asks for it."""
    from pathlib import Path

    from components.finetune.config import FinetuneConfig
    from components.finetune.lineage import FinetuneLineage
    from components.finetune.step import finetune
    from rankline.runtime.run_context import RunContext
    from rankline.runtime.run_step import StepSpec, run_step

    settings = FinetuneConfig(**config)
    context = RunContext.from_parameters(run, job)
    lineage = FinetuneLineage(settings, context, champion=champion, features=Path(features.path))
    run_step(
        StepSpec(
            name="finetune",
            function=finetune,
            config=settings,
            inputs={"features": Path(features.path)},
            outputs={"teacher": Path(teacher.path)},
            load_arguments=lineage.load,
            lineage=lineage.digests,
            preload=("torch", "transformers", "safetensors.torch"),
            checkpoints=True,
        ),
        context,
    )

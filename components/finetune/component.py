"""The Kubeflow door of finetune."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.images import TRAIN


@dsl.component(base_image=TRAIN, install_kfp_package=False)
def finetune(features: Input[Dataset], config: dict, run: dict, job: str, champion: str, teacher: Output[Model]):
    """Train the full-interaction teacher on the training split, from the champion's weights where that is asked for."""
    import functools
    import json
    from pathlib import Path

    from components.finetune.config import FinetuneConfig
    from components.finetune.lineage import lineage, warm_start
    from components.finetune.step import finetune
    from rankline.registry.model_registry import ModelRegistry
    from rankline.runtime.lineage import LineageFacts
    from rankline.runtime.run_step import RunContext, run_step
    from rankline.runtime.step_cache import UNKNOWN

    settings, context = FinetuneConfig(**config), RunContext.from_parameters(run, job)

    @functools.cache
    def facts() -> LineageFacts:
        summary = Path(features.path) / "summary.json"
        data = json.loads(summary.read_text())["data_digest"] if settings.warm_start else UNKNOWN
        return LineageFacts(run=context, data=data, champion=champion)

    def fetched() -> dict:
        if not settings.warm_start:
            return {}
        return {"start": warm_start(facts()).fetched(ModelRegistry(context.repository), context.workspace)}

    run_step(
        "finetune",
        finetune,
        settings,
        run=context,
        inputs={"features": Path(features.path)},
        outputs={"teacher": Path(teacher.path)},
        lineage=lambda: lineage(settings, facts()),
        preload=("torch", "transformers", "safetensors.torch"),
        fetched=fetched,
    )

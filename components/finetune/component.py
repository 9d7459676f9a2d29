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
    from rankline.runtime.run_step import RunContext, run_step
    from rankline.train import champion_weights

    settings = FinetuneConfig(**config)
    context = RunContext.from_parameters(run, job)
    warm_start: dict = {"start": None}

    def lineage() -> dict:
        digests = {"encoder": encoder.encoder_digest(settings.encoder)}
        if settings.warm_start:
            from rankline.registry.model_registry import ModelRegistry

            data = json.loads((Path(features.path) / "summary.json").read_text())["data_digest"]
            warm_start["start"] = champion_weights.select_warm_start(ModelRegistry(context.repository), champion, data)
            digests[champion_weights.LINEAGE_KEY] = warm_start["start"].digest
        return digests

    def fetched() -> dict:
        if warm_start["start"] is None:
            return {}
        from rankline.registry.model_registry import ModelRegistry

        return {"start": warm_start["start"].fetched(ModelRegistry(context.repository), context.workspace)}

    run_step(
        "finetune",
        finetune,
        settings,
        run=context,
        inputs={"features": Path(features.path)},
        outputs={"teacher": Path(teacher.path)},
        lineage=lineage,
        preload=("torch", "transformers", "safetensors.torch"),
        fetched=fetched,
    )

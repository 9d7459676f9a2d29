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
    from rankline.runtime.run_step import Run, perform
    from rankline.train import champion_weights

    settings = FinetuneConfig(**config)
    here = Run.of(run, job)
    begins: dict = {"start": None}

    def lineage() -> dict:
        told = {"encoder": encoder.digest_of(settings.encoder)}
        if settings.warm_start:
            from rankline.registry.model_registry import Repository

            data = json.loads((Path(features.path) / "summary.json").read_text())["data_digest"]
            begins["start"] = champion_weights.start(Repository(here.repository), champion, data)
            told[champion_weights.LINEAGE] = begins["start"].digest
        return told

    def fetched() -> dict:
        if begins["start"] is None:
            return {}
        from rankline.registry.model_registry import Repository

        return {"start": begins["start"].fetched(Repository(here.repository), here.workspace)}

    perform(
        "finetune",
        finetune,
        settings,
        run=here,
        inputs={"features": Path(features.path)},
        outputs={"teacher": Path(teacher.path)},
        lineage=lineage,
        heavy=("torch", "transformers", "safetensors.torch"),
        fetched=fetched,
    )

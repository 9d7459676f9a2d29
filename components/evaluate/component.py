"""The Kubeflow component of evaluate."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.images import EVALUATE


@dsl.component(base_image=EVALUATE, install_kfp_package=False)
def evaluate(
    bundle: Input[Model],
    features: Input[Dataset],
    teacher: Input[Model],
    student: Input[Model],
    config: dict,
    run: dict,
    job: str,
    champion: str,
    report: Output[Dataset],
):
    """Replay the test requests through the real server and score its lists beside champion and baselines."""
    from pathlib import Path

    from components.evaluate.champion_for import champion_for, is_champion
    from components.evaluate.config import EvaluateConfig
    from components.evaluate.step import evaluate
    from rankline.model.bundle import unverified_model_id
    from rankline.runtime.run_step import RunContext, run_step

    context = RunContext.from_parameters(run, job)
    model_id = unverified_model_id(Path(bundle.path))
    champion_id = champion_for(model_id, champion)
    run_step(
        "evaluate",
        evaluate,
        EvaluateConfig(**config),
        run=context,
        inputs={
            "bundle": Path(bundle.path),
            "features": Path(features.path),
            "teacher": Path(teacher.path),
            "student": Path(student.path),
        },
        outputs={"report": Path(report.path)},
        code=("serving.server",),
        lineage={"champion": champion_id},
        ignore_lineage=is_champion(model_id, champion),
        preload=("scipy.sparse", "matplotlib.figure", "pyarrow.parquet", "onnxruntime", "faiss"),
        fetched=lambda: {"champion": context.bundle_folder(champion_id) if champion_id else None},
        run_id=context.run_id,
    )

"""The Kubeflow door of evaluate."""

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
    """Replay the frozen requests through the real server and score it beside the champion and baselines."""
    from pathlib import Path

    from components.evaluate.champion_for import rival_of, serves
    from components.evaluate.config import EvaluateConfig
    from components.evaluate.step import evaluate
    from rankline.model.bundle import claimed_id
    from rankline.runtime.run_step import Run, perform

    this = Run.of(run, job)
    model_id = claimed_id(Path(bundle.path))
    rival = rival_of(model_id, champion)
    perform(
        "evaluate",
        evaluate,
        EvaluateConfig(**config),
        run=this,
        inputs={
            "bundle": Path(bundle.path),
            "features": Path(features.path),
            "teacher": Path(teacher.path),
            "student": Path(student.path),
        },
        outputs={"report": Path(report.path)},
        code=("serving.server",),
        lineage={"champion": rival},
        any_lineage=serves(model_id, champion),
        heavy=("scipy.sparse", "matplotlib.figure", "pyarrow.parquet", "onnxruntime", "faiss"),
        fetched=lambda: {"champion": this.bundle_of(rival) if rival else None},
        run_id=this.run_id,
    )

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
    """Replay the snapshot requests through the real server, and compare the candidate with champion and baselines."""
    from pathlib import Path

    from components.evaluate.config import EvaluateConfig
    from components.evaluate.lineage import EvaluateLineage
    from components.evaluate.step import evaluate
    from rankline.runtime.run_context import RunContext
    from rankline.runtime.run_step import StepSpec, run_step

    settings, context = EvaluateConfig(**config), RunContext.from_parameters(run, job)
    lineage = EvaluateLineage(settings, context, champion=champion, bundle=Path(bundle.path))
    run_step(
        StepSpec(
            name="evaluate",
            function=evaluate,
            config=settings,
            inputs={
                "bundle": Path(bundle.path),
                "features": Path(features.path),
                "teacher": Path(teacher.path),
                "student": Path(student.path),
            },
            outputs={"report": Path(report.path)},
            arguments={"run_id": context.run_id},
            load_arguments=lineage.load,
            lineage=lineage.digests,
            ignore_lineage=lineage.is_ignored,
            code=("serving.server",),
            preload=("scipy.sparse", "matplotlib.figure", "pyarrow.parquet", "onnxruntime", "faiss"),
        ),
        context,
    )

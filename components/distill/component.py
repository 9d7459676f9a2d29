"""The Kubeflow door of distill."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.images import TRAIN


@dsl.component(base_image=TRAIN, install_kfp_package=False)
def distill(features: Input[Dataset], teacher: Input[Model], config: dict, run: dict, job: str, student: Output[Model]):
    """Make the two-tower student, the candidate sources and the scorer that mixes them."""
    from pathlib import Path

    from components.distill.config import DistillConfig
    from components.distill.step import distill
    from rankline.runtime.run_step import RunContext, run_step

    run_step(
        "distill",
        distill,
        DistillConfig(**config),
        run=RunContext.from_parameters(run, job),
        inputs={"features": Path(features.path), "teacher": Path(teacher.path)},
        outputs={"student": Path(student.path)},
        preload=("torch", "scipy.sparse", "safetensors.torch"),
    )

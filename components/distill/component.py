"""The Kubeflow component of distill."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.images import TRAIN


@dsl.component(base_image=TRAIN, install_kfp_package=False)
def distill(features: Input[Dataset], teacher: Input[Model], config: dict, run: dict, job: str, student: Output[Model]):
    """Train the two-tower student, build the candidate sources, and train the scorer that ranks their candidates."""
    from pathlib import Path

    from components.distill.config import DistillConfig
    from components.distill.step import distill
    from rankline.runtime.run_context import RunContext
    from rankline.runtime.run_step import StepSpec, run_step

    run_step(
        StepSpec(
            name="distill",
            function=distill,
            config=DistillConfig(**config),
            inputs={"features": Path(features.path), "teacher": Path(teacher.path)},
            outputs={"student": Path(student.path)},
            preload=("torch", "scipy.sparse", "safetensors.torch"),
            checkpoints=True,
        ),
        RunContext.from_parameters(run, job),
    )

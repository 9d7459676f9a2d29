"""The Kubeflow component of export."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.images import TRAIN


@dsl.component(base_image=TRAIN, install_kfp_package=False)
def export(features: Input[Dataset], student: Input[Model], config: dict, run: dict, job: str, bundle: Output[Model]):
    """Export the student as ONNX graphs with a catalogue: a bundle that any server can load."""
    from pathlib import Path

    from components.export.config import ExportConfig
    from components.export.step import export
    from rankline.runtime import code_digest
    from rankline.runtime.run_context import RunContext
    from rankline.runtime.run_step import StepSpec, run_step

    trained_by = ("components.finetune.step", "components.distill.step", "components.export.step")
    run_step(
        StepSpec(
            name="export",
            function=export,
            config=ExportConfig(**config),
            inputs={"features": Path(features.path), "student": Path(student.path)},
            outputs={"bundle": Path(bundle.path)},
            arguments={"code_digest": code_digest.of_code(*trained_by)},
            preload=("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "faiss"),
        ),
        RunContext.from_parameters(run, job),
    )

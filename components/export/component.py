"""The Kubeflow door of export."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.images import TRAIN


@dsl.component(base_image=TRAIN, install_kfp_package=False)
def export(features: Input[Dataset], student: Input[Model], config: dict, run: dict, job: str, bundle: Output[Model]):
    """Write the student as ONNX graphs and a catalogue that anybody can serve."""
    from pathlib import Path

    from components.export.config import ExportConfig
    from components.export.step import export
    from rankline.runtime import code_digest
    from rankline.runtime.run_step import RunContext, run_step

    run_step(
        "export",
        export,
        ExportConfig(**config),
        run=RunContext.from_parameters(run, job),
        inputs={"features": Path(features.path), "student": Path(student.path)},
        outputs={"bundle": Path(bundle.path)},
        preload=("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "faiss"),
        code_digest=code_digest.of_code(
            "components.finetune.step", "components.distill.step", "components.export.step"
        ),
    )

"""The Kubeflow component of validate."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from components.images import DATA


@dsl.component(base_image=DATA, install_kfp_package=False)
def validate(raw: Input[Dataset], config: dict, run: dict, job: str, clean: Output[Dataset], report: Output[Dataset]):
    """Check the tables against their expectations; a critical failure stops the pipeline."""
    from pathlib import Path

    from components.validate.config import ValidateConfig
    from components.validate.lineage import ValidateLineage
    from components.validate.step import validate
    from rankline.runtime.run_context import RunContext
    from rankline.runtime.run_step import StepSpec, run_step

    settings, context = ValidateConfig(**config), RunContext.from_parameters(run, job)
    lineage = ValidateLineage(settings, context, raw=Path(raw.path))
    run_step(
        StepSpec(
            name="validate",
            function=validate,
            config=settings,
            inputs={"raw": Path(raw.path)},
            outputs={"clean": Path(clean.path), "report": Path(report.path)},
            load_arguments=lineage.load,
            lineage=lineage.digests,
            after=lambda: lineage.save(Path(clean.path), flow=run.get("flow", "")),
            preload=("components.validate.gx", "duckdb"),
        ),
        context,
    )

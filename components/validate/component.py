"""The Kubeflow component of validate."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from components.images import DATA


@dsl.component(base_image=DATA, install_kfp_package=False)
def validate(raw: Input[Dataset], config: dict, run: dict, job: str, clean: Output[Dataset], report: Output[Dataset]):
    """Check the tables against their expectations; a critical failure stops the pipeline."""
    from pathlib import Path

    from components.validate import profile
    from components.validate.config import ValidateConfig
    from components.validate.lineage import lineage
    from components.validate.step import validate
    from rankline.runtime.lineage import LineageFacts
    from rankline.runtime.run_context import RunContext
    from rankline.runtime.run_step import StepSpec, run_step

    settings, context = ValidateConfig(**config), RunContext.from_parameters(run, job)
    data = profile.data_digest(Path(raw.path))
    previous = profile.previous_profile_for(context.workspace, settings.profile_name, data)
    run_step(
        StepSpec(
            name="validate",
            function=validate,
            config=settings,
            inputs={"raw": Path(raw.path)},
            outputs={"clean": Path(clean.path), "report": Path(report.path)},
            arguments={"previous": previous},
            lineage=lambda: lineage(settings, LineageFacts(run=context, data=data)),
            preload=("components.validate.gx", "duckdb"),
        ),
        context,
    )
    profile_path = Path(clean.path) / "profile.json"
    profile.save(context.workspace, settings.profile_name, profile_path, flow=run.get("flow", ""))

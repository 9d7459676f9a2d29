"""The Kubeflow component of validate."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from components.images import DATA


@dsl.component(base_image=DATA, install_kfp_package=False)
def validate(raw: Input[Dataset], config: dict, run: dict, job: str, clean: Output[Dataset], report: Output[Dataset]):
    """Check the tables against their contract; a critical failure stops the pipeline and keeps the report."""
    from pathlib import Path

    from components.validate import profile
    from components.validate.config import ValidateConfig
    from components.validate.step import validate
    from rankline.runtime.run_step import RunContext, run_step

    settings, context = ValidateConfig(**config), RunContext.from_parameters(run, job)
    previous = profile.previous_profile(context.workspace, settings.profile_name, Path(raw.path))
    run_step(
        "validate",
        validate,
        settings,
        run=context,
        inputs={"raw": Path(raw.path)},
        outputs={"clean": Path(clean.path), "report": Path(report.path)},
        lineage=profile.lineage(previous, settings),
        preload=("great_expectations", "great_expectations.expectations", "duckdb"),
        previous=previous,
    )
    profile_path = Path(clean.path) / "profile.json"
    profile.save(context.workspace, settings.profile_name, profile_path, flow=run.get("flow", ""))

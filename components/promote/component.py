"""The Kubeflow components of promote: `decide`, `promote` for a verdict that says so, and `materialize`.

The four components at the end do nothing. Kubeflow's API shows which tasks ran but not what they returned, so on a
cluster a verdict other than "promote" runs the task of its name.
"""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.images import DATA


@dsl.component(base_image=DATA, install_kfp_package=False)
def decide(
    bundle: Input[Model],
    evaluation: Input[Dataset],
    teacher: Input[Model],
    config: dict,
    run: dict,
    job: str,
    verdict: Output[Dataset],
) -> str:
    """Register the candidate and decide whether it may serve; returns the outcome."""
    from pathlib import Path

    from components.promote.config import DecideConfig
    from components.promote.step import decide
    from rankline.runtime.run_step import RunContext, run_step

    context = RunContext.from_parameters(run, job)
    result: dict[str, str] = run_step(
        "decide",
        decide,
        DecideConfig(**config),
        run=context,
        reuse=False,
        inputs={"bundle": Path(bundle.path), "evaluation": Path(evaluation.path), "teacher": Path(teacher.path)},
        outputs={"verdict": Path(verdict.path)},
        repository=context.repository,
        run_id=context.run_id,
    )
    return result["outcome"]


@dsl.component(base_image=DATA, install_kfp_package=False)
def promote(
    bundle: Input[Model],
    evaluation: Input[Dataset],
    verdict: Input[Dataset],
    features: Input[Dataset],
    config: dict,
    run: dict,
    job: str,
):
    """Make the candidate the champion: materialize its features, append the event, mirror it to MLflow."""
    from pathlib import Path

    from components.promote.config import PromoteConfig
    from components.promote.step import promote
    from rankline.runtime.run_step import RunContext, run_step

    context = RunContext.from_parameters(run, job)
    run_step(
        "promote",
        promote,
        PromoteConfig(**config),
        run=context,
        reuse=False,
        inputs={
            "bundle": Path(bundle.path),
            "evaluation": Path(evaluation.path),
            "verdict": Path(verdict.path),
            "features": Path(features.path),
        },
        outputs={},
        preload=("feature_repo.definitions", "mlflow"),
        repository=context.repository,
        workspace=context.workspace,
        stores=context.storage.features,
        run_id=context.run_id,
        ledger_folder=context.folder,
    )


@dsl.component(base_image=DATA, install_kfp_package=False)
def materialize(features: Input[Dataset], config: dict, run: dict, job: str):
    """Materialize newer rows of the champion's features."""
    import json
    from pathlib import Path

    from components.promote.config import PromoteConfig
    from components.promote.materialize import materialize
    from rankline.runtime.run_step import RunContext, run_step

    context = RunContext.from_parameters(run, job)
    trigger_file = context.folder / "trigger.json"
    run_step(
        "materialize",
        materialize,
        PromoteConfig(**config),
        run=context,
        reuse=False,
        inputs={"features": Path(features.path)},
        outputs={},
        preload=("feature_repo.definitions",),
        repository=context.repository,
        workspace=context.workspace,
        stores=context.storage.features,
        run_id=context.run_id,
        trigger=json.loads(trigger_file.read_text()) if trigger_file.is_file() else None,
    )


@dsl.component(base_image=DATA, install_kfp_package=False)
def already_serving():
    """The verdict: the candidate is the champion."""


@dsl.component(base_image=DATA, install_kfp_package=False)
def pending():
    """The verdict: every gate is met, and a reviewer decides."""


@dsl.component(base_image=DATA, install_kfp_package=False)
def refused():
    """The verdict: a gate is not met."""


@dsl.component(base_image=DATA, install_kfp_package=False)
def insufficient_data():
    """The verdict: there is too little data to decide."""


OUTCOME_TASKS = {
    "already_serving": already_serving,
    "pending": pending,
    "refused": refused,
    "insufficient_data": insufficient_data,
}  # outcome of `decide` -> the component that shows it

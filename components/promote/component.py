"""The Kubeflow components of promotion: `decide`, `promote` and, for the features pipeline, `materialize`.

The last two do nothing. A cluster's API returns which tasks ran and not what they returned: on a cluster, that one
of these tasks ran is the verdict.
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
    """Register the candidate and judge it by the gates; returns the branch that the pipeline takes."""
    from pathlib import Path

    from components.promote.config import DecideConfig
    from components.promote.step import decide
    from rankline.runtime.outcomes import Outcome
    from rankline.runtime.run_context import RunContext
    from rankline.runtime.run_step import StepSpec, run_step

    context = RunContext.from_parameters(run, job)
    result = run_step(
        StepSpec(
            name="decide",
            function=decide,
            config=DecideConfig(**config),
            inputs={"bundle": Path(bundle.path), "evaluation": Path(evaluation.path), "teacher": Path(teacher.path)},
            outputs={"verdict": Path(verdict.path)},
            arguments={
                "repository": context.repository,
                "run_id": context.run_id,
                "started_by": context.started_by,
                "announcer": context.announcer,
            },
            reuse=False,
        ),
        context,
    )
    return Outcome.of_verdict(result["outcome"]).branch


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
    """Make the candidate the champion: materialize its features, append the event, announce it."""
    from pathlib import Path

    from components.promote.config import PromoteConfig
    from components.promote.step import promote
    from rankline.runtime.run_context import RunContext
    from rankline.runtime.run_step import StepSpec, run_step

    context = RunContext.from_parameters(run, job)
    run_step(
        StepSpec(
            name="promote",
            function=promote,
            config=PromoteConfig(**config),
            inputs={
                "bundle": Path(bundle.path),
                "evaluation": Path(evaluation.path),
                "verdict": Path(verdict.path),
                "features": Path(features.path),
            },
            arguments={
                "repository": context.repository,
                "workspace": context.workspace,
                "stores": context.storage.features,
                "run_id": context.run_id,
                "bucket": context.bucket,
                "announcer": context.announcer,
            },
            preload=("feature_repo.definitions", "mlflow"),
            reuse=False,
        ),
        context,
    )


@dsl.component(base_image=DATA, install_kfp_package=False)
def materialize(features: Input[Dataset], config: dict, run: dict, job: str):
    """Write newer rows of the champion's features to the online store."""
    from pathlib import Path

    from components.promote.config import PromoteConfig
    from components.promote.materialize import materialize
    from rankline.io.files import read_json_object
    from rankline.runtime.run_context import RunContext
    from rankline.runtime.run_step import StepSpec, run_step

    context = RunContext.from_parameters(run, job)
    run_step(
        StepSpec(
            name="materialize",
            function=materialize,
            config=PromoteConfig(**config),
            inputs={"features": Path(features.path)},
            arguments={
                "repository": context.repository,
                "workspace": context.workspace,
                "stores": context.storage.features,
                "run_id": context.run_id,
                "bucket": context.bucket,
            },
            load_arguments=lambda: {"trigger": read_json_object(context.folder / "trigger.json")},
            preload=("feature_repo.definitions",),
            reuse=False,
        ),
        context,
    )


@dsl.component(base_image=DATA, install_kfp_package=False)
def pending():
    """The verdict: every gate is met, and the candidate waits for a reviewer."""


@dsl.component(base_image=DATA, install_kfp_package=False)
def refused():
    """The verdict: a gate is not met, or there is too little data to judge."""

"""The two doors of promote: `decide` always runs, `promote` only where the verdict says so."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.images import DATA


@dsl.component(base_image=DATA, install_kfp_package=False)
def decide(
    bundle: Input[Model], evaluation: Input[Dataset], config: dict, run: dict, job: str, verdict: Output[Dataset]
) -> str:
    """Register the candidate and say whether it may serve, and why; the outcome is what it returns."""
    from pathlib import Path

    from components.promote.config import DecideConfig
    from components.promote.step import decide
    from rankline.door import Run, perform

    here = Run.of(run, job)
    result = perform(
        "decide",
        decide,
        DecideConfig(**config),
        run=here,
        reuse=False,
        inputs={"bundle": Path(bundle.path), "evaluation": Path(evaluation.path)},
        outputs={"verdict": Path(verdict.path)},
        repository=here.repository,
        run_id=here.run_id,
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
    """Make the candidate the champion: its features online, then the event, then the mirror."""
    from pathlib import Path

    from components.promote.config import PromoteConfig
    from components.promote.step import promote
    from rankline.door import Run, perform

    here = Run.of(run, job)
    perform(
        "promote",
        promote,
        PromoteConfig(**config),
        run=here,
        reuse=False,
        inputs={
            "bundle": Path(bundle.path),
            "evaluation": Path(evaluation.path),
            "verdict": Path(verdict.path),
            "features": Path(features.path),
        },
        outputs={},
        heavy=("feature_repo.definitions", "mlflow"),
        repository=here.repository,
        workspace=here.workspace,
        stores=here.storage.features,
        run_id=here.run_id,
        ledger_folder=here.folder,
    )

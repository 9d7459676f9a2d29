"""The door of featurize."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from components.images import DATA


@dsl.component(base_image=DATA, install_kfp_package=False)
def featurize(clean: Input[Dataset], config: dict, run: dict, job: str, features: Output[Dataset]):
    """Compute features as they were known at every moment, and cut requests into train, valid and test."""
    from pathlib import Path

    from components.featurize.config import FeaturizeConfig
    from components.featurize.lineage import lineage
    from components.featurize.step import featurize
    from rankline.runtime.lineage import LineageFacts
    from rankline.runtime.run_step import RunContext, run_step

    settings, context = FeaturizeConfig(**config), RunContext.from_parameters(run, job)
    run_step(
        "featurize",
        featurize,
        settings,
        run=context,
        inputs={"clean": Path(clean.path)},
        outputs={"features": Path(features.path)},
        lineage=lineage(settings, LineageFacts(run=context)),
        preload=("duckdb", "feature_repo.definitions"),
        stores=context.storage.features,
    )

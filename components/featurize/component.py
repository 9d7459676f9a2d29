"""The Kubeflow component of featurize."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from components.images import DATA


@dsl.component(base_image=DATA, install_kfp_package=False)
def featurize(clean: Input[Dataset], config: dict, run: dict, job: str, features: Output[Dataset]):
    """Compute features as they were known at each request's time, and split requests into train, valid and test."""
    from pathlib import Path

    from components.featurize.config import FeaturizeConfig
    from components.featurize.step import featurize
    from rankline.runtime.run_step import RunContext, run_step

    context = RunContext.from_parameters(run, job)
    stores = context.storage.features
    run_step(
        "featurize",
        featurize,
        FeaturizeConfig(**config),
        run=context,
        inputs={"clean": Path(clean.path)},
        outputs={"features": Path(features.path)},
        lineage=stores.lineage,
        preload=("duckdb", "feature_repo.definitions"),
        stores=stores,
    )

"""The Kubeflow component of featurize."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from components.images import DATA


@dsl.component(base_image=DATA, install_kfp_package=False)
def featurize(clean: Input[Dataset], config: dict, run: dict, job: str, features: Output[Dataset]):
    """Join the features as of every request, and split the requests into train, valid and test."""
    from pathlib import Path

    from components.featurize.config import FeaturizeConfig
    from components.featurize.lineage import lineage
    from components.featurize.step import featurize
    from rankline.runtime.lineage import LineageFacts
    from rankline.runtime.run_context import RunContext
    from rankline.runtime.run_step import StepSpec, run_step

    settings, context = FeaturizeConfig(**config), RunContext.from_parameters(run, job)
    run_step(
        StepSpec(
            name="featurize",
            function=featurize,
            config=settings,
            inputs={"clean": Path(clean.path)},
            outputs={"features": Path(features.path)},
            arguments={"stores": context.storage.features},
            lineage=lambda: lineage(settings, LineageFacts(run=context)),
            preload=("duckdb", "feature_repo.definitions"),
        ),
        context,
    )

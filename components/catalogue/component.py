"""The Kubeflow components of a catalogue refresh: `catalogue` builds and checks a revision, `publish` serves it."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from components.images import DATA, EVALUATE


@dsl.component(base_image=EVALUATE, install_kfp_package=False)
def catalogue(raw: Input[Dataset], config: dict, run: dict, job: str, champion: str, revision: Output[Dataset]) -> str:
    """Embed the changed items with the champion and check the new catalogue; returns the outcome."""
    from pathlib import Path

    from components.catalogue.config import CatalogueConfig
    from components.catalogue.lineage import lineage
    from components.catalogue.step import catalogue
    from rankline.registry.run_models import champion_bundle
    from rankline.runtime.lineage import LineageFacts
    from rankline.runtime.run_context import RunContext
    from rankline.runtime.run_step import StepSpec, run_step

    settings, context = CatalogueConfig(**config), RunContext.from_parameters(run, job)
    decided_by = lineage(settings, LineageFacts(run=context, champion=champion))
    result = run_step(
        StepSpec(
            name="catalogue",
            function=catalogue,
            config=settings,
            inputs={"raw": Path(raw.path)},
            outputs={"revision": Path(revision.path)},
            arguments={"serves_over": decided_by["serves over"]},
            load_arguments=lambda: {"bundle": champion_bundle(context, champion)},
            lineage=lambda: decided_by,
            code=("serving.server",),
            preload=("onnxruntime", "faiss", "scipy.sparse", "pyarrow.parquet"),
        ),
        context,
    )
    return result["outcome"]


@dsl.component(base_image=DATA, install_kfp_package=False)
def publish(revision: Input[Dataset], config: dict, run: dict, job: str):
    """Publish the checked revision: the champion serves it from then on."""
    from pathlib import Path

    from components.catalogue.config import CatalogueConfig
    from components.catalogue.step import publish
    from rankline.runtime.run_context import RunContext
    from rankline.runtime.run_step import StepSpec, run_step

    context = RunContext.from_parameters(run, job)
    run_step(
        StepSpec(
            name="publish",
            function=publish,
            config=CatalogueConfig(**config),
            inputs={"revision": Path(revision.path)},
            arguments={"repository": context.repository, "run_id": context.run_id},
            reuse=False,
        ),
        context,
    )

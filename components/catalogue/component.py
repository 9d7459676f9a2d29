"""The doors of catalogue: `catalogue` makes and checks a revision, `publish` has the champion serve over it.

The small one at the end does nothing; on a cluster it says by having run that nothing had changed (a refusal is said
by the task of that name, see components/promote/component.py).
"""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from components.images import DATA, EVALUATE


@dsl.component(base_image=EVALUATE, install_kfp_package=False)
def catalogue(raw: Input[Dataset], config: dict, run: dict, job: str, champion: str, revision: Output[Dataset]) -> str:
    """Embed the changed items with the champion and check what comes of it; the outcome is what it returns."""
    from pathlib import Path

    from components.catalogue.config import CatalogueConfig
    from components.catalogue.lineage import lineage
    from components.catalogue.step import catalogue
    from rankline.runtime.lineage import LineageFacts
    from rankline.runtime.run_step import RunContext, run_step

    settings, context = CatalogueConfig(**config), RunContext.from_parameters(run, job)
    decided_by = lineage(settings, LineageFacts(run=context, champion=champion))
    result = run_step(
        "catalogue",
        catalogue,
        settings,
        run=context,
        inputs={"raw": Path(raw.path)},
        outputs={"revision": Path(revision.path)},
        code=("serving.server",),
        lineage=decided_by,
        preload=("onnxruntime", "faiss", "scipy.sparse", "pyarrow.parquet"),
        fetched=lambda: {"bundle": context.champion_bundle(champion)},
        serves_over=decided_by["serves over"],
    )
    return result["outcome"]


@dsl.component(base_image=DATA, install_kfp_package=False)
def publish(revision: Input[Dataset], config: dict, run: dict, job: str):
    """Have the champion serve over the checked revision."""
    from pathlib import Path

    from components.catalogue.config import CatalogueConfig
    from components.catalogue.step import publish
    from rankline.runtime.run_step import RunContext, run_step

    context = RunContext.from_parameters(run, job)
    run_step(
        "publish",
        publish,
        CatalogueConfig(**config),
        run=context,
        reuse=False,
        inputs={"revision": Path(revision.path)},
        outputs={},
        repository=context.repository,
        run_id=context.run_id,
    )


@dsl.component(base_image=DATA, install_kfp_package=False)
def unchanged():
    """The verdict: every item is as it was."""


OUTCOME_TASKS = {"unchanged": unchanged}  # outcome of `catalogue` -> the door that says it

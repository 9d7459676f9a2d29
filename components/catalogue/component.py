"""The Kubeflow components of catalogue: `catalogue` builds and checks a revision, `publish` makes it the served one.

`unchanged` does nothing: on a cluster it runs if nothing changed, so that the outcome can be seen. A refusal runs the
task of that name (components/promote/component.py).
"""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from components.images import DATA, EVALUATE


@dsl.component(base_image=EVALUATE, install_kfp_package=False)
def catalogue(raw: Input[Dataset], config: dict, run: dict, job: str, champion: str, revision: Output[Dataset]) -> str:
    """Embed the changed items with the champion and check the new catalogue; returns the outcome."""
    from pathlib import Path

    from components.catalogue.config import CatalogueConfig
    from components.catalogue.step import catalogue, served_revision
    from rankline.runtime.run_step import RunContext, run_step

    context = RunContext.from_parameters(run, job)
    serves_over = served_revision(champion, repository=context.repository)
    result: dict[str, str] = run_step(
        "catalogue",
        catalogue,
        CatalogueConfig(**config),
        run=context,
        inputs={"raw": Path(raw.path)},
        outputs={"revision": Path(revision.path)},
        code=("serving.server",),
        lineage={"champion": champion, "serves over": serves_over},
        preload=("onnxruntime", "faiss", "scipy.sparse", "pyarrow.parquet"),
        fetched=lambda: {"bundle": context.champion_bundle(champion)},
        serves_over=serves_over,
    )
    return result["outcome"]


@dsl.component(base_image=DATA, install_kfp_package=False)
def publish(revision: Input[Dataset], config: dict, run: dict, job: str):
    """Let the champion serve over the checked revision."""
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
    """The verdict: no item changed."""


OUTCOME_TASKS = {"unchanged": unchanged}  # outcome of `catalogue` -> the component that shows it

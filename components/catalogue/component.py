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
    from components.catalogue.step import catalogue, present
    from rankline.runtime.run_step import Run, perform

    here = Run.of(run, job)
    serves_over = present(champion, repository=here.repository)
    result = perform(
        "catalogue",
        catalogue,
        CatalogueConfig(**config),
        run=here,
        inputs={"raw": Path(raw.path)},
        outputs={"revision": Path(revision.path)},
        code=("serving.server",),
        lineage={"champion": champion, "serves over": serves_over},
        heavy=("onnxruntime", "faiss", "scipy.sparse", "pyarrow.parquet"),
        fetched=lambda: {"bundle": here.served(champion)},
        serves_over=serves_over,
    )
    return result["outcome"]


@dsl.component(base_image=DATA, install_kfp_package=False)
def publish(revision: Input[Dataset], config: dict, run: dict, job: str):
    """Have the champion serve over the checked revision."""
    from pathlib import Path

    from components.catalogue.config import CatalogueConfig
    from components.catalogue.step import publish
    from rankline.runtime.run_step import Run, perform

    here = Run.of(run, job)
    perform(
        "publish",
        publish,
        CatalogueConfig(**config),
        run=here,
        reuse=False,
        inputs={"revision": Path(revision.path)},
        outputs={},
        repository=here.repository,
        run_id=here.run_id,
    )


@dsl.component(base_image=DATA, install_kfp_package=False)
def unchanged():
    """The verdict: every item is as it was."""


SAID = {"unchanged": unchanged}  # outcome of `catalogue` -> the door that says it

"""The Kubeflow component of ingest."""

from kfp import dsl
from kfp.dsl import Dataset, Output

from components.images import DATA


@dsl.component(base_image=DATA, install_kfp_package=False)
def ingest(
    config: dict,
    run: dict,
    job: str,
    source_digest: str,
    raw: Output[Dataset],
    scheduled_at: str = "",
    schedule_time: str = "",
):
    """Turn the source into the canonical tables, and reject bad rows with their reasons."""
    from pathlib import Path

    from components.ingest.config import IngestConfig
    from components.ingest.step import ingest
    from components.ingest.window import with_scheduled_window
    from rankline.runtime.run_step import RunContext, run_step

    context = RunContext.from_parameters(run, job)
    run_step(
        "ingest",
        ingest,
        with_scheduled_window(
            IngestConfig(**config), run.get("schedule"), (scheduled_at, schedule_time), context.folder
        ),
        run=context,
        inputs={},
        outputs={"raw": Path(raw.path)},
        lineage={"source": source_digest},
        preload=("duckdb", "pyarrow.parquet"),
    )

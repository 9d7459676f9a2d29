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
    """Convert the source into the canonical tables, and write rejected rows with their reasons."""
    from pathlib import Path

    from components.ingest.config import IngestConfig
    from components.ingest.lineage import erased_users, lineage
    from components.ingest.step import ingest
    from components.ingest.window import with_scheduled_window
    from rankline.runtime.lineage import LineageFacts
    from rankline.runtime.run_context import RunContext
    from rankline.runtime.run_step import StepSpec, run_step

    context = RunContext.from_parameters(run, job)
    scheduled_times = (scheduled_at, schedule_time)
    settings = with_scheduled_window(IngestConfig(**config), run.get("schedule"), scheduled_times, context.folder)
    run_step(
        StepSpec(
            name="ingest",
            function=ingest,
            config=settings,
            outputs={"raw": Path(raw.path)},
            load_arguments=lambda: {"erased": erased_users(context)},
            lineage=lambda: lineage(settings, LineageFacts(run=context, source=source_digest)),
            preload=("duckdb", "pyarrow.parquet"),
        ),
        context,
    )

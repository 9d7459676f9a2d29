"""The Kubeflow component of summary, the pipeline's exit handler."""

from kfp import dsl
from kfp.dsl import PipelineTaskFinalStatus

from components.images import DATA


@dsl.component(base_image=DATA, install_kfp_package=False)
def summary(config: dict, run: dict, job: str, status: PipelineTaskFinalStatus):
    """Summarize the run from its ledger, however it ended."""
    from components.summary.config import SummaryConfig
    from components.summary.step import summarize
    from rankline.runtime.run_context import RunContext

    context = RunContext.from_parameters(run, job)
    context.download_run()
    ended = summarize(context.folder, config=SummaryConfig(**config), kubeflow_status=status.state)
    context.announce_end(ended)
    context.upload_run()

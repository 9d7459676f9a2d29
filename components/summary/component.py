"""The Kubeflow component of summary, the pipeline's exit handler."""

from kfp import dsl
from kfp.dsl import PipelineTaskFinalStatus

from components.images import DATA


@dsl.component(base_image=DATA, install_kfp_package=False)
def summary(config: dict, run: dict, job: str, status: PipelineTaskFinalStatus):
    """Summarize the run from its ledger, however it ended."""
    from components.summary.config import SummaryConfig
    from components.summary.step import summarize_run
    from rankline.runtime.run_context import RunContext

    context = RunContext.from_parameters(run, job)
    context.download_run()
    message = status.error_message or ""
    ended = summarize_run(context, config=SummaryConfig(**config), state=status.state, message=message)
    context.announce_end(ended)
    context.upload_run()

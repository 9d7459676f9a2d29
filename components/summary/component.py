"""The Kubeflow door of summary: the flow's exit handler."""

from kfp import dsl
from kfp.dsl import PipelineTaskFinalStatus

from components.images import DATA


@dsl.component(base_image=DATA, install_kfp_package=False)
def summary(config: dict, run: dict, job: str, status: PipelineTaskFinalStatus):
    """Write what the run did, from its ledger, however it ended."""
    from components.summary.config import SummaryConfig
    from components.summary.step import summarize
    from rankline.runtime.run_step import RunContext

    summarize(RunContext.from_parameters(run, job).folder, config=SummaryConfig(**config), kubeflow_status=status.state)

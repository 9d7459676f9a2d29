"""What the steps of a run say of it themselves: the verdict with its numbers, the error of a failed step, the model.

The API knows none of that. Three places do, and the first that answers is asked: the run's ledger, where the cluster's
workspace is mounted here; the last line that the step printed, through the API's log endpoint; and, for a pod that was
killed or never began, Kubernetes.
"""

from __future__ import annotations

from typing import Any

from pipelines.kubeflow import logs
from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.nodes import executor_of, latest_states, step_of, step_pods, tasks_of
from pipelines.kubeflow.pods import Pods, PodStatus, setting_for
from pipelines.kubeflow.run_package import RunPackage, size_setting
from pipelines.kubeflow.run_summary import kubectl_logs_command
from rankline.runtime import ledger
from rankline.runtime.outcomes import has_verdict
from rankline.runtime.pod_output import PodOutput
from rankline.runtime.steps import DECIDING_STEPS

_SIGKILL_STATUS = 137
_ENDED = ("done", "failed", "cancelled")


class RunReporter:
    """Adds to the summaries of one run what its steps and pods say."""

    def __init__(self, cluster: Cluster, run: Any) -> None:
        self.cluster, self.package = cluster, RunPackage(cluster, run)
        self._pods = Pods(cluster)
        self._waited: dict[str, str] = {}  # step -> why its pod waited when that could last be read

    def add_waiting(self, run: Any, summary: dict[str, Any]) -> None:
        """Add to each pending step why it waits, as far as Kubernetes says."""
        pending = [step for step in summary["steps"] if step["status"] == "pending"]
        if not pending:
            return
        statuses = self._statuses_by_step(run)
        for step in pending:
            if (status := statuses.get(step["step"])) and status.reason:
                self._waited[step["step"]] = self._with_setting(step["step"], status.reason)
            step["why"] = self._waited.get(step["step"], "waits for its pod to begin")

    def add_results(self, run: Any, summary: dict[str, Any]) -> None:
        """Add the results of the steps that ended: of the deciding one the verdict, of a failed one its error."""
        outputs = self._outputs(run, summary)
        for step in summary["steps"]:
            if result := outputs.get(step["step"], PodOutput()).result:
                _merge(step, result)
        decision: dict[str, Any] = next(
            (step["result"] for step in summary["steps"] if step["step"] in DECIDING_STEPS), {}
        )
        if has_verdict(summary["outcome"]) and decision:
            summary["verdict"] = decision.get("sentence") or summary["verdict"]
            summary["reasons"] = decision.get("failures", [])
        summary["model_id"] = decision.get("model_id", "")
        failed = next((step for step in summary["steps"] if step["step"] == summary["failed_step"]), None)
        if failed is not None:
            failed["error"] = failed["error"] or self._failure(run, failed["step"], outputs.get(failed["step"]))
            summary["error"] = failed["error"]

    def _outputs(self, run: Any, summary: dict[str, Any]) -> dict[str, PodOutput]:
        """What can be read of the steps that ended; where one pod's log is gone, those before it are not asked for."""
        if folder := self.package.run_folder(run.run_id):
            entries = ledger.read_entries(folder)
            return {step: PodOutput(result=entry.model_dump(mode="json")) for step, entry in entries.items()}
        outputs: dict[str, PodOutput] = {}
        ended = [step["step"] for step in summary["steps"] if step["status"] in _ENDED]
        for step in reversed(ended):
            pod = logs.latest_pod(run, step)
            output = logs.read_output(self.cluster, run.run_id, pod) if pod else None
            if output is not None:
                outputs[step] = output
            elif pod and step != summary["failed_step"]:
                break
        return outputs

    def _failure(self, run: Any, step: str, output: PodOutput | None) -> str:
        """Why a step failed that wrote no error: it was killed, or never began."""
        status = self._statuses_by_step(run).get(step)
        killed = output is not None and output.exit_status == _SIGKILL_STATUS
        if killed or (status and status.out_of_memory):
            memory = self.package.memory(step)
            return f"killed for memory: raise {size_setting(step, 'memory')}" + (f" ({memory})" if memory else "")
        reason = self._with_setting(step, status.reason) if status and status.reason else self._waited.get(step, "")
        pod = self._pod_name(run, step, status)
        if _never_began(run, step) and (output is None or not output.lines):
            namespace = self.cluster.kubectl_namespace()
            return f"its pod never began: {reason or f'see `kubectl {namespace} describe pod {pod}`'}"
        hint = f"see `{kubectl_logs_command(self.cluster, run.run_id, pod)}`"
        return f"{reason}; {hint}" if reason else f"it ended without an error message; {hint}"

    def _pod_name(self, run: Any, step: str, status: PodStatus | None) -> str:
        if status is not None:
            return status.pod
        return logs.pod_name(run, step, self.package)

    def _statuses_by_step(self, run: Any) -> dict[str, PodStatus]:
        statuses = self._pods.statuses(run.run_id)
        return {pod.step: statuses[pod.node_id] for pod in step_pods(run) if pod.node_id in statuses}

    def _with_setting(self, step: str, reason: str) -> str:
        setting = setting_for(step, reason)
        return f"{reason} (see {setting})" if setting and setting not in reason else reason


def _merge(step: dict[str, Any], result: dict[str, Any]) -> None:
    """Add what the ledger has of a step to what the API has."""
    fields = ("why", "import_s", "work_s", "core_s", "result", "error")
    step |= {name: result[name] for name in fields if name in result}
    step["peak_memory_mb"] = round(result.get("peak_memory_bytes", 0) / 2**20)
    if step["status"] == "done" and result.get("status") == "reused":
        step["status"] = "reused"


def _never_began(run: Any, step: str) -> bool:
    """Whether the API saw the pod of a step wait and fail, and never run."""
    tasks = tasks_of(run)
    for task in tasks:
        if step_of(task.display_name or "") == step and (pod := executor_of(task, tasks)):
            return not any(each.state == "RUNNING" for each in latest_states(pod.state_history))
    return False

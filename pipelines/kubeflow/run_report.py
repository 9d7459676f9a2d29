"""What the steps of a run say of it themselves: the verdict with its numbers, the error of a failed step, the model.

The API knows none of that. Four places do, and the first that answers is asked: the run's ledger, where the cluster's
workspace is mounted here; the last line that the step printed, through the API's log endpoint; for a pod that was
killed or never began, Kubernetes; and for a verdict the model registry.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipelines.kubeflow import logs
from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.log_hint import log_hint, pods_are_gone
from pipelines.kubeflow.model_ids import recorded_verdict
from pipelines.kubeflow.nodes import latest_pods, never_began, step_pods
from pipelines.kubeflow.packed_runs import add_parts
from pipelines.kubeflow.pods import Pods, PodStatus, setting_for
from pipelines.kubeflow.run_package import RunPackage, size_setting
from pipelines.kubeflow.run_summary import add_entry, is_undecided, summarize_run
from rankline.errors import EXIT_STALE
from rankline.runtime import ledger
from rankline.runtime.outcomes import Outcome, has_verdict
from rankline.runtime.pod_output import PodOutput
from rankline.runtime.run_summary import read_cancelled
from rankline.runtime.steps import ALL_STEPS, DECIDING_STEPS

WAITS = "waits for its pod to begin"  # why a step is pending of which no more can be read
_SIGKILL_STATUS = 137
_COMPARING_STEPS = (*DECIDING_STEPS, "promote", "publish")  # they fail where another model came to serve meanwhile
_ENDED = ("done", "reused", "failed", "cancelled")


def summarize_listed_runs(cluster: Cluster, runs: Sequence[Any]) -> list[dict[str, Any]]:
    """The summaries of runs from a list, which may come without tasks; ``runs`` are the latest first."""
    summaries, readable = [], True
    for run in runs:
        summary = summarize_run(cluster, run)
        if not summary["steps"] and summary["outcome"] in (Outcome.INCOMPLETE, Outcome.CANCELLED, Outcome.FAILED):
            run = cluster.run(run.run_id)
            summary = summarize_run(cluster, run)
        if readable and is_undecided(run, summary["outcome"]):  # pods go an hour after their run
            readable = RunReporter(cluster, run).add_parts(run, summary)
        if readable and summary["failed_step"] in _COMPARING_STEPS:
            readable = _add_staleness(cluster, run, summary)
        summaries.append(summary)
    return summaries


def _add_staleness(cluster: Cluster, run: Any, summary: dict[str, Any]) -> bool:
    """Say of a failed run that its comparison came too late, if its step says so; False where its log is gone."""
    pod = latest_pods(run).get(summary["failed_step"])
    output = logs.read_output(cluster, run.run_id, pod) if pod else None
    if output is not None and output.result.get("exit_code") == EXIT_STALE:
        summary["outcome"], summary["verdict"] = Outcome.STALE.value, Outcome.STALE.sentence
    return output is not None


class RunReporter:
    """Adds to the summaries of one run what its steps and pods say."""

    def __init__(self, cluster: Cluster, run: Any) -> None:
        self.cluster, self.package = cluster, RunPackage(cluster, run)
        self._pods = Pods(cluster)
        self._parts: dict[str, PodOutput] = {}  # step that shared a pod which has ended -> what it left
        self._waited: dict[str, str] = {}  # step -> why its pod waited when that could last be read

    def add_parts(self, run: Any, summary: dict[str, Any]) -> bool:
        """Give each step that shares a pod its own state; False where one cannot be known."""
        return add_parts(self.cluster, run, summary, read_entries=lambda: self._entries(run), known=self._parts)

    def add_waiting(self, run: Any, summary: dict[str, Any]) -> None:
        """Add to each pending step why it waits, as far as Kubernetes says."""
        pending = [step for step in summary["steps"] if step["status"] == "pending"]
        if not pending:
            return
        statuses = self._statuses_by_step(run)
        for step in pending:
            if (status := statuses.get(step["step"])) and status.reason:
                self._waited[step["step"]] = self._with_setting(step["step"], status.reason)
            step["why"] = self._waited.get(step["step"], WAITS)

    def add_results(self, run: Any, summary: dict[str, Any]) -> None:
        """Add the results of the steps that ended: of the deciding one the verdict, of a failed one its error."""
        outputs = self._outputs(run, summary)
        for step in summary["steps"]:
            if result := outputs.get(step["step"], PodOutput()).result:
                add_entry(step, result)
        decision: dict[str, Any] = next(
            (step["result"] for step in summary["steps"] if step["step"] in DECIDING_STEPS), {}
        )
        if has_verdict(summary["outcome"]) and not decision:  # its pod is gone
            decision = recorded_verdict(self.cluster, self.package.context(run.run_id), run.run_id)
        if has_verdict(summary["outcome"]) and decision:
            summary["verdict"] = decision.get("sentence") or summary["verdict"]
            summary["reasons"] = decision.get("failures", [])
            if summary["outcome"] == Outcome.REFUSED:  # the pipeline has one branch for every refusal
                summary["outcome"] = Outcome.of_verdict(decision.get("outcome", Outcome.REFUSED.verdict)).value
        summary["model_id"] = decision.get("model_id", "")
        if summary["outcome"] == Outcome.CANCELLED:
            summary["error"] = summary["error"] or self._why_cancelled(run)
        for step in summary["steps"]:
            if step["status"] == "cancelled" and never_began(run, step["step"]):
                step["why"] = "its pod had not begun"
        failed = next((step for step in summary["steps"] if step["step"] == summary["failed_step"]), None)
        if failed is not None:
            output = outputs.get(failed["step"])
            failed["error"] = failed["error"] or self._failure(run, failed["step"], output)
            summary["error"] = failed["error"]
            if output is not None and output.result.get("exit_code") == EXIT_STALE:
                summary["outcome"], summary["verdict"] = Outcome.STALE.value, Outcome.STALE.sentence

    def _outputs(self, run: Any, summary: dict[str, Any]) -> dict[str, PodOutput]:
        """What can be read of the steps that ended; where one pod's log is gone, those before it are not asked for."""
        entries, pods = self._entries(run), latest_pods(run)
        outputs = {step: PodOutput(result=entry.model_dump(mode="json")) for step, entry in entries.items()}
        ended = [step["step"] for step in summary["steps"] if step["status"] in _ENDED and step["step"] in ALL_STEPS]
        for step in reversed(ended):
            if step in entries and entries[step].status != "running":  # as it stays where the process was killed
                continue
            pod = pods.get(step)
            output = logs.read_output(self.cluster, run.run_id, pod) if pod else None
            if output is not None:
                outputs[step] = output
            elif pod and step != summary["failed_step"]:
                break
        return outputs

    def _entries(self, run: Any) -> dict[str, ledger.Entry]:
        folder = self.package.run_folder(run.run_id)
        return ledger.read_entries(folder) if folder else {}

    def _why_cancelled(self, run: Any) -> str:
        """Why a command gave the run up, as it noted in the run's folder; empty where a user cancelled it."""
        folder = self.package.run_folder(run.run_id)
        return read_cancelled(folder).get("why", "") if folder else ""

    def _failure(self, run: Any, step: str, output: PodOutput | None) -> str:
        """Why a step failed that wrote no error: it was killed, or never began."""
        status = self._statuses_by_step(run).get(step)
        killed = output is not None and output.exit_status == _SIGKILL_STATUS
        if status.out_of_memory if status and status.reason else killed:
            memory = self.package.memory(step)
            return f"killed for memory: raise {size_setting(self.package.row(step), 'memory')}" + (
                f" ({memory})" if memory else ""
            )
        reason = self._with_setting(step, status.reason) if status and status.reason else self._waited.get(step, "")
        pod = self._pod_name(run, step, status)
        if never_began(run, step) and (output is None or not output.lines):
            return f"its pod never began: {reason or self._describe_hint(run, pod, exists=status is not None)}"
        hint = f"see {log_hint(self.cluster, run, self.package, step=step, pod=pod, pod_exists=status is not None)}"
        return f"{reason}; {hint}" if reason else f"it ended without an error message; {hint}"

    def _describe_hint(self, run: Any, pod: str, *, exists: bool) -> str:
        if not exists and pods_are_gone(run, self.package):
            return "it is gone, and so are its events"
        which = f"pod {pod}" if pod else f"pod -l pipeline/runid={run.run_id}"
        return f"see `kubectl {self.cluster.kubectl_namespace()} describe {which}`"

    def _pod_name(self, run: Any, step: str, status: PodStatus | None) -> str:
        if status is not None:
            return status.pod
        return logs.pod_name(run, step, self.package)

    def _statuses_by_step(self, run: Any) -> dict[str, PodStatus]:
        statuses = self._pods.statuses(run.run_id)
        return {pod.step: statuses[pod.node_id] for pod in step_pods(run) if pod.node_id in statuses}

    def _with_setting(self, step: str, reason: str) -> str:
        setting = setting_for(self.package.row(step), reason)
        return f"{reason} (see {setting})" if setting and setting not in reason else reason

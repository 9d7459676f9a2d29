"""The steps of a run that share a pod (pipelines/packed.py): each with its own status, and the verdict of the last one.

The API knows the task that they share. What each of them did stands in its ledger entry, in the run's folder where that
can be read here, else in the log of the pod.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.logs import output_of, read_pod_log
from pipelines.kubeflow.nodes import StepPod, latest_pods
from pipelines.kubeflow.run_summary import add_entry, is_undecided
from rankline.runtime.ledger import Entry
from rankline.runtime.outcomes import Outcome
from rankline.runtime.pod_output import PodOutput

_BEGUN = ("running", "done", "failed", "cancelled")  # states of a pod


def add_parts(
    cluster: Cluster,
    run: Any,
    summary: dict[str, Any],
    *,
    read_entries: Callable[[], Mapping[str, Entry]],
    known: dict[str, PodOutput],
) -> bool:
    """Give each step that shares a pod its own state; False where one cannot be known, and has that of the pod.

    Args:
        read_entries: reads those of the run's ledger that can be read here.
        known: what the steps of pods that have ended left, which is read once.
    """
    pods = {step: pod for step, pod in latest_pods(run).items() if pod.parts}
    shared = [step for step in summary["steps"] if step["step"] in pods and step["status"] in _BEGUN]
    if not shared:
        return True
    unknown = [pods[step["step"]] for step in shared if step["step"] not in known]
    outputs = known | (_outputs(cluster, run, unknown, read_entries()) if unknown else {})
    known |= {name: outputs[name] for name in outputs.keys() & {s["step"] for s in shared if s["status"] == "done"}}
    failed = summary["failed_step"]
    elapsed_s, pod_s = 0.0, 0.0  # in the steps before it in the same pod, and in all
    for step in shared:
        name = step["step"]
        if name == pods[name].parts[0]:
            elapsed_s, pod_s = 0.0, step["seconds"]
        if name not in outputs:
            step["why"] = f"shares a pod with {', '.join(each for each in pods[name].parts if each != name)}"
            continue
        _set_state(step, outputs[name], remaining_s=max(pod_s - elapsed_s, 0.0))
        elapsed_s += step["seconds"]
    summary["steps"] = [step for step in summary["steps"] if step["status"]]
    if failed in pods:
        summary["failed_step"] = next((each["step"] for each in summary["steps"] if each["status"] == "failed"), failed)
    decision = outputs["decide"].result.get("result", {}) if "decide" in outputs else {}
    if is_undecided(run, summary["outcome"]) and decision:
        outcome = Outcome.of_verdict(decision.get("outcome", ""))
        summary["outcome"], summary["verdict"] = outcome.value, outcome.sentence
    return all(step["step"] in outputs for step in shared)


def _outputs(cluster: Cluster, run: Any, pods: list[StepPod], entries: Mapping[str, Entry]) -> dict[str, PodOutput]:
    """Step -> what it left; the latest pod first, and none of those before one whose log is gone."""
    outputs: dict[str, PodOutput] = {}
    for node in dict.fromkeys(pod.node_id for pod in reversed(pods)):
        own = [pod for pod in pods if pod.node_id == node]
        if any(pod.step in entries for pod in own):
            outputs |= {pod.step: _output_of_entry(entries.get(pod.step)) for pod in own}
            continue
        log = read_pod_log(cluster, run.run_id, own[0])
        if isinstance(log, str):
            break
        outputs |= {pod.step: output_of(pod, log) for pod in own}
    return outputs


def _output_of_entry(entry: Entry | None) -> PodOutput:
    if entry is None:
        return PodOutput()
    return PodOutput(begun=True, result={} if entry.status == "running" else entry.model_dump(mode="json"))


def _set_state(step: dict[str, Any], output: PodOutput, *, remaining_s: float) -> None:
    """The state of one step by that of its pod; none where the pod did not come to it."""
    pod_status, result = step["status"], output.result
    step["seconds"] = remaining_s if output.begun else 0.0
    if result:
        step["seconds"] = round(max((result.get("finished") or 0.0) - result.get("started", 0.0), 0.0), 2)
        if pod_status != "cancelled" or result.get("status") != "failed":
            step["status"] = "failed" if result.get("status") == "failed" else "done"
        add_entry(step, result)
    elif not output.begun and not output.lines:
        step["status"] = "skipped" if pod_status in ("failed", "cancelled") else ""

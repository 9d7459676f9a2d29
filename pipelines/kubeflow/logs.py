"""The logs of a run's steps: from their pods, as the API server passes them on, or from the run's folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.log_hint import log_hint
from pipelines.kubeflow.nodes import StepPod, latest_pods, never_began, step_pods
from pipelines.kubeflow.run_package import RunPackage
from pipelines.runs.logs import LogLine
from pipelines.steps import VERDICT_TASKS
from rankline.errors import AccessError, RanklineError, UsageError
from rankline.io.files import json_object
from rankline.runtime.pod_output import PodOutput, part_of_log, read_pod_output
from rankline.runtime.step_log import log_path


def pod_name(run: Any, step: str, package: RunPackage) -> str:
    """The name of the pod of a step's latest attempt; empty where none was created, or where it cannot be known."""
    pod = latest_pods(run).get(step)
    return pod.pod_name(retries=package.has_retries(step)) if pod and package.known else ""


def read_pod_log(cluster: Cluster, run: str, pod: StepPod) -> list[str] | str:
    """The lines of a pod's log, from the pod itself or the server's archive; a text says why there are none."""
    reasons = []
    for name in pod.log_names:
        log = _request_log(cluster, run, name)
        if not isinstance(log, str):
            return log
        reasons.append(log)
    return reasons[0]


def _request_log(cluster: Cluster, run: str, name: str) -> list[str] | str:
    api = cluster.client._run_api.api_client
    try:
        response = api.call_api(
            "/apis/v1alpha1/runs/{run_id}/nodes/{node_id}/log", "GET", {"run_id": run, "node_id": name}, [], {},
            auth_settings=["Bearer"], _preload_content=False, _return_http_data_only=True,
        )  # fmt: skip
    except (AccessError, UsageError) as error:
        return error.one_line
    if "html" in (response.headers.get("content-type") or "").lower():
        return "a page in place of a log"
    text = response.data.decode(errors="replace")
    return _error_in(text) or text.splitlines()


def _error_in(text: str) -> str:
    """The message of an error that comes in the place of a log: the server sends 200 before it looks for the pod."""
    return str(json_object(text).get("error_message", "")) if text.startswith("{") else ""


def read_output(cluster: Cluster, run: str, pod: StepPod) -> PodOutput | None:
    """What a step printed in its pod; None where the log cannot be read."""
    log = read_pod_log(cluster, run, pod)
    return None if isinstance(log, str) else output_of(pod, log)


def output_of(pod: StepPod, log: list[str]) -> PodOutput:
    """What a step printed, in the log of a pod that it may share with others."""
    return read_pod_output(part_of_log(log, pod.step, is_first=pod.step == pod.parts[0]) if pod.parts else log)


def read_step_file(package: RunPackage, run: str, step: str) -> list[str] | None:
    """The log that a step left in the run's folder; None where the cluster's workspace is not mounted here."""
    folder = package.run_folder(run)
    path = log_path(folder, step) if folder else None
    return path.read_text(errors="replace").splitlines() if path and path.is_file() else None


class RunLogs:
    """The logs of a run's steps, read again and again while it runs."""

    def __init__(self, cluster: Cluster, run: Any, step: str, *, everything: bool) -> None:
        self.cluster, self.step, self.everything = cluster, step, everything
        self.package = RunPackage(cluster, run)
        self._printed: dict[StepPod, int] = {}  # pod -> lines that were returned
        self._finished: set[StepPod] = set()
        self._unreadable: dict[str, str] = {}  # step -> why its log cannot be read

    def new_lines(self, run: Any, *, complete: bool) -> Iterator[LogLine]:
        """What the steps printed since the last call; of a step that has not begun its work only if ``complete``."""
        for pod in step_pods(run):
            if self.step not in ("", pod.step) or pod.step in VERDICT_TASKS or pod in self._finished:
                continue
            if self.everything and not self.step and pod.step in pod.parts[1:]:  # it is in the log of the first one
                continue
            lines = self._lines(run.run_id, pod, complete=complete)
            if lines is not None:
                yield from (LogLine(pod.step, line) for line in lines[self._printed.get(pod, 0) :])
                self._printed[pod] = max(len(lines), self._printed.get(pod, 0))

    def _lines(self, run: str, pod: StepPod, *, complete: bool) -> list[str] | None:
        log = read_pod_log(self.cluster, run, pod)
        if isinstance(log, str):
            lines = read_step_file(self.package, run, pod.step)
            if lines is None and pod not in self._printed:
                self._unreadable[pod.step] = log
            return lines
        self._unreadable.pop(pod.step, None)
        if self.everything:
            return log
        output = output_of(pod, log)
        if output.result:
            self._finished.add(pod)
        return output.lines if output.begun or complete else None

    def check_complete(self, run: Any) -> None:
        """Refuse where a log could be read nowhere, or where there is none.

        Raises:
            RanklineError: the error has the command for kubectl.
        """
        steps = [step for step in self._unreadable if self.step or not never_began(run, step)]
        if self._printed and not steps:
            return
        steps = steps or list(self._unreadable) or [self.step]
        pod = pod_name(run, steps[-1], self.package) if steps[-1] else ""
        reason = next(iter(self._unreadable.values()), "no pod of it has begun")
        where = self.cluster.ui_url("runs", run.run_id)
        raise RanklineError(
            f"the log of {', '.join(steps)} cannot be read" if steps[-1] else "the run has no log yet",
            expected="its pod, an archive of logs behind the API server, or the cluster's workspace mounted here",
            found=reason,
            where=where,
            hint=log_hint(self.cluster, run, self.package, step=steps[-1] if len(steps) == 1 else "", pod=pod),
        )

"""The runs of a cluster: submit, follow, list, cancel and retry them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipelines.kubeflow import logs
from pipelines.kubeflow.client import Cluster, quiet_stdout
from pipelines.kubeflow.errors import NotFound, Unreachable
from pipelines.kubeflow.limits import check_limits
from pipelines.kubeflow.log_hint import pods_are_gone
from pipelines.kubeflow.logs import RunLogs
from pipelines.kubeflow.model_ids import model_ids
from pipelines.kubeflow.packages import Version, list_own_runs, list_pipelines, parse_pipeline_name
from pipelines.kubeflow.run_package import RunPackage, size_setting
from pipelines.kubeflow.run_report import RunReporter, summarize_listed_runs
from pipelines.kubeflow.run_summary import flow_of, is_running, kubectl_logs_command, summarize_run
from pipelines.kubeflow.scheduled_workflows import unstored_run
from pipelines.runs.logs import LogLine
from pipelines.runs.store import LAST, RunInfo
from pipelines.steps import STEPS
from rankline.errors import RanklineError, UsageError
from rankline.runtime.outcomes import Outcome, has_verdict

DEFAULT_EXPERIMENT = "rankline"
UNREACHABLE_TIMEOUT_S = 300.0
CANCEL_TIMEOUT_S = 300.0  # Argo ends the pods, then starts two more for the exit handler: about a minute
PENDING_GRACE_S = 30.0  # Kubernetes itself ends a pod that it has placed after the same time
SETTLE_S = 30.0  # until the tasks of a run are reported, which may come after its state


@dataclass(frozen=True)
class Submitted:
    """A submitted run."""

    run: str
    name: str
    url: str
    experiment: str
    version: Version


def submit(cluster: Cluster, version: Version, *, experiment: str = DEFAULT_EXPERIMENT, account: str = "") -> Submitted:
    """Submit a run of a version; the experiment is created where there is none.

    ``account`` is the service account of its pods, the namespace's own if empty.
    """
    name = f"{version.name} {datetime.now(UTC).strftime('%Y-%m-%d %H:%M:%S')}"
    check_limits({"run name": name, "experiment name": experiment, "service account": account})
    experiment_id = cluster.experiment_id(experiment)
    with quiet_stdout(), unstored_run(cluster, name, version.pipeline):
        run = cluster.client.run_pipeline(
            experiment_id,
            name,
            pipeline_id=version.pipeline_id,
            version_id=version.version_id,
            service_account=account or None,
        )
    return Submitted(run.run_id, name, cluster.ui_url("runs", run.run_id), experiment, version)


class RunWatch:
    """Asks for a run again and again until it has ended and its tasks are reported.

    A run with a step that has been pending for longer than the step may take is cancelled: Kubernetes ends a pod that
    runs too long, and never one that it cannot place.
    """

    def __init__(
        self, cluster: Cluster, run: str, *, timeout_s: float = UNREACHABLE_TIMEOUT_S, settle_s: float = SETTLE_S
    ) -> None:
        self.cluster, self.run, self._timeout_s, self._settle_s = cluster, run, timeout_s, settle_s
        self._last_answer_s, self._ended_s = time.monotonic(), 0.0
        self._reporter: RunReporter | None = None
        self._pending_since_s: dict[str, float] = {}
        self._gave_up = ""  # why this watch cancelled the run
        self.ended = False

    def poll(self) -> dict[str, Any] | None:
        """The summary of the run; None where the cluster does not answer at the moment.

        Raises:
            AccessError: it refuses the request, or has not answered for ``timeout_s``.
        """
        try:
            return self._poll()
        except Unreachable:
            if time.monotonic() - self._last_answer_s > self._timeout_s:
                raise
            return None

    def _poll(self) -> dict[str, Any]:
        run = self.cluster.run(self.run)
        summary, now_s = summarize_run(self.cluster, run), time.monotonic()
        self._reporter = self._reporter or RunReporter(self.cluster, run)
        self._last_answer_s = now_s
        self._reporter.add_parts(run, summary)
        if summary["outcome"] == Outcome.RUNNING:
            self._reporter.add_waiting(run, summary)
            self._give_up_on_pending(summary, now_s)
            return summary
        self._ended_s = self._ended_s or now_s
        self.ended = summary["outcome"] != Outcome.INCOMPLETE or now_s - self._ended_s > self._settle_s
        if self.ended:
            self._reporter.add_results(run, summary)
            summary["error"] = summary["error"] or self._gave_up
        return summary

    def _give_up_on_pending(self, summary: dict[str, Any], now_s: float) -> None:
        """Cancel the run once a step has been pending for longer than it may take."""
        assert self._reporter is not None
        pending = {step["step"]: step["why"] for step in summary["steps"] if step["status"] == "pending"}
        self._pending_since_s = {step: self._pending_since_s.get(step, now_s) for step in pending}
        for step, since_s in self._pending_since_s.items():
            limit_s = self._reporter.package.timeout_s(step)
            if not self._gave_up and limit_s is not None and now_s - since_s > limit_s + PENDING_GRACE_S:
                setting = f"{size_setting(self._reporter.package.row(step), 'timeout_s')} ({limit_s:.0f} s)"
                with contextlib.suppress(UsageError):  # it has ended meanwhile
                    self.cluster.client.terminate_run(self.run)
                self._gave_up = f"{step} did not begin within {setting}: {pending[step]}"
                self._reporter.package.request_cancel(self.run, self._gave_up)  # which may take a while


def follow(
    cluster: Cluster,
    run: str,
    *,
    watch: Callable[[dict[str, Any]], None] | None = None,
    poll_s: float = 5.0,
    timeout_s: float = UNREACHABLE_TIMEOUT_S,
    settle_s: float = SETTLE_S,
) -> dict[str, Any]:
    """Watch a run to its end and return its summary; ``watch`` is called with each one on the way.

    Raises:
        AccessError: the cluster refuses the request, or has not answered for ``timeout_s``; the run goes on.
    """
    run_watch = RunWatch(cluster, run, timeout_s=timeout_s, settle_s=settle_s)
    while True:
        summary = run_watch.poll()
        if summary is not None and watch is not None:
            watch(summary)
        if summary is not None and run_watch.ended:
            return summary
        time.sleep(poll_s)


class ClusterRuns:
    """The runs of a cluster, see `pipelines.runs.store.Runs`."""

    def __init__(self, cluster: Cluster, *, experiment: str = "", limit: int = 200, poll_s: float = 5.0) -> None:
        self.cluster, self.experiment, self.limit, self.poll_s = cluster, experiment, limit, poll_s

    def list(self) -> list[RunInfo]:
        """The latest runs of our pipelines, oldest first."""
        own_pipelines = list_pipelines(self.cluster)
        latest = self._latest(own_pipelines)
        summaries = {each["run"]: each for each in summarize_listed_runs(self.cluster, latest)}
        models = model_ids(self.cluster, [run for run in latest if has_verdict(summaries[run.run_id]["outcome"])])
        runs = []
        for run in reversed(latest):
            summary, model = summaries[run.run_id], models.get(run.run_id, "")
            recipe, flow = parse_pipeline_name(own_pipelines[run.pipeline_version_reference.pipeline_id])
            kind = (summary["trigger"] or {}).get("kind", "manual")
            runs.append(RunInfo(run.run_id, summary["outcome"], model, summary["seconds"], kind, recipe, flow))
        return runs

    def show(self, run: str) -> dict[str, Any]:
        """The summary of a run: what the API knows, and what its steps and pods say where that can be read."""
        current = self._run(run)
        summary, reporter = summarize_run(self.cluster, current), RunReporter(self.cluster, current)
        reporter.add_parts(current, summary)
        reporter.add_waiting(current, summary)
        reporter.add_results(current, summary)
        return summary

    def logs(self, run: str, step: str = "", *, follow: bool = False, everything: bool = False) -> Iterator[LogLine]:
        """What its steps printed; ``everything`` includes the lines of Kubeflow's launcher and of Argo.

        Raises:
            RanklineError: a log can be read nowhere; the error has the command for kubectl.
        """
        if step and step not in STEPS:
            raise UsageError(f"there is no step {step!r}", expected="one of " + ", ".join(STEPS))
        current = self._run(run)
        reader = RunLogs(self.cluster, current, step, everything=everything)
        while True:
            ended = not is_running(current)
            yield from reader.new_lines(current, complete=ended or not follow)
            if not follow or ended:
                break
            time.sleep(self.poll_s)
            current = self.cluster.run(current.run_id)
        reader.check_complete(current)

    def cancel(
        self, run: str, *, timeout_s: float = CANCEL_TIMEOUT_S, watch: Callable[[dict[str, Any]], None] | None = None
    ) -> dict[str, Any]:
        """Cancel a run, and return its summary once it has ended; ``watch`` is called with each one on the way.

        Raises:
            UsageError: it is not running.
            RanklineError: it has not ended within ``timeout_s``; it goes on being cancelled.
        """
        current = self._run(run)
        if not is_running(current):
            outcome = summarize_run(self.cluster, current)["outcome"]
            raise UsageError(f"run {current.run_id} is not running", expected="a run that has not ended", found=outcome)
        self.cluster.client.terminate_run(current.run_id)
        RunPackage(self.cluster, current).request_cancel(current.run_id)  # which may take a while
        deadline = time.monotonic() + timeout_s
        while True:
            current = self.cluster.run(current.run_id)
            summary = summarize_run(self.cluster, current)
            if summary["outcome"] != Outcome.RUNNING:
                return summary
            if time.monotonic() > deadline:
                raise RanklineError(
                    f"run {current.run_id} has not ended yet",
                    expected=f"its end within {timeout_s:.0f} s of the request",
                    found=summary["kubeflow_status"],
                    where=summary["url"],
                    hint=f"it goes on being cancelled: `rankline runs show {current.run_id}`",
                )
            if watch is not None:
                watch(summary)
            time.sleep(min(self.poll_s, 1.0))

    def retry(
        self,
        run: str,
        *,
        watch: Callable[[dict[str, Any]], None] | None = None,
        on_start: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Let the cluster continue a failed run under the same id, and follow it to its end.

        Raises:
            UsageError: the run has not ended or has succeeded, or the cluster does not retry it.
        """
        id, _ = self.restart(run)
        if on_start is not None:
            on_start(self.show(id))
        return follow(self.cluster, id, watch=watch, poll_s=self.poll_s)

    def restart(self, run: str) -> tuple[str, str]:
        """Let the cluster continue a failed or cancelled run; returns its id and the address of its page.

        Raises:
            UsageError: the run has not ended, has succeeded or would fail again, or the cluster does not retry it.
        """
        current = self._run(run)
        if (outcome := self.show(current.run_id)["outcome"]) == Outcome.STALE:
            flow = flow_of(self.cluster, current)
            raise UsageError(
                f"run {current.run_id} cannot be retried: it would compare with a model that no longer serves",
                expected="a run that failed or was cancelled",
                found=outcome,
                hint=f"`rankline submit{'' if flow == 'train' else f' --flow {flow}'}` of its recipe compares again; "
                "what is done is reused",
            )
        if outcome not in (Outcome.FAILED, Outcome.CANCELLED):
            raise UsageError(
                f"run {current.run_id} cannot be retried",
                expected="a run that failed or was cancelled",
                found=outcome,
                hint="`rankline submit` starts a new run; steps that have not changed are reused",
            )
        states = [each.state for each in current.state_history or ()]
        if "CANCELING" not in states:  # Argo drops the deadline of a run that is cancelled
            RunPackage(self.cluster, current).refuse_after_deadline(current)
        self.cluster.client._run_api.run_service_retry_run(current.run_id)
        return current.run_id, self.cluster.ui_url("runs", current.run_id)

    def logs_command(self, run: str, step: str = "") -> str:
        """The command that shows the log of a step's pod, or those of every pod of the run, drivers included.

        Empty once the pods are gone.
        """
        current = self._run(run)
        pod = logs.pod_name(current, step, RunPackage(self.cluster, current)) if step else ""
        if pods_are_gone(current, RunPackage(self.cluster, current)):
            return ""
        return kubectl_logs_command(self.cluster, current.run_id, pod)

    def _latest(self, own_pipelines: dict[str, str]) -> Sequence[Any]:
        """The latest runs of our pipelines, latest first."""
        scope: dict[str, str] = {}
        if self.experiment:
            namespace = self.cluster.namespace_or_none
            try:
                experiment = self.cluster.client.get_experiment(experiment_name=self.experiment, namespace=namespace)
            except ValueError as error:  # kfp's error where there is none
                raise UsageError(f"there is no experiment {self.experiment!r}", where=self.cluster.host) from error
            scope = {"experiment_id": experiment.experiment_id}
        return list_own_runs(self.cluster, own_pipelines, limit=self.limit, **scope)

    def _run(self, run: str) -> Any:
        if run == LAST:
            latest = self._latest(list_pipelines(self.cluster))
            if not latest:
                raise UsageError(
                    "this cluster has no run of Rankline yet",
                    where=self.cluster.host,
                    hint="`rankline submit` starts one",
                )
            run = latest[0].run_id
        try:
            return self.cluster.run(run)
        except NotFound as error:
            raise UsageError(
                f"there is no run {run!r}", expected="an id of `rankline runs list`, or last", where=self.cluster.host
            ) from error

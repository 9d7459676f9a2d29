"""Runs on a cluster: begun, followed to their end, listed, ended early, tried again.

What the API tells of a run is its state and, of each task, a name, a state and two times (`run_details.task_details`,
made from the nodes of the workflow). Parameters that a task returned are not in it. So a verdict is read off the tasks
that ran: the last step of its flow (`promote`, `publish`, `materialize`), or the one that is named after the verdict
(pipelines/training.py, pipelines/refresh.py). Which flow a run is of, its pipeline's name tells.
"""

from __future__ import annotations

import contextlib
import io
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from components.ingest.window import BACKFILL
from pipelines.kubeflow import description
from pipelines.kubeflow.client import Cluster, NotFound, Unreachable
from pipelines.kubeflow.packages import Version, list_pipelines, paginate, parse_pipeline_name
from pipelines.runs.folder import Flow
from pipelines.runs.logs import LogLine
from pipelines.runs.store import LAST, RunInfo
from pipelines.steps import STEPS, VERDICT_TASKS
from rankline.errors import AccessError, RanklineError, UsageError
from rankline.runtime.outcomes import Outcome

DEFAULT_EXPERIMENT = "rankline"
STEP_STATUS = {
    "PENDING": "pending", "RUNNING": "running", "SUCCEEDED": "done", "SKIPPED": "skipped", "FAILED": "failed",
    "CANCELING": "running", "CANCELED": "cancelled", "PAUSED": "pending",
}  # fmt: skip
_FINISHED_STATES = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}
# the last step of a flow, or the task of a verdict -> the outcome where it is done
_FINAL_TASKS = {outcome.step: outcome for outcome in Outcome if outcome.step} | VERDICT_TASKS
_LEDGER_ONLY_FIELDS = (
    "work_s",
    "import_s",
    "peak_memory_mb",
    "core_s",
    "gpu_s",
    "cost",
)  # of a step: the ledger alone knows them
_POD_HASH = re.compile(r"-(\d+)$")  # the last part of a pod's name and of its node's id
_UNSET_BEFORE_S = 86_400.0  # unix seconds: a time that is not set comes as 1970


@dataclass(frozen=True)
class Submitted:
    """A run that was begun."""

    run: str
    name: str
    url: str
    experiment: str
    version: Version


def submit(cluster: Cluster, version: Version, *, experiment: str = DEFAULT_EXPERIMENT, account: str = "") -> Submitted:
    """Begin a run of a version, in an experiment that is made where there is none.

    ``account`` is the service account its pods run as; the namespace's own if empty.
    """
    name = f"{version.name} {datetime.now(UTC).strftime('%Y-%m-%d %H:%M:%S')}"
    with contextlib.redirect_stdout(io.StringIO()):
        experiment_ref = experiment_id(cluster, experiment)
        run = cluster.client.run_pipeline(
            experiment_ref,
            name,
            pipeline_id=version.pipeline_id,
            version_id=version.version_id,
            service_account=account or None,
        )
    return Submitted(run.run_id, name, cluster.ui_url("runs", run.run_id), experiment, version)


def experiment_id(cluster: Cluster, name: str) -> str:
    """The id of an experiment, made where there is none."""
    created_id: str = cluster.client.create_experiment(name, namespace=cluster.namespace_or_none).experiment_id
    return created_id


def follow(
    cluster: Cluster,
    run: str,
    *,
    watch: Callable[[dict[str, Any]], None] | None = None,
    poll_s: float = 5.0,
    timeout_s: float = 300.0,
    settle_s: float = 30.0,
) -> dict[str, Any]:
    """Watch a run to its end, and return what `tell` tells of it then.

    A cluster that does not answer is asked again for ``patience_s``. Where a run has succeeded and no verdict is
    there yet, tasks are waited for ``settle_s`` longer: they are reported beside the state.

    Raises:
        AccessError: it lets nobody in any more, or has not answered for ``patience_s``; the run goes on.
    """
    last_answer_s, ended_s = time.monotonic(), 0.0
    while True:
        try:
            summary = summarize_run(cluster, cluster.client.get_run(run))
            last_answer_s = time.monotonic()
        except Unreachable:
            if time.monotonic() - last_answer_s > timeout_s:
                raise
            time.sleep(poll_s)
            continue
        if watch is not None:
            watch(summary)
        if summary["outcome"] != Outcome.RUNNING:
            ended_s = ended_s or time.monotonic()
            if summary["outcome"] != Outcome.INCOMPLETE or time.monotonic() - ended_s > settle_s:
                return summary
        time.sleep(poll_s)


def summarize_run(cluster: Cluster, run: Any) -> dict[str, Any]:
    """What the API says of a run, in the words of a local run's summary."""
    tasks = list((run.run_details and run.run_details.task_details) or [])
    outcome = _outcome(run, steps := _steps(tasks))
    flow = get_flow(cluster, run)
    failed = next((step for step in steps if step["status"] == "failed"), None)
    started_s, finished_s = _unix_seconds(run.created_at), _unix_seconds(run.finished_at)
    error = (run.error and run.error.message) or (failed and failed["error"]) or ""
    if outcome == Outcome.FAILED and not error:
        error = f"see `{kubectl_logs_command(cluster, run.run_id)}`" if failed else "no step of it failed; see its page"
    return {
        "run": run.run_id,
        "name": run.display_name,
        "outcome": outcome.value,
        "kubeflow_status": run.state or "",
        "verdict": outcome.sentence_for(flow),
        "reasons": [],
        "error": error if outcome == Outcome.FAILED else "",
        "failed_step": failed["step"] if failed and outcome == Outcome.FAILED else "",
        "model_id": "",
        "started": started_s,
        "seconds": None
        if outcome == Outcome.RUNNING
        else round(max((finished_s or time.time()) - (started_s or time.time()), 0.0), 2),
        "work_s": None,
        "cost": None,
        "currency": "",
        "steps": steps,
        "trigger": trigger_of(cluster, run),
        "flow": flow,
        "url": cluster.ui_url("runs", run.run_id),
    }


def summarize_listed_run(cluster: Cluster, run: Any) -> dict[str, Any]:
    """The same of a run of a list, which need not tell of tasks."""
    summary = summarize_run(cluster, run)
    if summary["outcome"] == Outcome.INCOMPLETE and not summary["steps"]:
        return summarize_run(cluster, cluster.client.get_run(run.run_id))
    return summary


def trigger_of(cluster: Cluster, run: Any) -> dict[str, Any] | None:
    """What asked for a run, as a local run's trigger.json says it; none where that was a person."""
    if run.recurring_run_id:
        recurring = get_recurring_run(cluster, run.recurring_run_id)
        scheduled = run.scheduled_at if _unix_seconds(run.scheduled_at) else None
        metadata = description.read_metadata((recurring and recurring.description) or "")
        window = (
            description.data_window(metadata, scheduled) if scheduled else description.data_window({}, run.created_at)
        )
        return {
            "kind": "scheduled",
            "schedule": recurring.display_name if recurring else run.recurring_run_id,
            "scheduled_at": scheduled.isoformat() if scheduled else "",
            **window,
        }
    if (instant := backfill_scheduled_at(run)) is None:
        return None
    unknown_window = description.data_window({}, instant)
    return {"kind": "backfill", "schedule": schedule_name(run), "scheduled_at": instant.isoformat(), **unknown_window}


def get_flow(cluster: Cluster, run: Any) -> Flow:
    """Which flow a run is of, by its pipeline, which is asked for once; the whole line where that is gone."""
    id = run.pipeline_version_reference and run.pipeline_version_reference.pipeline_id
    if not id:
        return "train"
    if id not in cluster.cache:
        try:
            cluster.cache[id] = cluster.client.get_pipeline(id)
        except NotFound:
            cluster.cache[id] = None
    pipeline = cluster.cache[id]
    return parse_pipeline_name(pipeline.display_name)[1] if pipeline else "train"


def backfill_scheduled_at(run: Any) -> datetime | None:
    """The past fire time that a run was begun for by `rankline schedule backfill`; none for any other run."""
    parameters = (run.runtime_config and run.runtime_config.parameters) or {}
    scheduled_at = str(parameters.get("scheduled_at", ""))
    return datetime.fromisoformat(scheduled_at.removeprefix(BACKFILL)) if scheduled_at.startswith(BACKFILL) else None


def schedule_name(run: Any) -> str:
    """The schedule of a backfilled run: the first word of its name."""
    return str(run.display_name).partition(" ")[0]


def get_recurring_run(cluster: Cluster, id: str) -> Any:
    """A recurring run as the API tells it, asked for once; none where it has been deleted."""
    if id not in cluster.cache:
        try:
            cluster.cache[id] = cluster.client.get_recurring_run(id)
        except NotFound:
            cluster.cache[id] = None
    return cluster.cache[id]


def _outcome(run: Any, steps: list[dict[str, Any]]) -> Outcome:
    if run.state not in _FINISHED_STATES:
        return Outcome.RUNNING
    history = {each.state for each in run.state_history or []}
    if run.state == "CANCELED" or (run.state == "FAILED" and "CANCELING" in history):
        return Outcome.CANCELLED
    if run.state == "FAILED":
        return Outcome.FAILED
    done = {step["step"] for step in steps if step["status"] == "done"}
    return next((outcome for task, outcome in _FINAL_TASKS.items() if task in done), Outcome.INCOMPLETE)


def _step_of(task: str) -> str:
    """The step of a task: Kubeflow writes names with hyphens, and `look` is how resolve_inputs was called once."""
    return {"resolve-inputs": "resolve_inputs", "look": "resolve_inputs"}.get(task, task)


def _steps(tasks: list[Any]) -> list[dict[str, Any]]:
    """Our steps among a run's tasks, in their order; the latest of several attempts."""
    by_step: dict[str, dict[str, Any]] = {}
    for task in sorted(tasks, key=lambda each: _unix_seconds(each.start_time) or float("inf")):
        name = task.display_name or ""
        step, driver = _step_of(name.removesuffix("-driver")), name.endswith("-driver")
        if step not in (*STEPS, *VERDICT_TASKS):
            continue
        status = STEP_STATUS.get(task.state or "", "pending")
        if driver and status not in ("failed", "running"):  # it goes before the step; what it did, the step shows
            continue
        if driver and step in by_step:
            continue
        started_s, finished_s = _unix_seconds(task.start_time), _unix_seconds(task.end_time)
        by_step[step] = {
            "step": step,
            "status": "running" if driver and status == "running" else status,
            "why": "",
            "seconds": round((finished_s or time.time()) - started_s, 2) if started_s else 0.0,
            **dict.fromkeys(_LEDGER_ONLY_FIELDS),
            "result": {},
            "paths": {},
            "error": (task.error and task.error.message) or "",
        }
    return [by_step[step] for step in (*STEPS, *VERDICT_TASKS) if step in by_step]


def _unix_seconds(timestamp: datetime | None) -> float | None:
    if timestamp is None:
        return None
    seconds = timestamp.timestamp()
    return seconds if seconds > _UNSET_BEFORE_S else None


def kubectl_logs_command(cluster: Cluster, run: str) -> str:
    """The command that shows what every pod of a run wrote, as long as the pods are there."""
    return f"kubectl {cluster.kubectl_namespace()} logs -l pipeline/runid={run} -c main --prefix --tail=-1"


class ClusterRuns:
    """The runs of a cluster, asked as those of a workspace are."""

    def __init__(self, cluster: Cluster, *, experiment: str = "", limit: int = 200, poll_s: float = 5.0) -> None:
        self.cluster, self.experiment, self.limit, self.poll_s = cluster, experiment, limit, poll_s

    def list(self) -> list[RunInfo]:
        """The latest runs of our pipelines, oldest first."""
        own_pipelines = list_pipelines(self.cluster)
        lines = []
        for run in reversed(self._latest(own_pipelines)):
            summary = summarize_listed_run(self.cluster, run)
            recipe, flow = parse_pipeline_name(own_pipelines[run.pipeline_version_reference.pipeline_id])
            kind = (summary["trigger"] or {}).get("kind", "manual")
            lines.append(RunInfo(run.run_id, summary["outcome"], "", summary["seconds"], kind, recipe, flow))
        return lines

    def show(self, run: str) -> dict[str, Any]:
        """A run as far as the API knows it."""
        return summarize_run(self.cluster, self._run(run))

    def logs(self, run: str, step: str = "", *, follow: bool = False, everything: bool = False) -> Iterator[LogLine]:
        """What the pods of its steps wrote, as the API server hands it on; ``everything`` is all it has anyway.

        Raises:
            RanklineError: the API server cannot hand it on; the message has the line for kubectl.
        """
        if step and step not in STEPS:
            raise UsageError(f"there is no step {step!r}", expected="one of " + ", ".join(STEPS))
        found = self._run(run)
        printed: dict[str, int] = {}
        while True:
            ended = summarize_run(self.cluster, found)["outcome"] != Outcome.RUNNING
            for name, pod in self._pods(found, step):
                lines = self._log(found.run_id, pod, quiet=follow and not ended)
                for line in lines[printed.get(pod, 0) :]:
                    yield LogLine(name, line)
                printed[pod] = max(len(lines), printed.get(pod, 0))
            if not follow or ended:
                break
            time.sleep(self.poll_s)
            found = self.cluster.client.get_run(found.run_id)
        if not printed:
            raise RanklineError(
                "the API server names no pod whose log it could hand on",
                where=self.cluster.ui_url("runs", found.run_id),
                hint=kubectl_logs_command(self.cluster, found.run_id),
            )

    def cancel(self, run: str, *, timeout_s: float = 60.0) -> dict[str, Any]:
        """End a run, and return what is told of it once it has ended.

        Raises:
            UsageError: it is not under way.
            RanklineError: it has not ended within ``patience_s``.
        """
        found = self._run(run)
        if (now := summarize_run(self.cluster, found)["outcome"]) != Outcome.RUNNING:
            raise UsageError(f"run {found.run_id} is not under way", expected="a run that goes on", found=now)
        self.cluster.client.terminate_run(found.run_id)
        deadline = time.monotonic() + timeout_s
        while (summary := self.show(found.run_id))["outcome"] == Outcome.RUNNING:
            if time.monotonic() > deadline:
                raise RanklineError(
                    f"run {found.run_id} has not ended yet",
                    expected=f"its end within {timeout_s:.0f} s of asking for it",
                    found=summary["kubeflow_status"],
                    where=summary["url"],
                )
            time.sleep(min(self.poll_s, 1.0))
        return summary

    def retry(
        self,
        run: str,
        *,
        watch: Callable[[dict[str, Any]], None] | None = None,
        on_start: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Let the cluster go on with a run that failed, and follow it to its end; the run keeps its id.

        Raises:
            UsageError: the run is still under way or has succeeded, or the cluster does not retry it.
        """
        id, _ = self.restart(run)
        if on_start is not None:
            on_start(self.show(id))
        return follow(self.cluster, id, watch=watch, poll_s=self.poll_s)

    def restart(self, run: str) -> tuple[str, str]:
        """Let the cluster go on with a run that failed or was cancelled; its id, and the address of its page.

        Raises:
            UsageError: the run is still under way or has succeeded, or the cluster does not retry it.
        """
        found = self._run(run)
        if (now := summarize_run(self.cluster, found)["outcome"]) not in (Outcome.FAILED, Outcome.CANCELLED):
            raise UsageError(
                f"run {found.run_id} has nothing to try again",
                expected="a run that failed or was cancelled",
                found=now,
                hint="`rankline submit` begins a new one; steps that have not changed are reused",
            )
        self.cluster.client._run_api.run_service_retry_run(found.run_id)
        return found.run_id, self.cluster.ui_url("runs", found.run_id)

    def logs_command(self, run: str) -> str:
        """The command that shows what the API server does not hand on."""
        return kubectl_logs_command(self.cluster, self._run(run).run_id)

    def _latest(self, own_pipelines: dict[str, str]) -> Sequence[Any]:
        """The latest runs of our pipelines, latest first."""
        where: dict[str, Any] = {"namespace": self.cluster.namespace_or_none}
        if self.experiment:
            try:
                found = self.cluster.client.get_experiment(
                    experiment_name=self.experiment, namespace=self.cluster.namespace_or_none
                )
            except ValueError as error:  # how kfp says that there is none
                raise UsageError(f"there is no experiment {self.experiment!r}", where=self.cluster.host) from error
            where = {"experiment_id": found.experiment_id}
        runs = paginate(
            lambda **page: self.cluster.client.list_runs(**where, **page),
            "runs",
            limit=self.limit,
            sort_by="created_at desc",
        )
        return [
            run
            for run in runs
            if run.pipeline_version_reference and run.pipeline_version_reference.pipeline_id in own_pipelines
        ]

    def _run(self, run: str) -> Any:
        if run == LAST:
            latest = self._latest(list_pipelines(self.cluster))
            if not latest:
                raise UsageError("there is no run of ours yet", where=self.cluster.host, hint="`rankline submit`")
            run = latest[0].run_id
        try:
            return self.cluster.client.get_run(run)
        except NotFound as error:
            raise UsageError(
                f"there is no run {run!r}", expected="an id of `rankline runs list`, or last", where=self.cluster.host
            ) from error

    def _pods(self, run: Any, only_step: str) -> Sequence[tuple[str, str]]:
        """(step, pod) of each pod that did a step's work, in the order of the steps."""
        tasks = list((run.run_details and run.run_details.task_details) or [])
        by_hash = {match[1]: task for task in tasks if (match := _POD_HASH.search(task.pod_name or task.task_id or ""))}
        found = []
        for step in [only_step] if only_step else STEPS:
            pending = [task for task in tasks if _step_of(task.display_name or "") == step]
            visited: set[int] = set()
            while pending:
                task = pending.pop()
                if id(task) in visited:
                    continue
                visited.add(id(task))
                hashes = [_POD_HASH.search(child.pod_name or child.task_id or "") for child in task.child_tasks or []]
                children = [by_hash[match[1]] for match in hashes if match and match[1] in by_hash]
                # what comes after a step in the graph hangs below it, too: only its own work is meant
                children = [
                    each
                    for each in children
                    if (each.display_name or "").startswith(("executor", f"{task.display_name}("))
                ]
                if children:
                    pending += children
                elif task.pod_name:
                    found.append((step, task.pod_name))
        return found

    def _log(self, run: str, pod: str, *, quiet: bool) -> Sequence[str]:
        api = self.cluster.client._run_api.api_client
        try:
            response = api.call_api(
                "/apis/v1alpha1/runs/{run_id}/nodes/{node_id}/log", "GET", {"run_id": run, "node_id": pod}, [], {},
                auth_settings=["Bearer"], _preload_content=False, _return_http_data_only=True,
            )  # fmt: skip
            text = response.data.decode(errors="replace")
            if not text.lstrip().startswith("<"):
                return tuple(text.splitlines())
            raise AccessError("a page in place of a log")
        except (AccessError, UsageError) as error:
            if quiet:  # a pod that has only just begun has none yet
                return ()
            raise RanklineError(
                "the API server does not hand on the log of this step",
                found=error.message + (f": {error.found}" if error.found else ""),
                where=pod,
                hint=kubectl_logs_command(self.cluster, run),
            ) from error

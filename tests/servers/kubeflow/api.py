"""What the server knows, and what its calls do to it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.servers.kubeflow import schedules
from tests.servers.kubeflow.answers import Refused, check_columns, check_length, timestamp
from tests.servers.kubeflow.argo import Workflow
from tests.servers.kubeflow.packages import check_arguments, read_package
from tests.servers.kubeflow.recordings import ENDED, as_of, change_times, recording

NAMESPACE, SYSTEM = "team", "kubeflow"
GONE = "gone"  # the log of a pod that cannot be read

Row = dict[str, Any]


@dataclass
class Api:
    """What the server knows, and how it is set up."""

    multi_user: bool = True
    auth: str = "none"  # none, token, cookie
    verdict: str = "promote"  # what `decide` or `catalogue` returns in the runs that begin now
    fails_at: str = ""  # the task that fails in the runs that begin now
    macros: bool = True  # whether it fills in [[ScheduledTime]], as not every version does
    logs: bool = True  # whether the pods are still there
    logs_by_node: bool = True  # whether a log is also found by its node's id, as where logs are archived
    log_errors_are_ok: bool = False  # whether the error of a log that is not there comes with 200, as in some versions
    log: str = "hello from {pod}\nit is {state}\n"  # what a pod of a step writes
    pod_logs: dict[str, str] = field(default_factory=dict)  # node id, or task -> what that one writes instead
    page: int = 100  # entries of a page at most
    pace: int = 1  # looks of Argo's controller at a run for each request
    broken: int = 0  # the next so many answers are 503
    stores: bool = True  # whether its database takes new runs and recurring runs
    expired: bool = False  # whether every session has
    pipelines: dict[str, Row] = field(default_factory=dict)
    versions: dict[str, Row] = field(default_factory=dict)
    experiments: dict[str, Row] = field(default_factory=dict)
    runs: dict[str, Row] = field(default_factory=dict)
    recurring: dict[str, Row] = field(default_factory=dict)
    workflows: dict[str, Workflow] = field(default_factory=dict)  # of the runs
    arguments: dict[str, Row] = field(default_factory=dict)  # of the runs, as their drivers get them
    scheduled_workflows: dict[str, Row] = field(default_factory=dict)  # in Kubernetes, by id
    kubernetes: dict[str, Row] = field(default_factory=dict)  # path -> a further answer of Kubernetes
    unlisted: list[str] = field(default_factory=list)  # workflows that the API knows nothing of
    asked: list[str] = field(default_factory=list)
    counted: int = 0
    proxied: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)
    session: str = "authservice_session=fresh"
    played: dict[str, tuple[Row, list[str]]] = field(default_factory=dict)  # run -> its recording, times to come
    next_recording: str = ""  # what the next run that begins is

    @property
    def namespace(self) -> str:
        """Where runs are."""
        return NAMESPACE if self.multi_user else SYSTEM

    @property
    def service_account(self) -> str:
        """Of a run that names none."""
        return "default-editor" if self.multi_user else "pipeline-runner"

    # what a test does behind the API's back

    def tick(self, instant: datetime) -> list[str]:
        """Every enabled recurring run fires, for that scheduled time; the runs it began."""
        with self.lock:
            return schedules.tick(self, instant)

    def replay(self, name: str, *, play: bool = False) -> str:
        """Serve a recording as it is, and return the id of its run; with ``play`` from its beginning.

        A run that is played is one change further at each request for it. Of the recording `recurringruns` all are
        served, with their ScheduledWorkflows.
        """
        with self.lock:
            for noun, table, key in (
                ("experiments", self.experiments, "experiment_id"), ("pipelines", self.pipelines, "pipeline_id"),
            ):  # fmt: skip
                table.update({row[key]: row for row in recording(noun)[noun]})
            if name == "recurringruns":
                self.recurring.update({row["recurring_run_id"]: row for row in recording(name)["recurringRuns"]})
                items = recording("scheduledworkflows")["items"]
                self.scheduled_workflows.update({each["metadata"]["uid"]: each for each in items})
                return ""
            run = recording(name)
            id = str(run["run_id"])
            self.runs[id] = run
            if play:
                first, *rest = change_times(run)
                self.played[id] = run, rest
                self.runs[id] = as_of(run, first)
            return id

    # what the API does

    def id(self) -> str:
        self.counted += 1
        return f"00000000-0000-4000-8000-{self.counted:012d}"

    def now(self) -> str:
        """A clock that is a second later whenever something happens: everything has an order."""
        return timestamp(datetime(2026, 11, 1, tzinfo=UTC) + timedelta(seconds=self.counted))

    def create_pipeline(self, body: Row) -> Row:
        name = body.get("name") or body.get("display_name", "")
        if not name:
            raise Refused(400, "Invalid input error: pipeline's name cannot be empty")
        check_length("Pipeline.Name", name, 128)
        check_length("Pipeline.Namespace", body.get("namespace") or "", 63)
        rows = self.pipelines.values()
        if any((row["display_name"], row.get("namespace")) == (name, body.get("namespace")) for row in rows):
            raise Refused(409, f"Already exist error: A pipeline with the name {name} already exists")
        created = {**body, "name": name, "pipeline_id": self.id(), "created_at": self.now()}
        self.pipelines[created["pipeline_id"]] = created
        return created

    def upload_version(self, query: dict[str, str], file: bytes, filename: str) -> Row:
        if query.get("pipelineid") not in self.pipelines:
            raise Refused(404, f"Pipeline {query.get('pipelineid')} not found")
        name, pipeline = query.get("name") or filename, query["pipelineid"]
        check_length("PipelineVersion.Name", name, 127)
        spec = read_package(file, filename)
        if any(v["pipeline_id"] == pipeline and v["display_name"] == name for v in self.versions.values()):
            raise Refused(409, f"Already exist error: a version named {name} already exists")
        created = {
            "pipeline_id": pipeline, "pipeline_version_id": self.id(), "name": name, "display_name": name,
            "description": query.get("description", ""), "created_at": self.now(), "pipeline_spec": spec,
        }  # fmt: skip
        self.versions[created["pipeline_version_id"]] = created
        return created

    def create_experiment(self, body: Row) -> Row:
        name = body.get("display_name", "")
        if not name:
            raise Refused(400, "Invalid input error: Experiment name is empty")
        if self.multi_user and not body.get("namespace"):
            raise Refused(400, "Invalid input error: An experiment cannot have an empty namespace in multi-user mode")
        check_length("Experiment.Name", name, 128)
        rows = self.experiments.values()
        if any((row["display_name"], row.get("namespace")) == (name, body.get("namespace")) for row in rows):
            raise Refused(409, f"Already exist error: an experiment named {name} already exists")
        self.store(
            f"Failed to create experiment: InternalServerError: Failed to add experiment {name} to table",
            Description=body.get("description", ""),
        )
        created = {
            **body, "experiment_id": self.id(), "created_at": self.now(), "storage_state": "AVAILABLE",
            "last_run_created_at": timestamp(None),
        }  # fmt: skip
        self.experiments[created["experiment_id"]] = created
        return created

    def begin(self, body: Row, more: Row | None = None, *, workflow: str = "") -> Row:
        name = body.get("display_name", "")
        if not name:
            raise Refused(400, "Invalid input error: The run name is empty. Please specify a valid name")
        version = self.source(body)
        if self.next_recording:
            recorded, self.next_recording = self.next_recording, ""
            reference = {"pipeline_version_reference": body["pipeline_version_reference"]}
            return self._play_as(recorded, reference | {"experiment_id": body["experiment_id"]})
        spec = _pipeline(version)
        flow = workflow or f"{spec['pipelineInfo']['name']}-{self.counted * 2654435761 % 60466176:05x}"[:63]
        self.unlisted.append(flow)  # the workflow is there first
        self.store(
            f"Failed to create a run: InternalServerError: Failed to store run {name} to table",
            DisplayName=name, Description=body.get("description", ""), ServiceAccount=body.get("service_account", ""),
        )  # fmt: skip
        self.unlisted.remove(flow)
        id, now = self.id(), self.now()
        created = {
            **body, "run_id": id, "storage_state": "AVAILABLE", "created_at": now, "scheduled_at": now,
            "service_account": body.get("service_account") or self.service_account, "finished_at": timestamp(None),
            "state": "PENDING", **(more or {}), "run_details": {"task_details": []},
            "state_history": [{"update_time": now, "state": "PENDING"}],
        }  # fmt: skip
        self.runs[id] = created
        self.experiments[body["experiment_id"]]["last_run_created_at"] = now
        self.workflows[id] = Workflow(id, flow, spec, self.verdict, self.fails_at, self.now)
        self.arguments[id] = body.get("runtime_config", {}).get("parameters", {})
        return created

    def store(self, failed: str, **columns: str) -> None:
        """Write a row with these texts."""
        if not self.stores:
            raise Refused(500, f"{failed}: dial tcp: connection refused")
        check_columns(failed, **columns)

    def _play_as(self, name: str, values: Row) -> Row:
        """Play a recording as the run that was asked for."""
        id = self.replay(name, play=True)
        self.played[id][0].update(values)
        self.runs[id].update(values)
        return self.runs[id]

    def source(self, body: Row) -> Row:
        """The version that a run or a recurring run refers to, with arguments that fit it."""
        reference = body.get("pipeline_version_reference", {})
        version = self.versions.get(reference.get("pipeline_version_id", ""))
        if version is None:
            raise Refused(404, "Failed to fetch a template due to error getting pipeline version: not found")
        if body.get("experiment_id") not in self.experiments:
            raise Refused(404, f"Experiment {body.get('experiment_id')} not found")
        if reference.get("pipeline_id") not in (None, "", version["pipeline_id"]):
            raise Refused(400, "Invalid input error: pipeline ID should be parent of pipeline version")
        check_arguments(_pipeline(version), body.get("runtime_config", {}).get("parameters", {}))
        return version

    def advance(self, run: Row) -> Row:
        """A run, as far as it is at this request for it."""
        id = run["run_id"]
        if id in self.played:
            recorded, coming = self.played[id]
            if coming:
                self.runs[id] = run = as_of(recorded, coming.pop(0))
        elif id in self.workflows:
            for _ in range(self.pace):
                if self.is_active(run):
                    self._advance(run)
            run["run_details"]["task_details"] = self.workflows[id].tasks(run["created_at"])
        return run

    def is_active(self, run: Row) -> bool:
        """Whether a run has not ended."""
        return run["state"] not in ENDED

    def _advance(self, run: Row) -> None:
        self.counted += 1
        workflow = self.workflows[run["run_id"]]
        if not workflow.stopping:
            self._set(run, "RUNNING")
        workflow.reconcile()
        if workflow.state in ENDED:
            self._set(run, workflow.state)
            run["finished_at"] = self.now()

    def _set(self, run: Row, state: str) -> None:
        if run["state"] != state:
            run["state"] = state
            run["state_history"].append({"update_time": self.now(), "state": state})

    def end(self, run: Row) -> None:
        """End a run whose workflow has gone."""
        if self.is_active(run):
            self._set(run, "FAILED")
            run["finished_at"] = self.now()

    def terminate(self, run: Row) -> None:
        if run["state"] not in ("PENDING", "RUNNING"):
            raise Refused(400, f"Invalid input error: Failed to terminate run {run['run_id']}. Row not found")
        self.counted += 1
        self._set(run, "CANCELING")
        if workflow := self.workflows.get(run["run_id"]):
            workflow.stopping = True

    def archive(self, run: Row) -> None:
        run["storage_state"] = "ARCHIVED"

    def unarchive(self, run: Row) -> None:
        if self.experiments[run["experiment_id"]]["storage_state"] == "ARCHIVED":
            raise Refused(400, "Failed precondition: Unarchive the experiment first to allow the run to be restored")
        run["storage_state"] = "AVAILABLE"

    def retry(self, run: Row) -> None:
        if run["storage_state"] == "ARCHIVED":
            raise Refused(400, "Bad request: an archived run cannot be retried")
        if run["state"] not in ("FAILED", "CANCELED"):
            raise Refused(400, "Bad request: Workflow must be Failed/Error to retry")
        self.counted += 1
        workflow = self.workflows[run["run_id"]]
        workflow.retry()
        workflow.verdict = self.verdict
        self._set(run, "RUNNING")
        run["finished_at"] = timestamp(None)

    def archive_experiment(self, id: str) -> None:
        self.experiments[id]["storage_state"] = "ARCHIVED"
        for run in self.runs.values():
            if run["experiment_id"] == id:
                self.archive(run)
        for recurring_id, row in self.recurring.items():
            if row["experiment_id"] == id:
                schedules.set_mode(self, recurring_id, "disable")


def _pipeline(version: Row) -> Row:
    spec: Row = version["pipeline_spec"]
    inner: Row = spec.get("pipeline_spec", spec)
    return inner

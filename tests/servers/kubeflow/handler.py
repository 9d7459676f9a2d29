"""HTTP over an Api: the calls of Kubeflow Pipelines, and the few of Kubernetes that tell what it does not."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.servers.kubeflow import schedules, signing_in
from tests.servers.kubeflow.answers import Refused, accepted, bare, fitting
from tests.servers.kubeflow.api import GONE, NAMESPACE, Api
from tests.servers.kubeflow.lists import page
from tests.servers.kubeflow.packages import uploaded_file
from tests.servers.kubeflow.recordings import recording, workflow_name

_PROXY = "/api/v1/namespaces/kubeflow/services/ml-pipeline:http/proxy/"
_SCHEDULED = re.compile(r"^/apis/kubeflow\.org/v1beta1/namespaces/([^/]+)/scheduledworkflows(?:/([^/]+))?$")
_MODELS = {
    "pipelines": "V2beta1Pipeline", "experiments": "V2beta1Experiment", "runs": "V2beta1Run",
    "recurringruns": "V2beta1RecurringRun",
}  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    """HTTP over an Api."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for a delayed acknowledgement
    api: Api

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""

    def answer(self, status: int, body: str, kind: str = "application/json", **headers: str) -> None:
        """Send an answer."""
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        parts = urllib.parse.urlsplit(self.path)
        query = {name: values[-1] for name, values in urllib.parse.parse_qs(parts.query).items()}
        path = parts.path.removeprefix("/pipeline") or "/"
        if path.startswith(_PROXY):  # the way through the cluster's own API server
            path = f"/{path.removeprefix(_PROXY).lstrip('/')}"
            self.api.proxied += 1
        with self.api.lock:
            self.api.asked.append(f"{self.command} {path}")
            if path.startswith("/dex/") or path == "/callback":
                return signing_in.dex(self.api, self, path, query, body)
            if self.api.broken:
                self.api.broken -= 1
                return self.answer(503, "upstream connect error", "text/plain")
            try:
                response = self._respond(path, query, body)
            except Refused as refused:
                text = refused.body()
                if "/upload" in path:
                    text = {"error_message": refused.message, "error_details": refused.message}
                return self.answer(refused.status, json.dumps(text))
        if response is not None:
            self.answer(200, json.dumps(response))
        return None

    do_GET = do_POST = do_DELETE = _handle

    def _respond(self, path: str, query: dict[str, str], body: bytes) -> Any:
        """The answer to a call; None where it has been sent."""
        if match := _SCHEDULED.match(path):
            return self._scheduled_workflows(*match.groups())
        if path in self.api.kubernetes:
            return _selected(self.api.kubernetes[path], query.get("labelSelector", ""))
        if not signing_in.let_in(self.api, self):
            return None
        if match := re.match(r"^/apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log$", path):
            return self.answer(200, self._log(*match.groups()), "text/plain")
        if path == "/":
            return self.answer(200, "<html><body>Kubeflow Pipelines</body></html>", "text/html")
        if not path.startswith("/apis/v2beta1/"):
            return self.answer(404, "404 page not found", "text/plain")
        return self._route(path.removeprefix("/apis/v2beta1"), query, body)

    def _scheduled_workflows(self, namespace: str, name: str | None) -> Any:
        """ScheduledWorkflows as Kubernetes lists and deletes them."""
        items = [
            each for each in self.api.scheduled_workflows.values() if each["metadata"]["namespace"] == namespace
        ]  # fmt: skip
        if name is None:
            return {"apiVersion": "kubeflow.org/v1beta1", "kind": "ScheduledWorkflowList", "items": items}
        matches = [each for each in items if each["metadata"]["name"] == name]
        if not matches or self.command != "DELETE":
            raise Refused(404, f'scheduledworkflows.kubeflow.org "{name}" not found')
        schedules.delete_scheduled_workflow(self.api, matches[0]["metadata"]["uid"])
        return {"apiVersion": "v1", "kind": "Status", "status": "Success"}

    def _log(self, run: str, id: str) -> str:
        """What a pod wrote, by its name or by the id of its node."""
        api, state, task = self.api, None, ""
        if workflow := api.workflows.get(run):
            node = workflow.pod(id)
            state, task = (node.state, node.name.split(".")[-2].removesuffix("(0)")) if node else (None, "")
        elif run in api.runs:
            state = _recorded_state(api.runs[run], id)
        pod, is_node = _node_of(id)
        log = api.pod_logs.get(pod) or api.pod_logs.get(task)
        if not api.logs or state is None or log == GONE or (is_node and not api.logs_by_node):
            message = f"Failed to read run log: pod {id} not found"
            if api.log_errors_are_ok:
                return json.dumps({"error_message": message, "error_details": message})
            raise Refused(500, message)
        return log or api.log.format(pod=pod, state=state)

    def _route(self, path: str, query: dict[str, str], body: bytes) -> Any:
        api, how = self.api, self.command
        if path == "/healthz":
            return fitting("V2beta1GetHealthzResponse", {"multi_user": api.multi_user, "pipeline_store": "database"})
        if path == "/pipelines/upload_version" and how == "POST":
            file, name = uploaded_file(self.headers["Content-Type"], body)
            return fitting("V2beta1PipelineVersion", bare(api.upload_version(query, file, name)))
        given = json.loads(body) if body else {}
        if api.multi_user and (query.get("namespace") or given.get("namespace") or NAMESPACE) != NAMESPACE:
            raise Refused(403, "User is not authorized with reason: no permission in the namespace")
        for noun, table, create in (
            ("pipelines", api.pipelines, api.create_pipeline),
            ("experiments", api.experiments, api.create_experiment),
            ("runs", api.runs, api.begin),
            ("recurringruns", api.recurring, lambda row: schedules.create(api, row)),
        ):
            model = _MODELS[noun]
            if path == f"/{noun}" and how == "POST":
                return fitting(model, bare(create(accepted(model, given))))
            if path == f"/{noun}":
                return self._page(noun, model, table, query)
            if match := re.match(rf"^/{noun}/([^/:]+)(?::(\w+))?$", path):
                if match[1] not in table:
                    raise Refused(404, _missing(noun, match[1]))
                return self._one(noun, model, table[match[1]], match[1], match[2])
        return self._versions(path, query)

    def _versions(self, path: str, query: dict[str, str]) -> Any:
        """The versions of a pipeline, or one of them."""
        match = re.match(r"^/pipelines/([^/]+)/versions(?:/([^/]+))?$", path)
        if match is None:
            raise Refused(404, "Not Found")
        if match[2] is None:
            of = match[1]
            return self._page(
                "pipeline_versions", "V2beta1PipelineVersion", self.api.versions, query,
                lambda version: version["pipeline_id"] == of,
            )  # fmt: skip
        if match[2] not in self.api.versions:
            raise Refused(404, _missing("pipeline_versions", match[2]))
        if self.command == "DELETE":
            del self.api.versions[match[2]]
            return {}
        return fitting("V2beta1PipelineVersion", bare(self.api.versions[match[2]]))

    def _page(
        self, noun: str, model: str, table: Any, query: dict[str, str],
        keep: Callable[[dict[str, Any]], bool] = lambda row: True,
    ) -> Any:  # fmt: skip
        if "experiment_id" in query:
            if query["experiment_id"] not in self.api.experiments:
                raise Refused(404, _missing("experiments", query["experiment_id"]))

            def keep(row: dict[str, Any]) -> bool:
                return row.get("experiment_id") == query["experiment_id"]
        elif self.api.multi_user and noun != "pipeline_versions" and query.get("namespace") != NAMESPACE:
            if noun in ("runs", "experiments", "recurringruns"):
                raise Refused(400, "Invalid input error: a namespace cannot be empty in multi-user mode")

            def keep(row: dict[str, Any]) -> bool:
                return not row.get("namespace")

        response = page(noun, table, query, keep, self.api.page)
        rows = [fitting(model, bare(row)) for row in response.pop("rows")]
        named = {"recurringruns": "recurringRuns"}.get(noun, noun)
        answers = {"pipeline_versions": "PipelineVersions", "recurringruns": "RecurringRuns"}.get(noun, noun.title())
        return fitting(f"V2beta1List{answers}Response", bare({named: rows, **response}))

    def _one(self, noun: str, model: str, row: dict[str, Any], id: str, verb: str | None) -> Any:
        api, how = self.api, self.command
        if how == "GET" and not verb:
            return fitting(model, bare(api.advance(row) if noun == "runs" else row))
        if noun == "runs" and how == "POST" and verb in ("terminate", "retry", "archive", "unarchive"):
            getattr(api, verb)(row)
        elif noun == "runs" and how == "DELETE" and not verb:
            del api.runs[id]
        elif noun == "experiments" and how == "POST" and verb == "archive":
            api.archive_experiment(id)
        elif noun == "recurringruns" and how == "POST" and verb in ("enable", "disable"):
            schedules.set_mode(api, id, verb)
        elif noun == "recurringruns" and how == "DELETE" and not verb:
            schedules.delete(api, id)
        else:
            raise Refused(404, "Not Found")
        return {}


def _missing(noun: str, id: str) -> str:
    if noun == "runs":
        message: str = recording("error-run-not-found")["body"]["message"]
        return message.replace("nope", id)
    kind = {"recurringruns": "Job", "pipeline_versions": "PipelineVersion"}.get(noun, noun.removesuffix("s").title())
    return f"Failed to get {kind}: ResourceNotFoundError: {kind} {id} not found"


def _node_of(id: str) -> tuple[str, bool]:
    """The id of the node of a pod, by either name, and whether it was the node's."""
    node = re.sub(r"-(retry-)?system-container-(impl|driver)-(?=\d+$)", "-", id)
    return node, node == id


def _recorded_state(run: dict[str, Any], id: str) -> str | None:
    """The state of a recorded run for one of its pods; None where it has no such pod."""
    ids = {child["pod_name"] for task in run["run_details"]["task_details"] for child in task.get("child_tasks", ())}
    workflow = workflow_name(run)
    number = id.rpartition("-")[2]
    known = f"{workflow}-{number}" in ids and id.startswith(f"{workflow}-")
    return str(run.get("state", "")) if known else None


def _selected(answer: dict[str, Any], selector: str) -> dict[str, Any]:
    """The items of a list that carry the labels."""
    wanted = dict(part.partition("=")[::2] for part in selector.split(",") if part)
    if "items" not in answer or not wanted:
        return answer
    items = [each for each in answer["items"] if wanted.items() <= each["metadata"].get("labels", {}).items()]
    return {**answer, "items": items}

"""A double of Kubeflow Pipelines' API server, on a real port: the v2beta1 calls that we make, and no more.

Written from the server's published API description and its rules for what it refuses, since no cluster is to be had.
It is asked by kfp's own client. Each body it gets has to fit the models of `kfp_server_api` to the last field, and so
does each of its answers. What it runs comes out of the package that was uploaded: the tasks in their order, and the
branches whose condition holds; each look at a run moves it on by one task, so that nothing here waits for a clock.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import html
import json
import re
import ssl
import tempfile
import threading
import urllib.parse
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

# what a list can be sorted and filtered by, as the server's models say
KEYS = {
    "pipelines": {"pipeline_id", "name", "display_name", "created_at", "description", "namespace"},
    "pipeline_versions": {"pipeline_version_id", "name", "display_name", "created_at", "description", "pipeline_id"},
    "experiments": {"experiment_id", "name", "display_name", "created_at", "description", "storage_state", "namespace"},
    "runs": {"run_id", "name", "display_name", "created_at", "description", "scheduled_at", "finished_at", "state",
             "storage_state", "experiment_id", "service_account"},
    "recurringruns": {"recurring_run_id", "name", "display_name", "created_at", "description", "updated_at"},
}  # fmt: skip
PAGE, MOST = 20, 200  # entries of a page that nobody asked a size of, and of any
KINDS: dict[str, tuple[type, ...]] = {
    "STRING": (str,), "NUMBER_INTEGER": (int,), "NUMBER_DOUBLE": (int, float), "BOOLEAN": (bool,), "LIST": (list,),
    "STRUCT": (dict,),
}  # fmt: skip
NAMESPACE, TOKEN, USER, PASSWORD = "team", "a-token-not-to-be-seen", "user@example.com", "pa55-not-to-be-seen"
ENDED = ("SUCCEEDED", "FAILED", "CANCELED")
_PROXY = "/api/v1/namespaces/kubeflow/services/ml-pipeline:http/proxy/"
_CONDITION = re.compile(r"\['pipelinechannel--(?:decide|catalogue)-Output'\] == '(\w+)'")


class Refused(Exception):
    """An answer that is an error, as the gateway in front of the API writes it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def cron(text: str) -> None:
    """Refuse what robfig/cron of the server refuses: five or six fields, the second first, perhaps no weekday."""
    if text.startswith("@"):
        if text in ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"):
            return
        if re.match(r"^@every \d+(\.\d+)?(ns|us|ms|s|m|h)", text):
            return
        raise Refused(400, f"Schedule cron is not a supported format: unrecognized descriptor {text}")
    fields = text.split()
    if not 5 <= len(fields) <= 6:
        raise Refused(400, f"Schedule cron is not a supported format: expected 5 to 6 fields, found {len(fields)}")
    names = {4: "jan feb mar apr may jun jul aug sep oct nov dec", 5: "sun mon tue wed thu fri sat"}
    for place, values_text in enumerate(fields):
        low, high = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))[place]
        known = {name: number for number, name in enumerate(names.get(place, "").split(), low)}
        for part in values_text.split(","):
            span, _, step = part.partition("/")
            ends = span.split("-")
            try:
                numbers = [] if ends in (["*"], ["?"]) else [known.get(e.lower(), e) for e in ends]
                values = [int(number) for number in numbers] or [low, high]
                fits = low <= values[0] <= values[-1] <= high and len(values) <= 2 and (not step or int(step) > 0)
            except ValueError:
                fits = False
            if not fits or part.endswith("/"):
                raise Refused(400, f"Schedule cron is not a supported format: failed to parse {part!r} of {text!r}")


@dataclass
class Api:
    """What the server knows, and how it is set up."""

    multi_user: bool = True
    auth: str = "none"  # none, token, cookie
    verdict: str = "promote"  # what `decide` or `catalogue` returns in the runs that begin now
    fails_at: str = ""  # the task that fails in the runs that begin now
    macros: bool = True  # whether it fills in [[ScheduledTime]], as not every version does
    logs: bool = True
    page: int = 100  # entries of a page at most
    pace: int = 1  # tasks that a run advances by at each request for it
    broken: int = 0  # the next so many answers are 503
    expired: bool = False  # whether every session has
    pipelines: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    recurring: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    counted: int = 0
    proxied: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)
    plots: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # run -> its tasks still to come
    session: str = "authservice_session=fresh"

    # what a test does behind the API's back

    def tick(self, instant: datetime) -> list[str]:
        """Every enabled recurring run fires, for that scheduled time; the runs it began."""
        begun = []
        with self.lock:
            for recurring_run in list(self.recurring.values()):
                active = [
                    run for run in self.runs.values()
                    if run.get("recurring_run_id") == recurring_run["recurring_run_id"] and run["state"] not in ENDED
                ]  # fmt: skip
                if recurring_run["status"] != "ENABLED" or len(active) >= int(recurring_run["max_concurrency"]):
                    continue
                text = json.dumps(recurring_run.get("runtime_config", {}))
                if self.macros:
                    text = text.replace("[[ScheduledTime]]", instant.strftime("%Y%m%d%H%M%S"))
                body = {
                    "display_name": f"{recurring_run['display_name']} {instant:%s}",
                    "experiment_id": recurring_run["experiment_id"],
                    "pipeline_version_reference": recurring_run["pipeline_version_reference"],
                    "runtime_config": json.loads(text),
                }
                run = self.begin(
                    body, {"recurring_run_id": recurring_run["recurring_run_id"], "scheduled_at": at(instant)}
                )
                begun.append(run["run_id"])
        return begun

    # what the API does

    def id(self) -> str:
        self.counted += 1
        return f"00000000-0000-4000-8000-{self.counted:012d}"

    def now(self) -> str:
        """A clock that is a second later at each look: everything has an order."""
        return at(datetime(2026, 11, 1, tzinfo=UTC) + timedelta(seconds=self.counted))

    def create_pipeline(self, body: dict[str, Any]) -> dict[str, Any]:
        name = body.get("name") or body.get("display_name", "")
        if not name:
            raise Refused(400, "Invalid input error: pipeline's name cannot be empty")
        if any(
            p["display_name"] == name and p.get("namespace") == body.get("namespace") for p in self.pipelines.values()
        ):
            raise Refused(409, f"Already exist error: A pipeline with the name {name} already exists")
        created = {**body, "name": name, "pipeline_id": self.id(), "created_at": self.now()}
        self.pipelines[created["pipeline_id"]] = created
        return created

    def upload_version(self, query: dict[str, str], file: bytes, filename: str) -> dict[str, Any]:
        if query.get("pipelineid") not in self.pipelines:
            raise Refused(404, f"Pipeline {query.get('pipelineid')} not found")
        if not filename.endswith((".yaml", ".yml", ".zip", ".tar.gz", ".json")):
            raise Refused(400, "Unexpected pipeline file format")
        spec = _spec(file)
        name, pipeline = query.get("name") or filename, query["pipelineid"]
        if any(v["pipeline_id"] == pipeline and v["display_name"] == name for v in self.versions.values()):
            raise Refused(409, f"Already exist error: a version named {name} already exists")
        created = {
            "pipeline_id": pipeline, "pipeline_version_id": self.id(), "name": name, "display_name": name,
            "created_at": self.now(), "pipeline_spec": spec,
        }  # fmt: skip
        self.versions[created["pipeline_version_id"]] = created
        return created

    def create_experiment(self, body: dict[str, Any]) -> dict[str, Any]:
        if not body.get("display_name"):
            raise Refused(400, "Invalid input error: Experiment name is empty")
        if self.multi_user and not body.get("namespace"):
            raise Refused(400, "Invalid input error: An experiment cannot have an empty namespace in multi-user mode")
        if any(
            (e["display_name"], e.get("namespace")) == (body["display_name"], body.get("namespace"))
            for e in self.experiments.values()
        ):
            raise Refused(409, f"Already exist error: an experiment named {body['display_name']} already exists")
        created = {
            **body, "experiment_id": self.id(), "created_at": self.now(), "storage_state": "AVAILABLE",
        }  # fmt: skip
        self.experiments[created["experiment_id"]] = created
        return created

    def begin(self, body: dict[str, Any], more: dict[str, Any] | None = None) -> dict[str, Any]:
        if not body.get("display_name"):
            raise Refused(400, "Invalid input error: The run name is empty. Please specify a valid name")
        spec = self._source(body)
        created = {
            **body, "run_id": self.id(), "created_at": self.now(), "scheduled_at": at(None), "finished_at": at(None),
            "state": "PENDING", "storage_state": "AVAILABLE", "state_history": [], **(more or {}),
            "run_details": {"task_details": []},
        }  # fmt: skip
        self.runs[created["run_id"]] = created
        self.plots[created["run_id"]] = _plot(spec, self.verdict, self.fails_at, created["run_id"])
        return created

    def _source(self, body: dict[str, Any]) -> dict[str, Any]:
        """The package a run or a recurring run refers to, with parameters that fit it."""
        version = self.versions.get(body.get("pipeline_version_reference", {}).get("pipeline_version_id", ""))
        if version is None:
            raise Refused(404, "Failed to fetch a template due to error getting pipeline version: not found")
        if body.get("experiment_id") not in self.experiments:
            raise Refused(404, f"Experiment {body.get('experiment_id')} not found")
        owner = body["pipeline_version_reference"].get("pipeline_id")
        if owner and owner != version["pipeline_id"]:
            raise Refused(400, "Invalid input error: pipeline ID should be parent of pipeline version")
        spec: dict[str, Any] = version["pipeline_spec"]
        spec = spec.get("pipeline_spec", spec)
        wanted = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        given = body.get("runtime_config", {}).get("parameters", {})
        for name, definition in wanted.items():
            if name not in given and "defaultValue" not in definition and not definition.get("isOptional"):
                raise Refused(400, f"Invalid input error: missing required parameter {name}")
        if unknown := sorted(set(given) - set(wanted)):
            raise Refused(400, f"Invalid input error: parameters not in the pipeline's input definitions: {unknown}")
        for name, value in given.items():
            kind = wanted[name].get("parameterType", "STRING")
            if not isinstance(value, KINDS[kind]) or (isinstance(value, bool) and kind != "BOOLEAN"):
                raise Refused(400, f"Invalid input error: input parameter {name} requires type {kind}")
        return spec

    def advance(self, run: dict[str, Any]) -> dict[str, Any]:
        """A run, which is ``pace`` tasks further than at the last request."""
        for _ in range(self.pace):
            self._advance(run)
        return run

    def _advance(self, run: dict[str, Any]) -> None:
        if run["state"] == "CANCELING":
            self._end(run, "CANCELED")
        elif run["state"] not in ENDED:
            self._set(run, "RUNNING")
            tasks, plot = run["run_details"]["task_details"], self.plots[run["run_id"]]
            for task in tasks:
                if task["state"] == "RUNNING":
                    task |= {"state": task.pop("ends"), "end_time": self.now()}
            self.counted += 1
            if any(task["state"] == "FAILED" for task in tasks):
                self._end(run, "FAILED")
            elif plot:
                group = plot.pop(0)["tasks"]
                tasks += [
                    {**task, "start_time": self.now(), "end_time": at(None), "state": "RUNNING"} for task in group
                ]
            else:
                self._end(run, "SUCCEEDED")

    def _set(self, run: dict[str, Any], state: str) -> None:
        if run["state"] != state:
            run["state"] = state
            run["state_history"].append({"update_time": self.now(), "state": state})

    def _end(self, run: dict[str, Any], state: str) -> None:
        self._set(run, state)
        run["finished_at"] = self.now()

    def terminate(self, run: dict[str, Any]) -> None:
        if run["state"] not in ("PENDING", "RUNNING"):
            raise Refused(400, f"Invalid input error: Failed to terminate run {run['run_id']}. Row not found")
        self._set(run, "CANCELING")

    def archive(self, run: dict[str, Any]) -> None:
        run["storage_state"] = "ARCHIVED"

    def unarchive(self, run: dict[str, Any]) -> None:
        if self.experiments[run["experiment_id"]]["storage_state"] == "ARCHIVED":
            raise Refused(400, "Failed precondition: Unarchive the experiment first to allow the run to be restored")
        run["storage_state"] = "AVAILABLE"

    def retry(self, run: dict[str, Any]) -> None:
        if run["storage_state"] == "ARCHIVED":
            raise Refused(400, "Bad request: an archived run cannot be retried")
        if run["state"] not in ("FAILED", "CANCELED"):
            raise Refused(400, "Bad request: Workflow must be Failed/Error to retry")
        tasks = run["run_details"]["task_details"]
        again = [{**task, "ends": "SUCCEEDED"} for task in tasks if task["state"] == "FAILED"]
        names = {task["display_name"] for task in again}
        run["run_details"]["task_details"] = [task for task in tasks if task["state"] != "FAILED"]
        rest = _plot(self._source(run), self.verdict, "", run["run_id"])
        done = {task["display_name"] for task in tasks} - names
        self.plots[run["run_id"]] = [group for group in rest if group["name"] not in done]
        self._set(run, "RUNNING")
        run["finished_at"] = at(None)

    def create_recurring(self, body: dict[str, Any]) -> dict[str, Any]:
        if not body.get("display_name"):
            raise Refused(400, "Invalid input error: Recurring run name is empty. Please specify a valid name")
        if not 1 <= int(body.get("max_concurrency", 0)) <= 10:
            raise Refused(400, "Max concurrency of a recurring run must be at least 1 and at most 10")
        trigger = body.get("trigger", {})
        if len(trigger) > 1:
            raise Refused(400, "proto: error parsing field trigger: oneof v2beta1.Trigger.trigger is already set")
        if "cron_schedule" in trigger:
            cron(trigger["cron_schedule"].get("cron", ""))
        elif int(trigger.get("periodic_schedule", {}).get("interval_second", 0)) < 1:
            raise Refused(400, "Found invalid period schedule interval. Set at interval to least 1 second")
        if body.get("mode") not in ("ENABLE", "DISABLE"):
            raise Refused(400, "Invalid input error: the mode of a recurring run is ENABLE or DISABLE")
        self._source(body)
        body["max_concurrency"] = str(body["max_concurrency"])
        status = "ENABLED" if body["mode"] == "ENABLE" else "DISABLED"
        created = {**body, "recurring_run_id": self.id(), "created_at": self.now(), "status": status}
        self.recurring[created["recurring_run_id"]] = created
        return created

    def delete_recurring(self, id: str) -> None:
        """Its workflows belong to it, so those under way go with it."""
        del self.recurring[id]
        for run in self.runs.values():
            if run.get("recurring_run_id") == id and run["state"] not in ENDED:
                self._end(run, "FAILED")

    def listed(
        self, noun: str, table: dict[str, dict[str, Any]], query: dict[str, str], keep: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any]:
        """One page of a table as it was asked for: filtered, in order. A token goes with what the first page asked."""
        rows = [row for row in table.values() if keep(row)]
        order = _order(noun, query.get("sort_by") or "")
        predicates = _predicates(noun, query.get("filter") or "")
        begin = 0
        if query.get("page_token"):
            token = _token(query["page_token"])
            if (query.get("sort_by") and token["order"] != order) or (
                query.get("filter") and token["predicates"] != predicates
            ):
                raise Refused(
                    400, "Invalid input error: page token does not match the supplied sort by and/or filtering criteria"
                )
            begin, order, predicates = token["begin"], token["order"], token["predicates"]
        for key, how, value in predicates:
            rows = [row for row in rows if (row.get(key) == value if how == "EQUALS" else value in row.get(key, ""))]
        rows.sort(key=lambda row: row.get(order[0], ""), reverse=order[1] == "desc")
        try:
            size = int(query.get("page_size") or PAGE)
        except ValueError:
            raise Refused(400, "type mismatch, parameter: page_size") from None
        if size < 0:
            raise Refused(400, f"Invalid input error: The page size should be greater than 0. Got {size}")
        size = min(size, self.page, MOST)
        token = {"begin": begin + size, "order": order, "predicates": predicates}
        return {
            "rows": rows[begin : begin + size],
            "total_size": len(rows),
            "next_page_token": base64.b64encode(json.dumps(token).encode()).decode()
            if begin + size < len(rows)
            else "",
        }


def _order(noun: str, sort_by: str) -> list[str]:
    words = sort_by.lower().split() or ["created_at"]
    if len(words) > 2 or words[1:] not in ([], ["asc"], ["desc"]):
        raise Refused(400, f"Invalid input error: Received invalid sort by format {sort_by!r}")
    if words[0] not in KEYS[noun]:
        raise Refused(400, f"Invalid input error: Invalid sorting field: {words[0]!r} on listable type {noun}")
    return [words[0], (words[1:] or ["asc"])[0]]


def _predicates(noun: str, text: str) -> list[list[str]]:
    try:
        given = json.loads(text or "{}")
        matches = [[each["key"], each["operation"], each["stringValue"]] for each in given.get("predicates", [])]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(400, f"Invalid input error: failed to parse valid filter from {text!r}: {error}") from error
    for predicate in matches:
        key, how, _ = predicate
        predicate[1] = {1: "EQUALS", 9: "IS_SUBSTRING"}.get(how, how)
        if predicate[1] not in ("EQUALS", "IS_SUBSTRING"):
            raise Refused(400, f"Invalid input error: operation {how}")
        if key not in KEYS[noun]:
            raise Refused(400, f"Invalid input error: no support for filtering on unrecognized field {key!r}")
    return matches


def _token(text: str) -> dict[str, Any]:
    try:
        token = json.loads(base64.b64decode(text, validate=True))
        return {"begin": int(token["begin"]), "order": token["order"], "predicates": token["predicates"]}
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(400, "Invalid input error: Invalid page token") from error


def at(instant: datetime | None) -> str:
    """A time as protobuf writes it; none is 1970."""
    return (instant or datetime(1970, 1, 1, tzinfo=UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")


@functools.cache
def _problems(file: bytes) -> list[str]:
    """The rules that a package breaks."""
    from pipelines.kubeflow.conformance import package_problems

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flow.yaml"
        path.write_bytes(file)
        return list(package_problems(path))


def _spec(file: bytes) -> dict[str, Any]:
    if problems := _problems(file):
        raise Refused(400, f"Failed to create a pipeline version: invalid spec: {'; '.join(problems)}")
    documents = list(yaml.load_all(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    spec = next(each for each in documents if "pipelineInfo" in each)
    platform = next((each for each in documents if "platforms" in each), None)
    return {"pipeline_spec": spec, "platform_spec": platform} if platform else spec


def _plot(spec: dict[str, Any], verdict: str, fails_at: str, run: str) -> list[dict[str, Any]]:
    """What happens in a run of a package, group by group: its tasks as the nodes of a workflow are reported."""
    groups: list[dict[str, Any]] = []

    def node(name: str, kind: str, step: str, ends: str = "SUCCEEDED") -> dict[str, Any]:
        number = zlib.crc32(f"{run}/{step}/{name}".encode())
        return {
            "run_id": run, "task_id": f"task-{number}", "display_name": name, "ends": ends,
            "pod_name": f"flow-{kind}-{number}", "number": number,
        }  # fmt: skip

    def walk(dag: dict[str, Any]) -> bool:
        """Whether everything in it went well."""
        left = dict(dag["tasks"])
        done: set[str] = set()
        while left:
            name = next(name for name, task in sorted(left.items()) if set(task.get("dependentTasks", ())) <= done)
            task = left.pop(name)
            done.add(name)
            driver = node(f"{name}-driver", "system-dag-driver", name)
            component = spec["components"][task["componentRef"]["name"]]
            if "dag" in component:
                condition = _CONDITION.search(task.get("triggerPolicy", {}).get("condition", ""))
                if condition and condition[1] != verdict:
                    groups.append({"name": name, "tasks": [driver, node(name, "condition", name, "SKIPPED")]})
                elif not walk(component["dag"]):
                    return False
                continue
            ends = "FAILED" if name == fails_at.replace("_", "-") else "SUCCEEDED"
            pod = node("executor", "system-container-impl", name, ends)
            step = {**node(name, "system-container-executor", name, ends)}
            step["child_tasks"] = [{"pod_name": f"flow-{pod['number']}"}]
            groups.append({"name": name, "tasks": [driver, step, pod]})
            if ends == "FAILED":
                return False
        return True

    root = {name: task for name, task in spec["root"]["dag"]["tasks"].items()}
    last = [name for name, task in root.items() if task.get("triggerPolicy", {}).get("strategy")]
    walk({"tasks": {name: task for name, task in root.items() if name not in last}})
    failed = bool(groups) and any(task["ends"] == "FAILED" for task in groups[-1]["tasks"])
    if not failed:  # the exit handler; after a failure it runs beside, and is left out here
        walk({"tasks": {name: {**root[name], "dependentTasks": []} for name in last}})
    return groups


# the page of a login, as dex writes one: a choice, a form, an approval
_CHOICE = '<html><body><a href="/dex/auth/local?state={s}">Log in with Email</a></body></html>'
_LOGIN = (
    '<html><body><form method="post" action="/dex/auth/local/login?state={s}"><input name="login"/>'
    '<input name="password" type="password"/></form></body></html>'
)
_APPROVAL = (
    '<html><body><form method="post" action="/dex/approval?state={s}"><input type="hidden" name="req" value="{s}"/>'
    '<input type="hidden" name="approval" value="approve"/></form></body></html>'
)


class Handler(BaseHTTPRequestHandler):
    """HTTP over an Api."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for a delayed acknowledgement
    api: Api

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""

    def _answer(self, status: int, body: str, kind: str = "application/json", **headers: str) -> None:
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
                return self._dex(path, query, body)
            if self.api.broken:
                self.api.broken -= 1
                return self._answer(503, "upstream connect error", "text/plain")
            try:
                if not self._let_in():
                    return
                if match := re.match(r"^/apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log$", path):
                    return self._log(*match.groups())
                if path == "/":
                    return self._answer(200, "<html><body>Kubeflow Pipelines</body></html>", "text/html")
                if not path.startswith("/apis/v2beta1/"):
                    return self._answer(404, "404 page not found", "text/plain")
                matches = self._route(path.removeprefix("/apis/v2beta1"), query, body)
            except Refused as refused:
                text = {"error": refused.message, "code": 0, "message": refused.message, "details": []}
                if "/upload" in path:
                    text = {"error_message": refused.message, "error_details": refused.message}
                return self._answer(refused.status, json.dumps(text))
        return self._answer(200, json.dumps(matches))

    do_GET = do_POST = do_DELETE = _handle

    def _let_in(self) -> bool:
        if self.api.auth == "token":
            if self.headers.get("authorization") != f"Bearer {TOKEN}":
                raise Refused(401, "Request header error: there is no user identity header")
        elif self.api.auth == "cookie" and (
            self.api.expired or self.api.session not in (self.headers.get("Cookie") or "")
        ):
            self._answer(302, "", "text/html", Location="/dex/auth?state=s1")
            return False
        return True

    def _dex(self, path: str, query: dict[str, str], body: bytes) -> None:
        state = html.escape(query.get("state", "s1"))
        form = urllib.parse.parse_qs(body.decode())
        if path == "/dex/auth":
            self._answer(200, _CHOICE.format(s=state), "text/html")
        elif path == "/dex/auth/local":
            self._answer(302, "", "text/html", Location=f"/dex/auth/local/login?state={state}")
        elif path == "/dex/auth/local/login" and self.command == "GET":
            self._answer(200, _LOGIN.format(s=state), "text/html")
        elif path == "/dex/auth/local/login":
            if form.get("login") != [USER] or form.get("password") != [PASSWORD]:
                return self._answer(401, _LOGIN.format(s=state), "text/html")
            self._answer(303, "", "text/html", Location=f"/dex/approval?state={state}")
        elif path == "/dex/approval" and self.command == "GET":
            self._answer(200, _APPROVAL.format(s=state), "text/html")
        elif path == "/dex/approval":
            fits = form.get("approval") == ["approve"] and form.get("req") == [state]
            self._answer(303 if fits else 400, "", "text/html", Location="/callback")
        else:
            self.api.expired = False
            self._answer(302, "", "text/html", Set_Cookie=f"{self.api.session}; Path=/", Location="/pipeline/")
        return None

    def _log(self, run: str, pod: str) -> None:
        tasks = self.api.runs.get(run, {}).get("run_details", {}).get("task_details", [])
        matches = next((t for t in tasks if t["pod_name"] == pod and t["display_name"] == "executor"), None)
        if not self.api.logs or matches is None:
            raise Refused(500, f"Failed to read run log: pod {pod} not found")
        self._answer(200, f"hello from {pod}\nit is {matches['state']}\n", "text/plain")

    def _route(self, path: str, query: dict[str, str], body: bytes) -> Any:
        api, how = self.api, self.command
        if path == "/healthz":
            return checked("V2beta1GetHealthzResponse", {"multi_user": api.multi_user, "pipeline_store": "database"})
        if path == "/pipelines/upload_version" and how == "POST":
            file, name = _file(self.headers["Content-Type"], body)
            return checked("V2beta1PipelineVersion", api.upload_version(query, file, name))
        given = json.loads(body) if body else {}
        if self._elsewhere(query, given):
            raise Refused(403, "User is not authorized with reason: no permission in the namespace")
        for noun, model, table, create in (
            ("pipelines", "V2beta1Pipeline", api.pipelines, api.create_pipeline),
            ("experiments", "V2beta1Experiment", api.experiments, api.create_experiment),
            ("runs", "V2beta1Run", api.runs, api.begin),
            ("recurringruns", "V2beta1RecurringRun", api.recurring, api.create_recurring),
        ):
            if path == f"/{noun}" and how == "POST":
                return checked(model, create(checked(model, given)))
            if path == f"/{noun}":
                return self._page(noun, model, table, query)
            if match := re.match(rf"^/{noun}/([^/:]+)(?::(\w+))?$", path):
                if match[1] not in table:
                    raise Refused(404, f"ResourceNotFoundError: {noun} {match[1]} not found.")
                return self._one(noun, model, table[match[1]], match[1], match[2])
        if match := re.match(r"^/pipelines/([^/]+)/versions$", path):
            return self._page(
                "pipeline_versions",
                "V2beta1PipelineVersion",
                api.versions,
                query,
                lambda v: v["pipeline_id"] == match[1],
            )
        raise Refused(404, "Not Found")

    def _elsewhere(self, query: dict[str, str], body: dict[str, Any]) -> bool:
        text = query.get("namespace") or body.get("namespace")
        return self.api.multi_user and bool(text) and text != NAMESPACE

    def _page(self, noun: str, model: str, table: Any, query: dict[str, str], keep: Any = lambda row: True) -> Any:
        if "experiment_id" in query:
            if query["experiment_id"] not in self.api.experiments:
                raise Refused(404, f"ResourceNotFoundError: Experiment {query['experiment_id']} not found.")

            def keep(row: dict[str, Any]) -> bool:
                return row.get("experiment_id") == query["experiment_id"]
        elif self.api.multi_user and noun != "pipeline_versions" and query.get("namespace") != NAMESPACE:
            if noun in ("runs", "experiments", "recurringruns"):
                raise Refused(400, "Invalid input error: a namespace cannot be empty in multi-user mode")

            def keep(row: dict[str, Any]) -> bool:
                return not row.get("namespace")

        page = self.api.listed(noun, table, query, keep)
        rows = [checked(model, row) for row in page.pop("rows")]
        named = {"recurringruns": "recurringRuns"}.get(noun, noun)
        answers = {"pipeline_versions": "PipelineVersions", "recurringruns": "RecurringRuns"}.get(noun, noun.title())
        return checked(f"V2beta1List{answers}Response", {named: rows, **page})

    def _one(self, noun: str, model: str, row: dict[str, Any], id: str, verb: str | None) -> Any:
        api, how = self.api, self.command
        if how == "GET" and not verb:
            return checked(model, api.advance(row) if noun == "runs" else row)
        if noun == "runs" and how == "POST" and verb in ("terminate", "retry", "archive", "unarchive"):
            getattr(api, verb)(row)
        elif noun == "runs" and how == "DELETE" and not verb:
            del api.runs[id]
        elif noun == "experiments" and how == "POST" and verb == "archive":
            row["storage_state"] = "ARCHIVED"
            for of, table in (("run", api.runs), ("recurring", api.recurring)):
                for each in table.values():
                    if each["experiment_id"] == id:
                        each |= {"storage_state": "ARCHIVED"} if of == "run" else {"status": "DISABLED"}
        elif noun == "recurringruns" and how == "POST" and verb in ("enable", "disable"):
            row["status"] = f"{verb.upper()}D"
        elif noun == "recurringruns" and how == "DELETE" and not verb:
            api.delete_recurring(id)
        else:
            raise Refused(404, "Not Found")
        return {}


def checked(model: str, body: dict[str, Any]) -> dict[str, Any]:
    """A body or an answer that fits the client's own model: no field unknown, every value one that it takes."""
    import kfp_server_api

    def strip(value: Any, of: Any) -> Any:
        kind = getattr(of, "openapi_types", None)
        if isinstance(value, dict) and kind:
            names = {json_name: attribute for attribute, json_name in of.attribute_map.items()}
            for internal in ("ends", "number"):  # of the plot, nobody else's business
                value = {name: each for name, each in value.items() if name != internal}
            if unknown := set(value) - set(names):
                raise Refused(400, f"unknown field {sorted(unknown)} in {of.__name__}")
            return {name: strip(each, _type(kind[names[name]])) for name, each in value.items()}
        if isinstance(value, list):
            return [strip(each, of) for each in value]
        if (known := getattr(of, "allowable_values", None)) and value not in known:
            raise Refused(400, f"{value!r} is no {of.__name__}: {known}")
        return value

    def _type(text: str) -> Any:
        inner = re.sub(r"^list\[(.*)\]$", r"\1", text)
        return getattr(kfp_server_api.models, inner, None)

    bare: dict[str, Any] = strip(body, getattr(kfp_server_api.models, model))

    class Answer:
        data = json.dumps(bare)

    try:
        kfp_server_api.ApiClient().deserialize(Answer, model)
    except (ValueError, TypeError) as error:
        raise Refused(400, f"{model}: {error}") from error
    return bare


def _file(kind: str, body: bytes) -> tuple[bytes, str]:
    message = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body, policy=HTTP)
    for part in message.iter_parts():
        if part.get_param("name", header="content-disposition") == "uploadfile":
            return part.get_payload(decode=True), part.get_filename() or ""
    raise Refused(400, "Failed to read pipeline from file")


@dataclass(frozen=True)
class Kubeflow:
    """A running double."""

    api: Api
    port: int
    scheme: str = "http"
    ca: str = ""

    @property
    def host(self) -> str:
        """Its address, as a gateway has it."""
        return f"{self.scheme}://127.0.0.1:{self.port}/pipeline"


@contextlib.contextmanager
def kubeflow_server(folder: Path, *, tls: bool = False, **settings: Any) -> Iterator[Kubeflow]:
    """The double on a free port, in a thread of this process."""
    api = Api(**settings)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"api": api}))
    ca = ""
    if tls:
        ca = str(_certificate(folder))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(ca)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield Kubeflow(api, server.server_address[1], "https" if tls else "http", ca)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def _certificate(folder: Path) -> Path:
    """A certificate that signs itself, key and all in one file."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubeflow")])
    now = datetime.now(UTC)
    created = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = folder / "kubeflow.pem"
    plain = serialization.NoEncryption()
    path.write_bytes(
        created.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    return path

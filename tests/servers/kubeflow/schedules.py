"""Recurring runs: rows of the API's database, each with a ScheduledWorkflow in Kubernetes that fires.

The server creates the ScheduledWorkflow first. Where the row cannot be stored afterwards, it stays and fires, and the
API knows neither it nor its runs.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tests.servers.kubeflow.answers import Refused, timestamp
from tests.servers.kubeflow.cron import cron

if TYPE_CHECKING:
    from tests.servers.kubeflow.api import Api

SCHEDULED_TIME = "[[ScheduledTime]]"
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # of the names that Kubernetes generates


def create(api: Api, body: dict[str, Any]) -> dict[str, Any]:
    """Create a recurring run and its ScheduledWorkflow."""
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
    version = api.source(body)
    id, now = api.id(), api.now()
    row = {
        "recurring_run_id": id, **body, "max_concurrency": str(body["max_concurrency"]),
        "service_account": body.get("service_account") or api.service_account, "namespace": api.namespace,
        "created_at": now, "updated_at": now, "status": f"{body['mode']}D",
    }  # fmt: skip
    api.scheduled_workflows[id] = _scheduled_workflow(api, row, version)
    api.store(
        f"Failed to create a recurring run: InternalServerError: Failed to store job {row['display_name']} to table",
        DisplayName=row["display_name"], Description=row.get("description", ""),
        Schedule=trigger.get("cron_schedule", {}).get("cron", ""), ServiceAccount=row["service_account"],
    )  # fmt: skip
    api.recurring[id] = row
    return row


def _scheduled_workflow(api: Api, row: dict[str, Any], version: dict[str, Any]) -> dict[str, Any]:
    """A ScheduledWorkflow as Kubernetes shows it."""
    prefix = (re.sub("[^a-z0-9-]+", "", row["display_name"].lower()) or "job-")[:25]
    number, suffix = api.counted, ""
    for _ in range(5):
        number, letter = divmod(number, len(_LETTERS))
        suffix += _LETTERS[letter]
    trigger: dict[str, Any] = {}
    if "cron_schedule" in row["trigger"]:
        trigger["cronSchedule"] = {"cron": row["trigger"]["cron_schedule"]["cron"]}
    else:
        trigger["periodicSchedule"] = {"intervalSecond": int(row["trigger"]["periodic_schedule"]["interval_second"])}
    given = row.get("runtime_config", {}).get("parameters", {})
    parameters = [{"name": name, "value": json.dumps(value)} for name, value in given.items()]
    workflow = {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "ScheduledWorkflow",
        "metadata": {
            "creationTimestamp": row["created_at"], "generateName": prefix, "generation": 1,
            "name": f"{prefix}{suffix}", "namespace": api.namespace, "resourceVersion": str(api.counted),
            "uid": row["recurring_run_id"],
        },
        "spec": {
            "experimentId": row["experiment_id"], "maxConcurrency": int(row["max_concurrency"]),
            "noCatchup": bool(row.get("no_catchup")), "pipelineId": version["pipeline_id"],
            "pipelineName": version["name"], "pipelineVersionId": version["pipeline_version_id"],
            "serviceAccount": row["service_account"], "trigger": trigger,
            "workflow": {"parameters": parameters, "spec": "…"},
        },
        "status": {"trigger": {}, "workflowHistory": {}},
    }  # fmt: skip
    _show(workflow, enabled=row["status"] == "ENABLED")
    return workflow


def _show(workflow: dict[str, Any], *, enabled: bool) -> None:
    """Write whether it fires where Kubernetes shows it."""
    state = "Enabled" if enabled else "Disabled"
    workflow["spec"].pop("enabled", None)
    if enabled:
        workflow["spec"]["enabled"] = True
    workflow["metadata"]["labels"] = {
        "scheduledworkflows.kubeflow.org/enabled": str(enabled).lower(),
        "scheduledworkflows.kubeflow.org/status": state,
    }
    message = f"The schedule is {state.lower()}."
    workflow["status"]["conditions"] = [{"message": message, "reason": state, "status": "True", "type": state}]


def set_mode(api: Api, id: str, verb: str) -> None:
    """Enable or disable a recurring run."""
    api.recurring[id] |= {"mode": verb.upper(), "status": f"{verb.upper()}D", "updated_at": api.now()}
    _show(api.scheduled_workflows[id], enabled=verb == "enable")


def delete(api: Api, id: str) -> None:
    """Delete a recurring run; its workflows belong to it, so those under way go with it."""
    del api.recurring[id]
    delete_scheduled_workflow(api, id)
    for run in api.runs.values():
        if run.get("recurring_run_id") == id:
            api.end(run)


def delete_scheduled_workflow(api: Api, id: str) -> None:
    """Delete a ScheduledWorkflow in Kubernetes, as kubectl does."""
    api.scheduled_workflows.pop(id, None)


def tick(api: Api, instant: datetime) -> list[str]:
    """Every enabled ScheduledWorkflow fires, for that scheduled time; returns the runs that the API knows of."""
    begun = []
    for id, workflow in list(api.scheduled_workflows.items()):
        active = [run for run in api.runs.values() if run.get("recurring_run_id") == id and api.is_active(run)]
        if not workflow["spec"].get("enabled") or len(active) >= workflow["spec"]["maxConcurrency"]:
            continue
        index = workflow["status"]["trigger"].get("lastWorkflowIndex", 0) + 1
        workflow["status"]["trigger"] = {"lastTriggeredTime": timestamp(instant), "lastWorkflowIndex": index}
        name = f"{workflow['metadata']['name']}-{index}-{api.counted * 7919 % 2**32}"
        row = api.recurring.get(id)
        if row is None:
            api.unlisted.append(name)
            continue
        begun.append(_begin(api, row, name, instant))
    return begun


def _begin(api: Api, row: dict[str, Any], name: str, instant: datetime) -> str:
    """A run that the controller starts: named after its workflow, its parameters shown as they were given."""
    given = {key: row[key] for key in ("experiment_id", "pipeline_version_reference", "runtime_config") if key in row}
    times = {"recurring_run_id": row["recurring_run_id"], "scheduled_at": timestamp(instant)}
    run = api.begin({"display_name": name, **given}, times, workflow=name)
    run.pop("service_account", None)
    run["state_history"][0].pop("state")
    text = json.dumps(row.get("runtime_config", {}).get("parameters", {}))
    if api.macros:
        text = text.replace(SCHEDULED_TIME, instant.astimezone(UTC).strftime("%Y%m%d%H%M%S"))
    api.arguments[run["run_id"]] = json.loads(text)
    return str(run["run_id"])

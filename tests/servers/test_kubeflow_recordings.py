"""The server that stands in for Kubeflow Pipelines answers as the recorded one did, field by field."""

from __future__ import annotations

import json
import re
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.servers.kubeflow import RUNS, Api, Kubeflow, kubeflow_server, recording
from tests.servers.kubeflow.argo import node_id
from tests.servers.kubeflow.recordings import workflow_name

EPOCH = datetime(2026, 11, 2, 3, tzinfo=UTC)
FORMATS = {
    "id": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
    "node": r"[a-z0-9-]+-\d+",
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Kubeflow]:
    """A server with a single user, as the recorded one."""
    with kubeflow_server(tmp_path, multi_user=False) as server:
        yield server


def get(server: Kubeflow, path: str) -> Any:
    with urllib.request.urlopen(f"{server.host}/apis/v2beta1/{path}") as answer:
        return json.load(answer)


def prepared(api: Api, flow: str) -> dict[str, Any]:
    """The body of a run of the recorded package of a flow."""
    package = recording(f"package-{flow}")
    pipeline = api.create_pipeline({"display_name": package["pipelineInfo"]["name"], "description": "A shop."})
    reference = {"pipeline_id": pipeline["pipeline_id"], "pipeline_version_id": api.id()}
    api.versions[reference["pipeline_version_id"]] = {**reference, "name": "a-0b", "pipeline_spec": package}
    experiment = api.create_experiment({"display_name": "rankline", "description": "Runs."})
    return {
        "display_name": "a-1 2026", "experiment_id": experiment["experiment_id"],
        "pipeline_version_reference": reference,
    }  # fmt: skip


def until(api: Api, run: dict[str, Any], step: str = "") -> None:
    """Look at a run until a step has begun, or until its end."""
    while api.is_active(run) and not any(t["display_name"] == step for t in run["run_details"]["task_details"]):
        api.advance(run)


def ended(api: Api, flow: str = "train", **setup: str) -> dict[str, Any]:
    for name, value in setup.items():
        setattr(api, name, value)
    run = api.begin(prepared(api, flow))
    until(api, run)
    return run


def cancelled_in(api: Api, run: dict[str, Any], step: str) -> dict[str, Any]:
    until(api, run, step)
    api.terminate(run)
    until(api, run)
    return run


def cancelled_and_retried(api: Api) -> dict[str, Any]:
    run = cancelled_in(api, api.begin(prepared(api, "train")), "distill")
    api.retry(run)
    until(api, run)
    return run


def scheduled(api: Api) -> dict[str, Any]:
    from tests.servers.kubeflow import schedules

    package, trigger = prepared(api, "train"), {"cron_schedule": {"cron": "0 0 3 * * *"}}
    spec = api.versions[package["pipeline_version_reference"]["pipeline_version_id"]]["pipeline_spec"]
    spec["root"]["inputDefinitions"] = {"parameters": {"scheduled_at": {"parameterType": "STRING"}}}
    given = {"runtime_config": {"parameters": {"scheduled_at": "[[ScheduledTime]]"}}}
    schedules.create(api, {**package, **given, "mode": "ENABLE", "max_concurrency": "1", "trigger": trigger})
    (id,) = api.tick(EPOCH)
    run = cancelled_in(api, api.runs[id], "decide")
    api.retry(run)
    api.workflows[id].fails_at = "decide"
    until(api, run)
    return run


SCENES: dict[str, Callable[[Api], dict[str, Any]]] = {
    "run-promoted": ended,
    "run-pod-killed-promoted": ended,  # the API shows nothing of the pod that was killed
    "run-already-serving": lambda api: ended(api, verdict="already_serving"),
    "run-refused": lambda api: ended(api, verdict="refused"),
    "run-refresh-unchanged": lambda api: ended(api, "refresh", verdict="unchanged"),
    "run-features": lambda api: ended(api, "features"),
    "run-out-of-memory": lambda api: ended(api, fails_at="finetune"),
    "run-image-missing": lambda api: ended(api, fails_at="finetune"),
    "run-unschedulable-cancelled": lambda api: cancelled_in(api, api.begin(prepared(api, "train")), "finetune"),
    "run-cancelled-retried-promoted": cancelled_and_retried,
    "run-scheduled-cancelled-retried-failed": scheduled,
}


def test_every_recorded_run_has_a_scene() -> None:
    assert set(SCENES) == set(RUNS)


def shape(value: Any) -> Any:
    """The fields of an answer, and the format of each value."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    if isinstance(value, list):
        shapes = {json.dumps(shape(each), sort_keys=True) for each in value}
        return [json.loads(each) for each in sorted(shapes)]
    if isinstance(value, str):
        return next((name for name, pattern in FORMATS.items() if re.fullmatch(pattern, value)), "text")
    return type(value).__name__


def states(entry: dict[str, Any]) -> tuple[str, ...]:
    """The states that something had; a pod that ran for less than a look is not seen to run."""
    history = [each.get("state", "") for each in entry["state_history"]]
    return tuple(state for state in history if "PENDING" not in history or state != "RUNNING")


def tree(run: dict[str, Any], names: dict[str, str]) -> Counter[Any]:
    """Every task of a run: its name, its states and what hangs below it; ``names`` tells the names of ids."""
    workflow = workflow_name(run)

    def known(child: dict[str, str]) -> str:
        return names[child["pod_name"].removeprefix(f"{workflow}-")]

    return Counter(
        (
            task["display_name"].replace(workflow, "WORKFLOW"),
            task.get("state"),
            states(task),
            frozenset(known(child) for child in task.get("child_tasks", ())),
        )
        for task in run["run_details"]["task_details"]
    )


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_shown_as_the_recorded_one(server: Kubeflow, name: str) -> None:
    api, recorded = server.api, recording(name)
    run = SCENES[name](api)
    answer = get(server, f"runs/{run['run_id']}")
    assert [each.get("state") for each in answer["state_history"]] == [
        each.get("state") for each in recorded["state_history"]
    ]
    workflow, nodes = api.workflows[run["run_id"]], list(api.workflows[run["run_id"]].nodes)
    for of in (workflow.name, workflow_name(recorded)):
        ids = {node_id(of, node.replace(workflow.name, of)): node.replace(workflow.name, "") for node in nodes}
        numbers = {id.removeprefix(f"{of}-"): node for id, node in ids.items()}
        if of == workflow.name:
            mine = tree(answer, numbers)
        else:
            theirs = tree(recorded, numbers)
    assert mine == theirs
    for each in (answer, recorded):
        tasks = each["run_details"]["task_details"]
        assert [task["task_id"] for task in tasks] == sorted(task["task_id"] for task in tasks)
        del each["state_history"], each["run_details"]
        for task in tasks:
            task["state_history"] = [{"update_time": task["state_history"][0]["update_time"]}]  # compared above
        each["tasks"] = tasks
    assert shape(answer) == shape(recorded)


def test_the_log_of_a_pod_is_found_by_its_name_and_by_its_nodes_id(server: Kubeflow) -> None:
    for name in ("pods-out-of-memory", "pods-cancelled-retried-promoted"):
        for pod in recording(name)["items"]:
            annotations, workflow = pod["metadata"]["annotations"], pod["metadata"]["labels"]
            id = annotations["workflows.argoproj.io/node-id"]
            of = workflow["workflows.argoproj.io/workflow"]
            assert node_id(of, annotations["workflows.argoproj.io/node-name"]) == id
            run = server.api.replay("run-" + name.removeprefix("pods-"))
            for each in (id, pod["metadata"]["name"]):
                url = f"{server.host}/apis/v1alpha1/runs/{run}/nodes/{each}/log"
                assert urllib.request.urlopen(url).read().startswith(b"hello from ")
    api = Api(multi_user=False)
    workflow = api.workflows[ended(api)["run_id"]]
    place = f"{workflow.name}(0).root(0).exit-handler-1(0).finetune(0).executor(0)"
    node = workflow.pod(node_id(workflow.name, place))
    assert node is not None
    number = node_id(workflow.name, place).rpartition("-")[2]
    assert workflow.pod(f"{workflow.name}-retry-system-container-impl-{number}") is node
    assert workflow.pod(f"{workflow.name}-retry-system-container-impl-1") is None


def test_the_nodes_of_a_workflow_are_argos() -> None:
    api = Api(multi_user=False)
    run = ended(api, fails_at="finetune")
    workflow, recorded = api.workflows[run["run_id"]], recording("workflow-out-of-memory")
    of = recorded["metadata"]["name"]
    templates = {node_id(of, node.replace(workflow.name, of)): node for node in workflow.nodes}
    theirs = recorded["status"]["nodes"]
    assert set(templates) == set(theirs)
    for id, place in templates.items():
        node = workflow.nodes[place]
        assert node.label.replace(workflow.name, of) == theirs[id]["displayName"]
        assert node.template in ("", theirs[id]["templateName"])


@pytest.mark.parametrize("noun", ["experiments", "pipelines"])
def test_lists_have_the_recorded_fields(server: Kubeflow, noun: str) -> None:
    ended(server.api)
    bare = {name: kind for each in shape(recording(noun))[noun] for name, kind in each.items()}
    answer = shape(get(server, noun))
    assert answer == {**shape(recording(noun)), noun: [bare]}


def test_a_recurring_run_has_the_recorded_fields(server: Kubeflow) -> None:
    from tests.servers.kubeflow import schedules

    body = prepared(server.api, "train") | {"mode": "DISABLE", "max_concurrency": "1", "no_catchup": True}
    body["runtime_config"] = {"parameters": {"scheduled_at": "[[ScheduledTime]]"}}
    spec = server.api.versions[body["pipeline_version_reference"]["pipeline_version_id"]]["pipeline_spec"]
    spec["root"]["inputDefinitions"] = {"parameters": {"scheduled_at": {"parameterType": "STRING"}}}
    trigger = {"cron_schedule": {"cron": "0 0 4 * * *"}}
    schedules.create(server.api, {**body, "display_name": "rec", "description": "all data", "trigger": trigger})
    (mine,), (_, theirs) = get(server, "recurringruns")["recurringRuns"], recording("recurringruns")["recurringRuns"]
    assert shape(mine) == shape(theirs)
    (workflow,) = server.api.scheduled_workflows.values()
    _, recorded = recording("scheduledworkflows")["items"]
    del recorded["status"]["trigger"]["nextTriggeredTime"]
    assert shape(workflow) == shape(recorded)
    assert workflow["metadata"]["uid"] == mine["recurring_run_id"]
    assert {row["recurring_run_id"] for row in recording("recurringruns")["recurringRuns"]} == {
        each["metadata"]["uid"] for each in recording("scheduledworkflows")["items"]
    }


def test_an_error_has_the_recorded_fields(server: Kubeflow) -> None:
    with pytest.raises(urllib.error.HTTPError) as refusal:
        get(server, "runs/nope")
    recorded = recording("error-run-not-found")
    assert refusal.value.code == recorded["status"]
    assert json.loads(refusal.value.read()) == recorded["body"]


@pytest.mark.parametrize("name", RUNS)
def test_a_recording_is_served_as_it_is_or_played(server: Kubeflow, name: str) -> None:
    recorded = recording(name)
    id = server.api.replay(name)
    assert get(server, f"runs/{id}") == recorded
    server.api.replay(name, play=True)
    seen = [server.api.runs[id].get("state")]
    for _ in range(400):
        answer = get(server, f"runs/{id}")
        seen.append(answer.get("state"))
        if answer == recorded:
            break
        assert answer["run_details"].get("task_details", []) != recorded["run_details"]["task_details"] or (
            answer["state_history"] != recorded["state_history"]
        )
    assert answer == recorded
    history = [each.get("state") for each in recorded["state_history"]]
    assert [state for state, before in zip(seen, [object(), *seen]) if state != before] == history


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_begins_can_be_a_recorded_one(server: Kubeflow, name: str) -> None:
    body, recorded = prepared(server.api, "train"), recording(name)
    server.api.next_recording = name
    run = server.api.begin(body)
    assert run["run_id"] == recorded["run_id"]
    assert run["state_history"] == recorded["state_history"][:1]
    while server.api.played[run["run_id"]][1]:
        answer = get(server, f"runs/{run['run_id']}")
    assert answer["run_details"] == recorded["run_details"]
    assert answer["pipeline_version_reference"] == body["pipeline_version_reference"]

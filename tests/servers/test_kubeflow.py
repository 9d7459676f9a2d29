"""The server that stands in for Kubeflow Pipelines refuses what the real one's sources refuse."""

# ruff: noqa: F811 (fixtures are asked for by their name)
from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.pipelines import golden
from tests.pipelines.kubeflow.kubeflow_world import kubeflow, nothing_of_ours  # noqa: F401
from tests.servers.kubeflow import NAMESPACE, Api, Kubeflow

Ask = Callable[..., Any]
FILTER = json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": "a"}]})


@pytest.fixture
def ask(kubeflow: Kubeflow) -> Ask:
    """Ask the server: the answer, or where it refuses the message, after its status."""

    def asked(how: str, path: str, body: Any = None, **query: Any) -> Any:
        address = f"{kubeflow.host}/apis/v2beta1/{path}?{urllib.parse.urlencode(query)}"
        request = urllib.request.Request(address, json.dumps(body).encode() if body is not None else None, method=how)
        try:
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return f"{error.code} {json.loads(error.read())['message']}"

    return asked


@pytest.fixture
def world(kubeflow: Kubeflow) -> dict[str, Any]:
    """An experiment, a version of a pipeline that takes the scheduled time, and a body that refers to both."""
    api = kubeflow.api
    pipeline = api.create_pipeline({"display_name": "a", "namespace": NAMESPACE})
    other = api.create_pipeline({"display_name": "b", "namespace": NAMESPACE})
    version = api.upload_version(
        {"pipelineid": pipeline["pipeline_id"], "name": "a-1"}, golden.path("train").read_bytes(), "a.yaml"
    )
    root = version["pipeline_spec"]["pipeline_spec"]["root"]
    root["inputDefinitions"] = {"parameters": {"scheduled_at": {"parameterType": "STRING"}}}
    experiment = api.create_experiment({"display_name": "e", "namespace": NAMESPACE})
    reference = {"pipeline_id": pipeline["pipeline_id"], "pipeline_version_id": version["pipeline_version_id"]}
    run = {
        "display_name": "r", "experiment_id": experiment["experiment_id"], "pipeline_version_reference": reference,
        "runtime_config": {"parameters": {"scheduled_at": "20261101030000"}},
    }  # fmt: skip
    recurring = {
        **run, "mode": "ENABLE", "max_concurrency": 1, "trigger": {"cron_schedule": {"cron": "0 0 3 * * *"}},
    }  # fmt: skip
    return {"run": run, "recurring": recurring, "other": other["pipeline_id"]}


def test_what_is_sound_is_taken(ask: Ask, world: dict[str, Any]) -> None:
    assert ask("POST", "runs", world["run"])["state"] == "PENDING"
    assert ask("POST", "recurringruns", world["recurring"])["status"] == "ENABLED"


def test_two_of_one_name(ask: Ask, world: dict[str, Any]) -> None:
    message = ask("POST", "experiments", {"display_name": "e", "namespace": NAMESPACE})
    assert message.startswith("409 Already exist error")
    assert ask("POST", "pipelines", {"display_name": "a", "namespace": NAMESPACE}).startswith("409")


@pytest.mark.integration
@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"display_name": ""}, "400 Invalid input error: The run name is empty"),
        ({"experiment_id": "nope"}, "404 Experiment nope not found"),
        ({"runtime_config": {"parameters": {}}}, "missing required parameter scheduled_at"),
        (
            {"runtime_config": {"parameters": {"scheduled_at": "a", "b": "c"}}},
            "not in the pipeline's input definitions",
        ),
        ({"runtime_config": {"parameters": {"scheduled_at": 7}}}, "scheduled_at requires type STRING"),
        ({"runtime_config": {"parameters": {"scheduled_at": True}}}, "scheduled_at requires type STRING"),
        ({"pipeline_version_reference": {"pipeline_version_id": "nope"}}, "404 Failed to fetch a template"),
        ({"colour": "red"}, "unknown field ['colour']"),
        ({"state": "DREAMING"}, "'DREAMING' is no"),
    ],
)
def test_a_run_that_cannot_be(ask: Ask, world: dict[str, Any], changed: dict[str, Any], expected: str) -> None:
    assert expected in ask("POST", "runs", {**world["run"], **changed})


def test_a_version_of_another_pipeline(ask: Ask, world: dict[str, Any]) -> None:
    reference = {**world["run"]["pipeline_version_reference"], "pipeline_id": world["other"]}
    message = ask("POST", "runs", {**world["run"], "pipeline_version_reference": reference})
    assert "pipeline ID should be parent of pipeline version" in message


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"display_name": ""}, "Recurring run name is empty"),
        ({"max_concurrency": 0}, "at least 1 and at most 10"),
        ({"max_concurrency": 11}, "at least 1 and at most 10"),
        ({"mode": "MODE_UNSPECIFIED"}, "the mode of a recurring run is ENABLE or DISABLE"),
        ({"trigger": {"cron_schedule": {"cron": "0 0 3 * * *"}, "periodic_schedule": {"interval_second": "60"}}},
         "oneof v2beta1.Trigger.trigger is already set"),
        ({"trigger": {"periodic_schedule": {"interval_second": "0"}}}, "Set at interval to least 1 second"),
        ({"trigger": {"periodic_schedule": {"interval_second": "-1"}}}, "Set at interval to least 1 second"),
        ({"trigger": {"cron_schedule": {"cron": "1 * *"}}}, "expected 5 to 6 fields, found 3"),
        ({"trigger": {"cron_schedule": {"cron": "0 0 3 * * * *"}}}, "expected 5 to 6 fields, found 7"),
        ({"trigger": {"cron_schedule": {"cron": "0 0 24 * * *"}}}, "failed to parse '24'"),
        ({"trigger": {"cron_schedule": {"cron": "0 0 3 * * 7"}}}, "failed to parse '7'"),
        ({"trigger": {"cron_schedule": {"cron": "0 0 5-3 * * *"}}}, "failed to parse '5-3'"),
        ({"trigger": {"cron_schedule": {"cron": "*/0 0 3 * * *"}}}, "failed to parse '*/0'"),
        ({"trigger": {"cron_schedule": {"cron": "@fortnightly"}}}, "unrecognized descriptor"),
    ],
)  # fmt: skip
def test_a_recurring_run_that_cannot_be(
    ask: Ask, world: dict[str, Any], changed: dict[str, Any], expected: str
) -> None:
    assert expected in ask("POST", "recurringruns", {**world["recurring"], **changed})


def test_several_users_have_namespaces(ask: Ask, world: dict[str, Any]) -> None:
    for noun in ("runs", "experiments", "recurringruns"):
        assert "namespace cannot be empty in multi-user mode" in ask("GET", noun)
        assert ask("GET", noun, namespace="theirs").startswith("403 User is not authorized")
    assert "cannot have an empty namespace" in ask("POST", "experiments", {"display_name": "f"})
    assert ask("GET", "runs", experiment_id="nope").startswith("404")


def test_what_a_run_in_this_state_does_not_do(ask: Ask, kubeflow: Kubeflow, world: dict[str, Any]) -> None:
    run = ask("POST", "runs", world["run"])["run_id"]
    assert "must be Failed/Error to retry" in ask("POST", f"runs/{run}:retry")
    assert ask("POST", f"runs/{run}:terminate") == {}
    assert "Row not found" in ask("POST", f"runs/{run}:terminate")  # it is ending already
    assert "must be Failed/Error to retry" in ask("POST", f"runs/{run}:retry")
    assert ask("GET", f"runs/{run}")["state"] == "FAILED"  # never CANCELED
    assert "Row not found" in ask("POST", f"runs/{run}:terminate")
    assert ask("POST", f"runs/{run}:archive") == {}
    assert "an archived run cannot be retried" in ask("POST", f"runs/{run}:retry")
    assert ask("POST", f"runs/{run}:unarchive") == {}
    assert ask("POST", f"runs/{run}:retry") == {}
    ask("POST", f"experiments/{world['run']['experiment_id']}:archive")
    assert ask("GET", f"runs/{run}")["storage_state"] == "ARCHIVED"
    assert "Unarchive the experiment first" in ask("POST", f"runs/{run}:unarchive")
    assert ask("DELETE", f"runs/{run}") == {}
    for path in (f"runs/{run}:terminate", f"runs/{run}:retry", f"runs/{run}:archive"):
        assert ask("POST", path).startswith("404")
    assert ask("POST", "runs/nope:paint").startswith("404")


def test_an_archived_experiment_fires_no_more(ask: Ask, kubeflow: Kubeflow, world: dict[str, Any]) -> None:
    recurring_run = ask("POST", "recurringruns", world["recurring"])["recurring_run_id"]
    ask("POST", f"experiments/{world['run']['experiment_id']}:archive")
    assert ask("GET", f"recurringruns/{recurring_run}")["status"] == "DISABLED"
    assert ask("DELETE", f"recurringruns/{recurring_run}") == {}
    assert ask("DELETE", f"recurringruns/{recurring_run}").startswith("404")
    assert ask("POST", f"recurringruns/{recurring_run}:enable").startswith("404")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"page_token": "2"}, "Invalid page token"),
        ({"page_token": "bm90IGpzb24="}, "Invalid page token"),
        ({"page_size": -1}, "The page size should be greater than 0"),
        ({"page_size": "many"}, "type mismatch"),
        ({"sort_by": "colour"}, "Invalid sorting field: 'colour'"),
        ({"sort_by": "created_at sideways"}, "invalid sort by format"),
        ({"sort_by": "created_at desc please"}, "invalid sort by format"),
        ({"filter": "display_name=a"}, "failed to parse valid filter"),
        ({"filter": FILTER.replace("display_name", "colour")}, "unrecognized field 'colour'"),
        ({"filter": FILTER.replace("EQUALS", "SOUNDS_LIKE")}, "operation SOUNDS_LIKE"),
    ],
)
def test_a_list_that_cannot_be_asked_for(ask: Ask, query: dict[str, Any], expected: str) -> None:
    refusal = ask("GET", "runs", namespace=NAMESPACE, **query)
    assert refusal.startswith("400")
    assert expected in refusal


def test_a_token_goes_with_what_the_first_page_asked(ask: Ask, kubeflow: Kubeflow, world: dict[str, Any]) -> None:
    api: Api = kubeflow.api
    for _ in range(5):
        ask("POST", "runs", world["run"])
    first = ask("GET", "runs", namespace=NAMESPACE, page_size=2, sort_by="created_at desc")
    asked = {"namespace": NAMESPACE, "page_size": 2, "page_token": first["next_page_token"]}
    assert "does not match the supplied sort by" in ask("GET", "runs", sort_by="created_at asc", **asked)
    assert "does not match the supplied sort by" in ask("GET", "runs", filter=FILTER, **asked)
    second = ask("GET", "runs", **asked)  # what is left out is the first page's
    rows = [row["run_id"] for page in (first, second) for row in page["runs"]]
    assert rows == sorted(api.runs, reverse=True)[:4]
    assert len(ask("GET", "runs", namespace=NAMESPACE)["runs"]) == 5
    assert "next_page_token" not in ask("GET", "runs", namespace=NAMESPACE)


def test_names_and_texts_have_a_length(ask: Ask, world: dict[str, Any]) -> None:
    def refusal(noun: str, **fields: Any) -> str:
        return str(ask("POST", noun, {"namespace": NAMESPACE, **fields}))

    assert "Pipeline.Name length cannot exceed 128" in refusal("pipelines", display_name="p" * 129)
    assert "Experiment.Name length cannot exceed 128" in refusal("experiments", display_name="ä" * 65)  # in bytes
    assert ask("POST", "experiments", {"display_name": "f", "namespace": NAMESPACE, "description": "ä" * 255})
    too_long = "Error 1406 (22001): Data too long for column 'Description' at row 1"
    message = refusal("experiments", display_name="g", description="e" * 256)
    assert message.startswith("500")
    assert message.endswith(too_long)
    for noun in ("runs", "recurringruns"):
        body = world[noun.removesuffix("runs") or "run"]
        assert str(ask("POST", noun, {**body, "description": "e" * 256})).endswith(too_long)
        assert ask("POST", noun, {**body, "description": "ä" * 255})["description"]
    assert "column 'DisplayName'" in ask("POST", "runs", {**world["run"], "display_name": "r" * 256})


def test_a_recurring_run_that_is_not_stored_fires_all_the_same(
    ask: Ask, kubeflow: Kubeflow, world: dict[str, Any], tmp_path: Path
) -> None:
    from kubernetes import client, config

    refused = {**world["recurring"], "display_name": "Nightly of the shop in Zürich", "description": "e" * 256}
    assert "Failed to store job Nightly of the shop in Zürich to table" in ask("POST", "recurringruns", refused)
    assert ask("GET", "recurringruns", namespace=NAMESPACE) == {}
    assert kubeflow.api.tick(datetime(2026, 11, 2, 3, tzinfo=UTC)) == []
    assert len(kubeflow.api.unlisted) == 1
    assert ask("GET", "runs", namespace=NAMESPACE) == {}
    with config.new_client_from_config(str(kubeflow.kubeconfig(tmp_path))) as api_client:
        kubernetes = client.CustomObjectsApi(api_client)
        kind = ("kubeflow.org", "v1beta1", NAMESPACE, "scheduledworkflows")
        (workflow,) = kubernetes.list_namespaced_custom_object(*kind)["items"]
        assert workflow["metadata"]["generateName"] == "nightlyoftheshopinzrich"
        kubernetes.delete_namespaced_custom_object(*kind, workflow["metadata"]["name"])
        assert kubernetes.list_namespaced_custom_object(*kind)["items"] == []
    kubeflow.api.tick(datetime(2026, 11, 3, 3, tzinfo=UTC))
    assert len(kubeflow.api.unlisted) == 1

"""The limits of a cluster: what is refused here before anything is sent, and what the server would have answered."""

# ruff: noqa: F811 (fixtures are asked for by their name)
from __future__ import annotations

from typing import Any

import pytest

from pipelines.kubeflow import limits
from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.limits import LIMITS, check_limits, shorten
from pipelines.kubeflow.packages import pipeline_name, upload
from pipelines.kubeflow.recurring_runs import RecurringRunSpec, create
from pipelines.kubeflow.runs import submit
from pipelines.recipes import Recipe
from rankline.errors import UsageError
from tests.pipelines import golden
from tests.pipelines.kubeflow.kubeflow_world import cluster, compiled_once, kubeflow, nothing_of_ours  # noqa: F401
from tests.servers.kubeflow import NAMESPACE, Kubeflow
from tests.servers.kubeflow.answers import Refused


@pytest.mark.parametrize("name", LIMITS)
def test_a_text_of_the_largest_size_is_taken_and_no_longer_one(name: str) -> None:
    limit = LIMITS[name]
    wide = 2 if limit.unit == "bytes" else 1  # bytes of ä
    check_limits({name: "a" * limit.most})
    check_limits({name: "ä" * (limit.most // wide)})
    for text in ("a" * (limit.most + 1), "ä" * (limit.most // wide + 1)):
        with pytest.raises(UsageError, match=f"cannot store this {name}") as refusal:
            check_limits({name: text})
        assert refusal.value.expected == f"at most {limit.most} {limit.unit}"
    if limit.may_be_empty:
        check_limits({name: ""})
    else:
        with pytest.raises(UsageError, match="is empty"):
            check_limits({name: ""})


def test_the_server_has_these_limits(kubeflow: Kubeflow, cluster: Cluster) -> None:
    api, spec = kubeflow.api, RecurringRunSpec(name="a", cron="0 0 3 * * *")
    body = {"namespace": NAMESPACE}
    sizes = {name: limit.most for name, limit in LIMITS.items()}
    for over in (0, 1):
        attempts: list[Any] = [
            lambda over=over: api.create_pipeline({**body, "display_name": "p" * (sizes["pipeline name"] + over)}),
            lambda over=over: api.create_experiment({**body, "display_name": "e" * (sizes["experiment name"] + over)}),
            lambda over=over: api.create_experiment(
                {**body, "display_name": f"f{over}", "description": "ä" * (sizes["description"] + over)}
            ),
            lambda over=over: api.upload_version(
                {"pipelineid": next(iter(api.pipelines)), "name": "v" * (sizes["pipeline version name"] + over)},
                golden.path("features").read_bytes(), "a.yaml",
            ),
        ]  # fmt: skip
        for attempt in attempts:
            if over:
                with pytest.raises(Refused):
                    attempt()
            else:
                attempt()
    row = api.recurring[create(cluster, spec, golden.pinned("smoke")).id]
    for name, field in (("recurring run name", "display_name"), ("description", "description")):
        for over in (0, 1):
            changed = {key: row[key] for key in ("experiment_id", "pipeline_version_reference", "runtime_config")}
            changed |= {"display_name": "a", "trigger": row["trigger"], "mode": "ENABLE", "max_concurrency": 1}
            changed[field] = "ä" * (LIMITS[name].most + over)
            from tests.servers.kubeflow import schedules

            if over:
                with pytest.raises(Refused, match="Data too long"):
                    schedules.create(api, changed)
            else:
                schedules.create(api, changed)


def renamed(name: str, **fields: Any) -> Recipe:
    import dataclasses

    return dataclasses.replace(golden.pinned("smoke"), name=name, **fields)


def test_a_recipe_whose_pipeline_cannot_be_stored_is_refused_before_anything_is_sent(
    kubeflow: Kubeflow, cluster: Cluster
) -> None:
    kubeflow.api.asked.clear()
    with pytest.raises(UsageError, match="pipeline name"):
        upload(cluster, renamed("r" * 130))
    with pytest.raises(UsageError, match="pipeline name"):
        upload(cluster, renamed("r" * 115), flow="features")
    with pytest.raises(UsageError, match="pipeline version name"):
        upload(cluster, renamed("r" * 115))
    with pytest.raises(UsageError, match="pipeline description"):
        upload(cluster, renamed("smoke", description="d" * 70_000))
    assert kubeflow.api.asked == []
    assert len(pipeline_name(renamed("r" * 110), "features")) <= LIMITS["pipeline name"].most
    assert upload(cluster, renamed("r" * 110), flow="features").uploaded


def test_an_experiment_or_an_account_that_cannot_be_stored_is_refused(kubeflow: Kubeflow, cluster: Cluster) -> None:
    version = upload(cluster, golden.pinned("smoke"))
    kubeflow.api.asked.clear()
    for options in ({"experiment": "e" * 129}, {"experiment": ""}, {"account": "s" * 254}):
        with pytest.raises(UsageError):
            submit(cluster, version, **options)
    for fields in ({"experiment": "ä" * 65}, {"account": "s" * 254}):
        spec = RecurringRunSpec(name="a", cron="0 0 3 * * *", **fields)  # type: ignore[arg-type]
        with pytest.raises(UsageError):
            create(cluster, spec, golden.pinned("smoke"))
    assert [each for each in kubeflow.api.asked if each.startswith("POST")] == []


def test_a_package_that_kubernetes_cannot_store_is_refused(
    kubeflow: Kubeflow, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(limits.LIMITS, "package", limits.LIMITS["package"]._replace(most=1000))
    with pytest.raises(UsageError, match="cannot store this package"):
        upload(cluster, golden.pinned("smoke"))
    assert kubeflow.api.pipelines == {}


@pytest.mark.parametrize("flow", ["train", "refresh", "features"])
def test_a_schedule_of_any_size_is_stored_and_read_back(kubeflow: Kubeflow, cluster: Cluster, flow: Any) -> None:
    metadata = {"schedule": {"name": "n" * 63, "settings": ["ingest.columns=" + "Größe 🛒 " * 400]}}
    recipe = renamed("r" * 100, description="Schöne Dinge.")
    spec = RecurringRunSpec(name="n" * 63, cron="0 0 3 * * *", flow=flow, window="30d", metadata=metadata)
    created = create(cluster, spec, recipe)
    (row,) = kubeflow.api.recurring.values()
    assert len(row["description"]) <= LIMITS["description"].most
    assert row["description"].startswith("data window: 30d, up to 0s before the scheduled time; flow")
    assert created.metadata == metadata
    (pipeline,) = kubeflow.api.pipelines.values()
    assert pipeline["description"] == "Schöne Dinge."


def test_shorten() -> None:
    assert shorten("ä" * 255) == "ä" * 255
    assert shorten("ä" * 256) == "ä" * 254 + "…"

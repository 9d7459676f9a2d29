"""`rankline sync`, and what commands that change the champion tell MLflow and receivers."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.recipe import Recipe, as_dict
from pipelines.recipes import named
from rankline.notifications import delivery
from tests.cli.in_process import rankline, refused
from tests.rankline.mirror.conftest import Gallery, gallery, tables  # noqa: F401
from tests.rankline.notifications.receivers import refused_port, web_server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "BACKOFF_S", 0.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def record(gallery: Gallery, *settings: str, run: str = "20261130-120000-smoke") -> Recipe:  # noqa: F811
    """Leave the folder of a run with these settings."""
    recipe = named("smoke", list(settings))
    folder = gallery.workspace / "runs" / run
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_text(json.dumps(as_dict(recipe)))
    return recipe


def announced(stderr: str) -> list[str]:
    """The warnings of a command, without that of catalogues that have no items, as these."""
    return [line for line in stderr.splitlines() if "withdrawn items" not in line]


def synced(gallery: Gallery, *options: str) -> dict[str, Any]:  # noqa: F811
    done = rankline("sync", "-w", gallery.workspace, "--json", *options)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.integration
def test_a_sync_prints_what_it_changes_and_a_second_one_changes_nothing(gallery: Gallery) -> None:  # noqa: F811
    model_id = gallery.candidate("a", "promoted")
    record(gallery)
    assert len(synced(gallery, "--dry-run")["changes"]) == 2
    done = rankline("sync", "-w", gallery.workspace)
    assert done.stdout.splitlines() == [
        f"model {model_id}: version: none -> new",
        f"alias champion: none -> {model_id}",
        "1 candidates compared with MLflow; 2 changed",
    ]
    again = synced(gallery)
    assert (again["changes"], again["versions"], again["models"]) == ([], {model_id: 1}, 1)
    earlier_name = rankline("mirror", "--recipe", "smoke", "-w", gallery.workspace, "--json")
    assert "now called `rankline sync`" in earlier_name.stderr
    assert json.loads(earlier_name.stdout)["changes"] == []


def test_a_sync_takes_the_settings_of_the_newest_run(gallery: Gallery) -> None:  # noqa: F811
    gallery.candidate("a", "promoted")
    assert "nothing here says where MLflow is" in refused("sync", "-w", gallery.workspace, code=2)
    record(gallery, "promote.registered_model=old", run="20261129-120000-smoke")
    record(gallery, "promote.registered_model=new")
    synced(gallery)
    synced(gallery, "--set", "promote.registered_model=third")
    assert {each.name for each in gallery.client.search_registered_models()} >= {"new", "third"}
    assert "old" not in {each.name for each in gallery.client.search_registered_models()}


def test_a_rollback_moves_the_alias_and_notifies(gallery: Gallery) -> None:  # noqa: F811
    first, second = gallery.candidate("a", "promoted"), gallery.candidate("b", "promoted")
    gallery.sync()
    assert gallery.aliases == {"champion": second}
    with web_server([200]) as (url, received):
        record(gallery, f'notify.webhooks=[{{"url": "{url}"}}]')
        done = rankline("rollback", "--why", "complaints", "-w", gallery.workspace)
        assert (done.returncode, announced(done.stderr)) == (0, [])
        assert gallery.aliases == {"champion": first}
        done = rankline(
            "promote", second[:8], "--break-glass", "--reason", "an emergency here", "-w", gallery.workspace
        )
        assert (done.returncode, announced(done.stderr)) == (0, [])
    assert gallery.aliases == {"champion": second}
    assert gallery.version(second).tags["break_glass"] == "yes"
    messages = [json.loads(each.body) for each in received]
    assert [(each["event"], each["recipe"], each["past_gates"]) for each in messages] == [
        ("rolled_back", "smoke", False), ("promoted", "smoke", True),
    ]  # fmt: skip


@pytest.mark.integration
def test_a_rollback_stands_where_nobody_answers_and_a_sync_mends_the_rest(gallery: Gallery) -> None:  # noqa: F811
    first, _ = gallery.candidate("a", "promoted"), gallery.candidate("b", "promoted")
    with web_server([500, 500, 500, 500, 500, 200]) as (url, received):
        recipe = record(gallery, f'notify.webhooks=[{{"url": "{url}"}}]', "promote.mirror_timeout_s=20",
                        f"promote.tracking_uri=http://127.0.0.1:{refused_port()}")  # fmt: skip
        started = time.monotonic()
        done = rankline("rollback", "--json", "-w", gallery.workspace)
        assert time.monotonic() - started < 60
        assert (done.returncode, json.loads(done.stdout)["model_id"]) == (0, first)
        warnings = announced(done.stderr)
        assert len(warnings) == 2
        assert all("`rankline sync`" in each for each in warnings)
        assert "MLflow cannot be written" in refused("sync", "-w", gallery.workspace, "--set", "notify.webhooks=[]")
        assert len(received) == 5
        result = synced(gallery, "--set", "promote.tracking_uri=")
    assert result["notifications"] == {"delivered": 1, "waiting": 0, "problems": []}
    assert gallery.aliases == {"champion": first}
    assert recipe.promote.tracking_uri


def test_a_workspace_of_no_runs_rolls_back_without_mlflow(gallery: Gallery) -> None:  # noqa: F811
    (gallery.workspace / "mlflow.db").unlink()
    gallery.candidate("a", "promoted"), gallery.candidate("b", "promoted")
    done = rankline("rollback", "-w", gallery.workspace)
    assert (done.returncode, announced(done.stderr)) == (0, [])
    assert not (gallery.workspace / "mlflow.db").exists()


def test_candidates_that_cannot_be_read_end_a_sync_with_an_error_code(gallery: Gallery) -> None:  # noqa: F811
    gallery.candidate("a", "rejected", outcome="refused")
    record(gallery)
    evidence = next(event.digests["evaluation"] for event in gallery.models.history() if event.kind == "evaluated")
    (Path(gallery.models.evidence(evidence)) / "report.json").write_text("{")
    done = rankline("sync", "-w", gallery.workspace)
    assert done.returncode == 1
    assert "warning: model" in done.stderr

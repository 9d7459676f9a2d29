"""MLflow shows what the registry says: real databases, damaged, killed, locked."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rankline.evaluation.report import read_report
from rankline.mirror.config import TrackingConfig
from rankline.mirror.follow import follow
from rankline.model.bundle import open_bundle
from rankline.runtime import ledger
from tests.rankline.mirror.conftest import Gallery
from tests.rankline.notifications.receivers import refused_port, web_server


@pytest.mark.integration
def test_every_candidate_is_a_run_and_a_version_with_its_evidence(gallery: Gallery) -> None:
    refused = gallery.candidate("refused", "rejected", outcome="refused")
    starved = gallery.candidate("starved", "rejected", outcome="insufficient_data")
    _recorded_run(gallery, "run-champion")
    champion = gallery.candidate("champion", "promoted")
    waiting = gallery.candidate("waiting", "pending", outcome="pending")
    unjudged = gallery.candidate("unjudged")
    forced = gallery.candidate("forced", "rejected", outcome="refused")
    gallery.judge(forced, "promoted", who="anna", why="an emergency", details={"break_glass": True})

    synced = gallery.sync()
    assert synced.problems == []
    assert list(synced.versions.values()) == [1, 2, 3, 4, 5, 6]
    outcomes = {model_id: gallery.version(model_id).tags["outcome"] for model_id in synced.versions}
    assert outcomes == {
        refused: "refused", starved: "insufficient_data", champion: "promoted", waiting: "pending",
        unjudged: "evaluated", forced: "promoted",
    }  # fmt: skip
    assert gallery.aliases == {"champion": forced, "candidate": waiting}
    assert gallery.version(forced).tags["break_glass"] == "yes"
    assert gallery.version(forced).tags["decided_by"] == "anna"

    version, history = gallery.version(champion), gallery.models.history()
    promoted = next(event for event in history if event.kind == "promoted" and event.model_id == champion)
    assert version.tags["verdict"] == promoted.digests["verdict"]
    assert version.tags["evaluation"] == promoted.digests["evaluation"]
    assert version.tags["bundle"].endswith(f"/bundles/{champion}")
    assert (version.tags["recipe"], version.tags["rankline_run"]) == ("smoke", "run-champion")
    assert (version.tags["data_digest"], version.tags["code_digest"], version.tags["began_from"]) == ("d", "c", "m0")
    run = gallery.client.get_run(version.run_id)
    report = read_report(Path(gallery.models.evidence(promoted.digests["evaluation"])))
    assert run.data.metrics["ndcg_at_10"] == report.systems["candidate"].metrics["ndcg@10"].mean
    assert run.data.metrics["latency/p95_ms"] == 12.0
    assert run.data.params["finetune.epochs"] == "3"
    assert "ingest.source" not in run.data.params
    assert {each.path for each in gallery.client.list_artifacts(version.run_id)} == {"report.json", "verdict.md"}
    curve = gallery.client.get_metric_history(version.run_id, "distill/valid_ndcg_at_10")
    assert [(point.step, point.value) for point in curve] == [(0, 0.1), (1, 0.2)]
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("smoke", "d")

    assert gallery.sync().changes == []
    gallery.models.append("confirmed", forced, who="the flow", why="within the budget")
    assert [(each.name, each.after) for each in gallery.sync().changes] == [("break_glass", "confirmed")]


def _recorded_run(gallery: Gallery, name: str) -> None:
    """The folder of a run, with its settings and the curve of a step."""
    folder = gallery.workspace / "runs" / name
    (folder / "student").mkdir(parents=True)
    (folder / "recipe.json").write_text(json.dumps({"finetune": {"epochs": 3}, "ingest": {"source": "/data"}}))
    points = [{"epoch": 0, "valid_ndcg@10": 0.1}, {"epoch": 1, "valid_ndcg@10": 0.2}]
    (folder / "student" / "curve.json").write_text(json.dumps(points))
    entry = ledger.Entry(step="distill", status="done", started=0, paths={"student": str(folder / "student")})
    ledger.write_entry(folder, entry)


@pytest.mark.integration
def test_the_aliases_follow_verdicts_and_rollbacks(gallery: Gallery) -> None:
    first = gallery.candidate("a", "promoted")
    second = gallery.candidate("b", "promoted")
    third = gallery.candidate("c", "pending")

    def followed(model_id: str) -> dict[str, Any]:
        return follow(gallery.models, [model_id], config=gallery.config, workspace=gallery.workspace)

    assert "error" not in followed(third)
    assert gallery.aliases == {"champion": second, "candidate": third}
    gallery.models.append("rolled_back", first, who="somebody", why="complaints")
    assert followed(first)["version"] == int(gallery.version(first).version)
    assert gallery.aliases == {"champion": first, "candidate": third}
    gallery.judge(third, "rejected", who="a reviewer")
    assert "error" not in followed(third)
    assert gallery.aliases == {"champion": first}
    assert gallery.version(third).tags["outcome"] == "rejected"


def _run_of(gallery: Gallery, model_id: str) -> str:
    return str(gallery.version(model_id).run_id)


# what a person or a crash does to MLflow -> what differs then
DAMAGES: dict[str, tuple[Callable[[Gallery, str, str], object], set[str]]] = {
    "the alias is gone": (
        lambda g, a, b: g.client.delete_registered_model_alias("rankline", "champion"), {"alias champion"},
    ),
    "the alias is elsewhere": (
        lambda g, a, b: g.client.set_registered_model_alias("rankline", "champion", g.version(a).version),
        {"alias champion"},
    ),
    "a version is gone": (
        lambda g, a, b: g.client.delete_model_version("rankline", g.version(a).version), {"version "},
    ),
    "the champion's version is gone": (
        lambda g, a, b: g.client.delete_model_version("rankline", g.version(b).version),
        {"version ", "alias champion"},
    ),
    "a tag says something else": (
        lambda g, a, b: g.client.set_model_version_tag("rankline", g.version(a).version, "outcome", "promoted"),
        {"tag outcome"},
    ),
    "a tag is gone": (
        lambda g, a, b: g.client.delete_model_version_tag("rankline", g.version(a).version, "bundle"), {"tag bundle"},
    ),
    "a tag says what is over": (
        lambda g, a, b: g.client.set_model_version_tag("rankline", g.version(a).version, "removed", "yes"),
        {"tag removed"},
    ),
    "the description is another": (
        lambda g, a, b: g.client.update_model_version("rankline", g.version(a).version, "?"), {"description "},
    ),
    "the run is deleted": (lambda g, a, b: g.client.delete_run(_run_of(g, a)), {"run "}),
    "the run never ended": (lambda g, a, b: g.client.update_run(_run_of(g, a), status="RUNNING"), {"run "}),
    "the pages are gone": (
        lambda g, a, b: shutil.rmtree(g.client.get_run(_run_of(g, a)).info.artifact_uri.removeprefix("file://")),
        {"run "},
    ),
    "everything is gone": (
        lambda g, a, b: g.client.delete_registered_model("rankline"), {"version ", "alias champion"},
    ),
}  # fmt: skip


@pytest.mark.integration
def test_what_was_changed_by_hand_is_repaired(gallery: Gallery) -> None:
    models = gallery.candidate("a", "rejected", outcome="refused"), gallery.candidate("b", "promoted")
    gallery.sync()
    for name, (damage, expected) in DAMAGES.items():
        damage(gallery, *models)
        before = (gallery.workspace / "mlflow.db").read_bytes()
        predicted = {f"{each.subject} {each.name}" for each in gallery.sync(dry_run=True).changes}
        assert (gallery.workspace / "mlflow.db").read_bytes() == before, name
        repaired = {f"{each.subject} {each.name}" for each in gallery.sync().changes}
        assert (predicted, repaired) == (expected, expected), name
        assert gallery.sync().changes == [], name
        assert gallery.aliases == {"champion": models[1]}, name


def test_a_run_that_is_gone_for_good_gets_a_new_version(gallery: Gallery) -> None:
    model_id = gallery.candidate("a", "promoted")
    gallery.sync()
    with sqlite3.connect(gallery.workspace / "mlflow.db") as db:  # what `mlflow gc` does
        for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
            db.execute(f"DELETE FROM {table} WHERE run_uuid = ?", (_run_of(gallery, model_id),))
    assert "run " in {f"{each.subject} {each.name}" for each in gallery.sync().changes}
    assert gallery.sync().changes == []
    assert gallery.client.get_run(_run_of(gallery, model_id)).data.metrics["ndcg_at_10"]
    assert gallery.aliases == {"champion": model_id}


def test_newer_evidence_of_the_same_model_takes_the_place_of_the_old(gallery: Gallery) -> None:
    model_id = gallery.candidate("a", "pending")
    gallery.sync()
    version = gallery.version(model_id)
    before = gallery.client.get_run(version.run_id).data.metrics["ndcg_at_10"]
    time.sleep(0.01)  # a metric's time is in milliseconds
    bundle = open_bundle(gallery.workspace.parent / "a" / "bundle")
    gallery.evaluate(bundle, "a", lift=0.2, who="the flow", run_id="run-again")
    assert gallery.sync().versions == {model_id: 1}
    after = gallery.version(model_id)
    assert gallery.client.get_run(version.run_id).data.metrics["ndcg_at_10"] == pytest.approx(before + 0.1)
    assert after.tags["evaluation"] != version.tags["evaluation"]
    assert "verdict" not in after.tags  # that was on the old evidence
    assert gallery.sync().changes == []


def test_a_version_of_an_earlier_rankline_is_completed(gallery: Gallery) -> None:
    model_id = gallery.candidate("a", "promoted")
    client = gallery.client
    experiment = client.create_experiment("rankline", artifact_location=(gallery.workspace / "mlruns").as_uri())
    run = client.create_run(experiment, tags={"model_id": model_id})
    client.log_param(run.info.run_id, "champion_before", "none")
    client.set_terminated(run.info.run_id)
    client.create_model_version("rankline", "file:///b", run_id=run.info.run_id, tags={"model_id": model_id})
    client.set_registered_model_alias("rankline", "champion", "1")
    assert "run" in {each.subject for each in gallery.sync().changes}
    assert gallery.version(model_id).tags["outcome"] == "promoted"
    assert client.get_run(run.info.run_id).data.metrics["ndcg_at_10"]
    assert gallery.sync().changes == []


def test_a_removed_model_keeps_its_version_and_the_others_theirs(gallery: Gallery) -> None:
    old, serving = gallery.candidate("a", "pending"), gallery.candidate("b", "promoted")
    gallery.sync()
    gallery.remove(old)
    assert {f"{each.subject} {each.name}" for each in gallery.sync().changes} == {"tag removed", "alias candidate"}
    assert gallery.version(old).tags["removed"].endswith("by gc (event 7): old")
    assert gallery.version(old).tags["data_digest"] == "d"  # a fact that stays
    assert gallery.aliases == {"champion": serving}
    assert gallery.sync().changes == []
    never_shown = gallery.candidate("c", "rejected")
    gallery.remove(never_shown)
    assert never_shown not in gallery.sync().versions


def test_evidence_that_is_gone_or_damaged_keeps_no_other_candidate_away(gallery: Gallery) -> None:
    models = [gallery.candidate(name, "rejected", outcome="refused") for name in ("gone", "damaged", "whole")]
    evaluated = [event for event in gallery.models.history() if event.kind == "evaluated"]
    digests = {event.model_id: event.digests["evaluation"] for event in evaluated}
    shutil.rmtree(gallery.models.evidence(digests[models[0]]))
    (Path(gallery.models.evidence(digests[models[1]])) / "report.json").write_text("{")
    synced = gallery.sync()
    assert set(synced.versions) == {models[0], models[2]}
    (problem,) = synced.problems
    assert problem.startswith(f"model {models[1]}")
    assert gallery.client.get_run(_run_of(gallery, models[0])).data.metrics == {}


def test_a_dry_run_creates_no_tables(gallery: Gallery) -> None:
    (gallery.workspace / "mlflow.db").unlink()
    gallery.candidate("a", "promoted")
    changes = gallery.sync(dry_run=True).changes
    assert {f"{each.subject} {each.name}" for each in changes} == {"version ", "alias champion"}
    assert not (gallery.workspace / "mlflow.db").exists()
    assert not (gallery.workspace / "mlruns").exists()


# -- killed, locked, away ------------------------------------------------------------------------------------------

WRITES = (
    "create_registered_model", "create_experiment", "create_run", "log_batch", "log_inputs", "log_artifact",
    "set_terminated", "create_model_version", "set_registered_model_alias",
)  # fmt: skip


def _sync_and_die(gallery: Gallery, calls: int) -> None:
    """Sync in this process, which ends without another line once it has called so many of MLflow's writes."""
    left = calls

    def count(frame: Any, kind: str, _: Any) -> None:
        nonlocal left
        if kind == "return" and frame.f_code.co_name in WRITES and "tracking/client.py" in frame.f_code.co_filename:
            left -= 1
            if not left:
                os._exit(7)

    sys.setprofile(count)
    gallery.sync()


@pytest.mark.integration
def test_a_sync_that_was_killed_anywhere_is_continued(gallery: Gallery) -> None:
    model_id = gallery.candidate("a", "promoted")
    database, kills = gallery.workspace / "mlflow.db", 0
    untouched = database.read_bytes()
    for calls in range(1, 12):
        database.write_bytes(untouched)
        for path in gallery.workspace.glob("mlflow.db-*"):
            path.unlink()
        process = multiprocessing.get_context("fork").Process(target=_sync_and_die, args=(gallery, calls))
        process.start()
        process.join(60)
        kills += process.exitcode == 7
        synced = gallery.sync()
        assert synced.versions == {model_id: 1}, calls
        run = gallery.client.get_run(gallery.version(model_id).run_id)
        assert (run.info.status, run.data.metrics["latency/p95_ms"]) == ("FINISHED", 12.0), calls
        assert len(gallery.client.search_runs([run.info.experiment_id])) == 1, calls
        assert len(gallery.client.get_metric_history(run.info.run_id, "ndcg_at_10")) == 1, calls
        assert gallery.aliases == {"champion": model_id}
        assert gallery.sync().changes == [], calls
    assert kills >= 8


@pytest.mark.integration
@pytest.mark.parametrize("fault", ["refused", "slow", "locked", "read-only", "not a database"])
def test_an_mlflow_that_cannot_be_written_is_one_sentence_in_bounded_time(
    gallery: Gallery, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    model_id, database = gallery.candidate("a", "promoted"), gallery.workspace / "mlflow.db"
    lock = sqlite3.connect(database)
    uri = {"refused": f"http://127.0.0.1:{refused_port()}", "read-only": f"sqlite:///file:{database}?mode=ro&uri=true"}
    if fault == "locked":
        lock.execute("BEGIN EXCLUSIVE")
    if fault == "not a database":
        database.write_bytes(b"not a database at all" * 100)
    with web_server([200], delay_s=60) as (slow, _):
        address = slow.rpartition("/hook")[0] if fault == "slow" else uri.get(fault, "")
        config = TrackingConfig(tracking_uri=address, mirror_timeout_s=5.0)
        started = time.monotonic()
        result = follow(gallery.models, [model_id], config=config, workspace=gallery.workspace)
        assert time.monotonic() - started < 30
    assert "`rankline sync` mends it later" in result["error"]
    assert "\n" not in result["error"]
    lock.close()
    if fault == "locked":  # it is continued where it was, also by the same process
        assert "error" not in follow(gallery.models, [model_id], config=TrackingConfig(), workspace=gallery.workspace)
        assert gallery.aliases == {"champion": model_id}

"""The promotion as MLflow shows it, for people who live in its pages; the events are the truth."""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from components.promote.config import PromoteConfig
from rankline.evaluation.report import CANDIDATE, Report, read_report
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import PROMOTING, Event
from rankline.runtime import ledger

ALIAS = "champion"
BATCH = 1000  # metrics that MLflow takes in one call

# MLflow reads these when it is imported. A server that is away is given up on in seconds, not minutes.
for name, value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}.items():
    os.environ.setdefault(name, value)


def mirror(
    event: Event,
    report: Report,
    *,
    source: str,
    pages: list[Path],
    curves: dict[str, list[dict[str, float]]],
    config: PromoteConfig,
    workspace: Path,
) -> dict[str, Any]:
    """Write a run with the scores and a model version, and move the alias to it; twice is once.

    ``source`` is where the bundle lies, ``pages`` are shown with the run, ``curves`` are what training logged
    (name -> one point an epoch). Anything may go wrong in here, and the caller is to say so and go on.
    """
    from filelock import FileLock

    for logger_name in ("mlflow", "alembic"):
        logging.getLogger(logger_name).setLevel(logging.WARNING)
    from mlflow import MlflowClient

    started = time.monotonic()
    workspace = workspace.resolve()
    uri = config.tracking_uri or f"sqlite:///{workspace / 'mlflow.db'}"
    # two processes that open a fresh SQLite database at once die in its migration
    with FileLock(workspace / ".mlflow.lock", timeout=config.lock_timeout_s):
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        version = _find_version(client, event.model_id, config.registered_model)
        if version is None:
            run = _log_run(client, event, report, pages, curves, config, workspace)
            # a server takes no path of this machine for a version's source: there the run stands for the bundle
            local = source.startswith(("file:", "/"))
            version = client.create_model_version(
                config.registered_model,
                client.get_run(run).info.artifact_uri if local and _is_server(config) else source,
                run_id=run,
                tags={"model_id": event.model_id, "recipe": report.recipe, "bundle": source},
                description=event.why,
            )
        client.set_registered_model_alias(config.registered_model, ALIAS, version.version)
    return {"uri": uri, "version": int(version.version), "seconds": round(time.monotonic() - started, 2)}


def _is_server(config: PromoteConfig) -> bool:
    """Whether MLflow is a server, and no database that is written here."""
    return config.tracking_uri.startswith(("http://", "https://"))


def mirror_all(models: ModelRegistry, *, config: PromoteConfig, workspace: Path) -> list[dict[str, Any]]:
    """Mirror every promotion of a repository that MLflow lacks, oldest first; the alias ends at the champion.

    What training logged is shown where the run's ledger still lies in the workspace. Raises whatever MLflow does.
    """
    results = []
    promotions = [event for event in models.history() if event.kind in PROMOTING]
    evidence = {event.model_id: event.digests for event in promotions if "evaluation" in event.digests}
    with tempfile.TemporaryDirectory(prefix="rankline-") as scratch:
        for event in promotions:
            folders = {}
            for name in ("evaluation", "verdict"):
                evidence_digest = evidence[event.model_id][name]  # a rollback stands on what its model was promoted on
                folders[name] = Path(scratch) / evidence_digest
                models.fs.get(models.evidence(evidence_digest) + "/", f"{folders[name]}/", recursive=True)
            ledger_folder = workspace / "runs" / event.run_id if event.run_id else None
            mirrored = mirror(
                event,
                read_report(folders["evaluation"]),
                source=models.fs.unstrip_protocol(f"{models.root}/bundles/{event.model_id}"),
                pages=[folders["verdict"] / "verdict.md", folders["evaluation"] / "report.html"],
                curves=training_curves(ledger_folder) if ledger_folder and ledger_folder.is_dir() else {},
                config=config,
                workspace=workspace,
            )
            results.append({"event": event.n, "model_id": event.model_id, "version": mirrored["version"]})
    return results


def training_curves(folder: Path) -> dict[str, list[dict[str, float]]]:
    """What the training steps of a run logged: step (and part) -> one point an epoch."""
    curves: dict[str, list[dict[str, float]]] = {}
    for step, entry in ledger.read_entries(folder).items():
        for path in entry.paths.values():
            if (Path(path) / "curve.json").is_file():
                curve_data = json.loads((Path(path) / "curve.json").read_text())
                parts = curve_data.items() if isinstance(curve_data, dict) else [("", curve_data)]
                curves |= {f"{step}/{part}".rstrip("/"): curve for part, curve in parts}
    return curves


def _find_version(client: Any, model_id: str, name: str) -> Any:
    """The version of a model that was mirrored before, if it was; the registered model exists afterwards."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions = client.search_model_versions(f"name = '{name}' and tags.model_id = '{model_id}'")
    return versions[0] if versions else None


def _log_run(
    client: Any,
    event: Event,
    report: Report,
    pages: list[Path],
    curves: dict[str, list[dict[str, float]]],
    config: PromoteConfig,
    workspace: Path,
) -> str:
    """A finished MLflow run with the candidate's metrics and what it was made by."""
    from mlflow.entities import Metric, Param

    experiment = client.get_experiment_by_name(config.experiment)
    if experiment is not None:
        experiment_id = experiment.experiment_id
    else:  # a server knows where its artifacts belong; our own database has to be told
        artifact_location = config.artifact_location or (
            None if _is_server(config) else (workspace / "mlruns").as_uri()
        )
        experiment_id = client.create_experiment(config.experiment, artifact_location=artifact_location)
    # one that a mirror which failed half-way began is finished, rather than begun again
    existing_runs = client.search_runs([experiment_id], f"tags.model_id = '{event.model_id}'", max_results=1)
    tags = {"model_id": event.model_id, "rankline_run": event.run_id}
    run_id: str = (
        existing_runs[0].info.run_id
        if existing_runs
        else client.create_run(experiment_id, tags=tags, run_name=event.run_id or event.model_id).info.run_id
    )
    now = int(time.time() * 1000)
    client.log_batch(
        run_id,
        metrics=[Metric(name, value, now, 0) for name, value in _metrics(report).items()],
        params=[
            Param("recipe", report.recipe),
            Param("requests", str(report.requests)),
            Param("champion_before", event.champion_before or "none"),
        ],
    )
    points = [
        Metric(f"{name}/{key}".replace("@", "_at_"), value, now, int(point["epoch"]))
        for name, curve in curves.items()
        for point in curve
        for key, value in point.items()
        if key != "epoch" and math.isfinite(value)
    ]
    for start in range(0, len(points), BATCH):
        client.log_batch(run_id, metrics=points[start : start + BATCH])
    for page in pages:
        if page.is_file():
            client.log_artifact(run_id, str(page))
    client.set_terminated(run_id)
    return run_id


def _metrics(report: Report) -> dict[str, float]:
    """Every number of the report under a name that MLflow allows: ndcg@10 is ndcg_at_10 there."""
    numbers: dict[str, float | None] = {}
    for system, scored in report.systems.items():
        prefix = "" if system == CANDIDATE else f"{system}/"
        for metric, estimate in scored.metrics.items():
            numbers[prefix + metric] = estimate.mean
    for group in ("latency", "parity", "model"):
        numbers |= {f"{group}/{name}": value for name, value in getattr(report, group).model_dump().items()}
    return {
        name.replace("@", "_at_"): float(value)
        for name, value in numbers.items()
        if value is not None and math.isfinite(value)
    }

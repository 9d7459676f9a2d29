"""Promotions mirrored to MLflow; the registry's events are the source of truth."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.promote.config import PromoteConfig
from rankline.evaluation.report import CANDIDATE, Report, read_report
from rankline.io.files import locked
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import PROMOTING, Event
from rankline.runtime import ledger
from rankline.runtime.bucket_workspace import BucketWorkspace

ALIAS = "champion"
BATCH = 1000  # most metrics that MLflow takes in one call

# MLflow reads these at import. It gives up on a server that does not answer within seconds.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
for name, value in ENVIRONMENT.items():
    os.environ.setdefault(name, value)

Curves = Mapping[str, Sequence[Mapping[str, float]]]  # step (and part) -> one point per epoch


@dataclass(frozen=True)
class Promotion:
    """A promotion as MLflow shows it: ``source`` is the bundle's URL, ``pages`` become artifacts of the run."""

    event: Event
    report: Report
    source: str
    pages: Sequence[Path]
    curves: Curves


def mirror(
    promotion: Promotion, *, config: PromoteConfig, workspace: Path, bucket: BucketWorkspace | None = None
) -> dict[str, Any]:
    """Write an MLflow run and a model version, and move the alias to it; doing it twice changes nothing.

    With a ``bucket`` its lock keeps two machines apart. MLflow itself would need boto3 to write pages into it: a
    database without `artifact_location` gets none. Raises whatever MLflow and its database raise; the caller reports it
    and goes on.
    """
    for logger_name in ("mlflow", "alembic"):
        logging.getLogger(logger_name).setLevel(logging.WARNING)
    from mlflow import MlflowClient

    started = time.monotonic()
    workspace = workspace.resolve()
    uri = config.tracking_uri or f"sqlite:///{workspace / 'mlflow.db'}"
    # two processes that open a new SQLite database at once fail in its migration
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(workspace / ".mlflow.lock", timeout_s=config.lock_timeout_s))
        if bucket:
            owner = {"who": "promotion", "run": promotion.event.run_id}
            stack.enter_context(bucket.lock("mlflow").held(timeout_s=config.lock_timeout_s, owner=owner))
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        version = _find_version(client, promotion.event.model_id, config.registered_model)
        if version is None:
            if bucket and not (_is_server(config) or config.artifact_location):
                promotion = dataclasses.replace(promotion, pages=[])
            files_url = f"{bucket.url}/mlruns" if bucket else (workspace / "mlruns").as_uri()
            run_id = _log_run(client, promotion, config, files_url)
            version = _create_version(client, promotion, run_id, config)
        client.set_registered_model_alias(config.registered_model, ALIAS, version.version)
    return {"uri": uri, "version": int(version.version), "seconds": round(time.monotonic() - started, 2)}


def _create_version(client: Any, promotion: Promotion, run_id: str, config: PromoteConfig) -> Any:
    event, source = promotion.event, promotion.source
    # a server refuses a local path as a version's source: there the run's artifacts stand in for the bundle
    is_local = source.startswith(("file:", "/"))
    return client.create_model_version(
        config.registered_model,
        client.get_run(run_id).info.artifact_uri if is_local and _is_server(config) else source,
        run_id=run_id,
        tags={"model_id": event.model_id, "recipe": promotion.report.recipe, "bundle": source},
        description=event.why,
    )


def _is_server(config: PromoteConfig) -> bool:
    """Whether MLflow is a server, rather than a database that this process writes."""
    return config.tracking_uri.startswith(("http://", "https://"))


def mirror_all(
    models: ModelRegistry, *, config: PromoteConfig, workspace: Path, bucket: BucketWorkspace | None = None
) -> list[dict[str, Any]]:
    """Mirror every promotion that MLflow does not have, oldest first; the alias ends at the champion.

    Training curves are included while the run's ledger is in the workspace. Raises whatever MLflow raises.
    """
    results = []
    promotions = [event for event in models.history() if event.kind in PROMOTING]
    evidence = {event.model_id: event.digests for event in promotions if "evaluation" in event.digests}
    with tempfile.TemporaryDirectory(prefix="rankline-") as scratch:
        for event in promotions:
            folders = {}
            for name in ("evaluation", "verdict"):
                evidence_digest = evidence[event.model_id][name]  # a rollback has the evidence of its model's promotion
                folders[name] = Path(scratch) / evidence_digest
                models.fs.get(models.evidence(evidence_digest) + "/", f"{folders[name]}/", recursive=True)
            ledger_folder = workspace / "runs" / event.run_id if event.run_id else None
            promotion = Promotion(
                event,
                read_report(folders["evaluation"]),
                source=models.fs.unstrip_protocol(f"{models.root}/bundles/{event.model_id}"),
                pages=[folders["verdict"] / "verdict.md", folders["evaluation"] / "report.html"],
                curves=training_curves(ledger_folder) if ledger_folder and ledger_folder.is_dir() else {},
            )
            mirrored = mirror(promotion, config=config, workspace=workspace, bucket=bucket)
            results.append({"event": event.n, "model_id": event.model_id, "version": mirrored["version"]})
    return results


def training_curves(folder: Path) -> Curves:
    """The training curves of a run's steps."""
    curves: dict[str, list[dict[str, float]]] = {}
    for step, entry in ledger.read_entries(folder).items():
        for path in entry.paths.values():
            if (Path(path) / "curve.json").is_file():
                curve_data = json.loads((Path(path) / "curve.json").read_text())
                parts = curve_data.items() if isinstance(curve_data, dict) else [("", curve_data)]
                curves |= {f"{step}/{part}".rstrip("/"): curve for part, curve in parts}
    return curves


def _find_version(client: Any, model_id: str, name: str) -> Any:
    """The version of a model that was mirrored before, or None; creates the registered model if needed."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions = client.search_model_versions(f"name = '{name}' and tags.model_id = '{model_id}'")
    return versions[0] if versions else None


def _log_run(client: Any, promotion: Promotion, config: PromoteConfig, files_url: str) -> str:
    """Write the candidate's metrics, recipe, curves and pages to a finished MLflow run; returns its id."""
    from mlflow.entities import Metric, Param

    event, report = promotion.event, promotion.report
    run_id = _run_id(client, event, config, files_url)
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
        for name, curve in promotion.curves.items()
        for point in curve
        for key, value in point.items()
        if key != "epoch" and math.isfinite(value)
    ]
    for start in range(0, len(points), BATCH):
        client.log_batch(run_id, metrics=points[start : start + BATCH])
    for page in promotion.pages:
        if page.is_file():
            client.log_artifact(run_id, str(page))
    client.set_terminated(run_id)
    return run_id


def _run_id(client: Any, event: Event, config: PromoteConfig, files_url: str) -> str:
    """The MLflow run of a promotion: one that an interrupted mirror left unfinished, or a new one."""
    experiment = client.get_experiment_by_name(config.experiment)
    if experiment is not None:
        experiment_id = experiment.experiment_id
    else:  # a server has a default for its artifacts, a database in the workspace has none
        location = config.artifact_location or (None if _is_server(config) else files_url)
        experiment_id = client.create_experiment(config.experiment, artifact_location=location)
    runs = client.search_runs([experiment_id], f"tags.model_id = '{event.model_id}'", max_results=1)
    if not runs:
        tags = {"model_id": event.model_id, "rankline_run": event.run_id}
        runs = [client.create_run(experiment_id, tags=tags, run_name=event.run_id or event.model_id)]
    run_id: str = runs[0].info.run_id
    return run_id


def _metrics(report: Report) -> dict[str, float]:
    """Every number of the report under a name that MLflow allows: ndcg@10 becomes ndcg_at_10."""
    numbers: dict[str, float | None] = {}
    for system, scored in report.systems.items():
        prefix = "" if system == CANDIDATE else f"{system}/"
        for metric, estimate in scored.metrics.items():
            numbers[prefix + metric] = estimate.mean
    for group in ("latency", "parity", "model"):
        values = getattr(report, group).model_dump().items()
        numbers |= {f"{group}/{name}": value for name, value in values if not isinstance(value, str)}
    return {
        name.replace("@", "_at_"): float(value)
        for name, value in numbers.items()
        if value is not None and math.isfinite(value)
    }

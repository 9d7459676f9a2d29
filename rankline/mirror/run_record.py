"""The MLflow run of a candidate: metrics, parameters, tags, the data it learnt from, training curves, pages."""

from __future__ import annotations

import json
import math
import posixpath
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankline.contracts import Manifest
from rankline.errors import RanklineError
from rankline.evaluation.report import CANDIDATE, REPORT, Report, read_report
from rankline.evidence.run_facts import Curve, leaves, training_curves
from rankline.io.files import read_json_object
from rankline.mirror.candidates import CandidateRecord
from rankline.registry.model_registry import ModelRegistry
from rankline.runtime import ledger
from rankline.utc import parse_utc

FORMAT = "2"  # the tag of a version whose run is complete; runs of another format are written again
FORMAT_TAG = "rankline_format"
PAGES = {
    "evaluation": ("report.html", REPORT),
    "verdict": ("evidence.html", "MODEL_CARD.md", "verdict.md", "verdict.json"),
}
# sections of the recipe whose settings decide what is learnt; the others name places
_SECTIONS = ("validate", "featurize", "finetune", "distill", "export", "evaluate", "decide")
_METRIC_BATCH, _PARAM_BATCH, _LONGEST_PARAM = 1000, 100, 6000


@dataclass(frozen=True)
class Source:
    """Where a candidate's files are."""

    models: ModelRegistry
    runs: Path  # the folder of the workspace's runs

    def bundle_url(self, model_id: str) -> str:
        """The URL of a model's bundle."""
        return str(self.models.fs.unstrip_protocol(f"{self.models.root}/bundles/{model_id}"))

    def manifest(self, model_id: str) -> Manifest | None:
        """The manifest of a model; None where it is gone."""
        try:
            return self.models.manifest(model_id)
        except (RanklineError, OSError):
            return None

    def run_folder(self, record: CandidateRecord) -> Path:
        """The folder of the run that made a candidate; it need not exist any more."""
        return self.runs / (record.evaluated.run_id or record.first.run_id or "-")

    def fetch_pages(self, record: CandidateRecord, folder: Path) -> list[Path]:
        """Copy a candidate's evidence here, as far as it is still in the registry."""
        fetched = []
        for name, evidence_digest in record.digests.items():
            for page in PAGES[name]:
                remote = f"{self.models.evidence(evidence_digest)}/{page}"
                if self.models.fs.exists(remote):
                    (folder / page).write_bytes(self.models.fs.cat_file(remote))
                    fetched.append(folder / page)
        return fetched


def tags_of(record: CandidateRecord, source: Source) -> dict[str, str]:
    """The tags of a candidate's run and version; those without a value are left out."""
    manifest = source.manifest(record.model_id)
    removed = record.removed
    values = {
        "model_id": record.model_id,
        "recipe": manifest.recipe if manifest else "",
        "outcome": record.outcome,
        "evaluation": record.digests.get("evaluation", ""),
        "verdict": record.digests.get("verdict", ""),
        "rankline_run": record.evaluated.run_id,
        "event": str(record.newest.n),
        "decided_by": record.newest.who,
        "champion_before": record.newest.champion_before,
        "bundle": source.bundle_url(record.model_id),
        "break_glass": record.break_glass,
        "began_from": record.began_from,
        "manifest": record.manifest,
        "catalogue": record.catalogue,
        "data_digest": manifest.data_digest if manifest else "",
        "code_digest": manifest.code_digest if manifest else "",
        "removed": f"at {removed.at} by {removed.who} (event {removed.n}): {removed.why}" if removed else "",
    }
    return {name: value[:4000] for name, value in values.items() if value}


def write_run(
    client: Any, run_id: str, record: CandidateRecord, source: Source, *, tags: Mapping[str, str], pages: bool
) -> None:
    """Write everything into a run and end it; doing it twice changes nothing."""
    from mlflow.entities import RunTag

    # the time of the evaluation, not of now: MLflow keeps a metric of the same time and value once
    at_ms = int(parse_utc(record.evaluated.at).timestamp() * 1000)
    with tempfile.TemporaryDirectory(prefix="rankline-") as scratch:
        files = source.fetch_pages(record, Path(scratch))
        report = read_report(Path(scratch)) if (Path(scratch) / REPORT).is_file() else None
        folder = source.run_folder(record)
        curves = dict(training_curves(ledger.read_entries(folder)))
        _log_metrics(client, run_id, {} if report is None else report_metrics(report), curves, at_ms)
        _log_params(client, run_id, {"recipe": tags.get("recipe", ""), **recipe_settings(folder)})
        _log_data(client, run_id, source.manifest(record.model_id))
        for file in files if pages else ():
            client.log_artifact(run_id, str(file))
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
    client.set_terminated(run_id)


def _log_metrics(
    client: Any, run_id: str, numbers: Mapping[str, float], curves: Mapping[str, Curve], at_ms: int
) -> None:
    from mlflow.entities import Metric

    metrics = [Metric(name, value, at_ms, 0) for name, value in numbers.items()]
    metrics += [
        Metric(_metric_name(f"{name}/{key}"), value, at_ms, int(point["epoch"]))
        for name, curve in curves.items()
        for point in curve
        for key, value in point.items()
        if key != "epoch" and math.isfinite(value)
    ]
    for start in range(0, len(metrics), _METRIC_BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + _METRIC_BATCH])


def _log_params(client: Any, run_id: str, values: Mapping[str, str]) -> None:
    """Log the parameters that the run does not have: MLflow changes none."""
    from mlflow.entities import Param

    present = client.get_run(run_id).data.params
    params = [Param(name, value[:_LONGEST_PARAM]) for name, value in values.items() if value and name not in present]
    for start in range(0, len(params), _PARAM_BATCH):
        client.log_batch(run_id, params=params[start : start + _PARAM_BATCH])


def recipe_settings(folder: Path) -> dict[str, str]:
    """The settings of a run that decide what is learnt, by dotted name; none where its folder is gone."""
    recipe = read_json_object(folder / "recipe.json")
    settings = leaves({section: recipe.get(section) for section in _SECTIONS})
    return {
        _metric_name(name): value if isinstance(value, str) else json.dumps(value)
        for name, value in settings
        if value not in (None, "", [], {})
    }


def _log_data(client: Any, run_id: str, manifest: Manifest | None) -> None:
    """Log the data that a model learnt from as a dataset of the run."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if manifest is None or not manifest.data_digest:
        return
    name, window = manifest.catalogue or manifest.recipe, json.dumps({"train_end": manifest.train_end})
    dataset = Dataset(name=name, digest=manifest.data_digest[:36], source_type="rankline", source=window)
    client.log_inputs(run_id, datasets=[DatasetInput(dataset, tags=[InputTag("mlflow.data.context", "training")])])


def report_metrics(report: Report) -> dict[str, float]:
    """Every number of the report under a name that MLflow allows: ndcg@10 becomes ndcg_at_10."""
    numbers: dict[str, float | None] = {"requests": report.requests}
    for system, scored in report.systems.items():
        prefix = "" if system == CANDIDATE else f"{system}/"
        for metric, estimate in scored.metrics.items():
            numbers[prefix + metric] = estimate.mean
        numbers |= {prefix + name: value for name, value in scored.lists.items()}
    for group in ("latency", "parity", "model"):
        values = getattr(report, group).model_dump().items()
        numbers |= {f"{group}/{name}": value for name, value in values if isinstance(value, int | float)}
    numbers |= {f"calibration/{name}": value for name, value in report.calibration.items()}
    for head, scores in report.heads.items():
        numbers |= {f"heads/{head}/{name}": value for name, value in scores.metrics.items()}
    for name, scores_of in report.slices.items():
        own = scores_of.systems.get(CANDIDATE, {})
        numbers |= {f"slices/{name.replace('/', '_')}/{metric}": value for metric, value in own.items()}
    return {
        _metric_name(name): float(value)
        for name, value in numbers.items()
        if value is not None and math.isfinite(value)
    }


def _metric_name(name: str) -> str:
    """A name that MLflow allows: letters, digits, _ - . space : /."""
    name = "".join(sign if sign.isalnum() or sign in "_-. :/" else "_" for sign in name.replace("@", "_at_"))[:250]
    return name if posixpath.normpath(name) == name else name.replace("/", "_").strip(". ")

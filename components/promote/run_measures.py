"""What is measured when the verdict is given: of the data, of its age, of the run's cost.

The numbers are those of the run and of the time, and no evaluation has them. Where a gate reads them, they are stored
beside the verdict, so that it can be computed again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rankline.contracts import Manifest
from rankline.evaluation.decision import PromotionPolicy
from rankline.evaluation.report import RUN_MEASURES, RunMeasures
from rankline.io.files import read_json_object, write_json
from rankline.registry.model_registry import ModelRegistry, evidence_name
from rankline.registry.registry_state import Event
from rankline.runtime import ledger
from rankline.runtime.run_summary import Prices, step_cost
from rankline.utc import parse_utc

VALIDATION = "measures.json"  # in what validate reports


def run_measures(
    manifest: Manifest, *, checks: Path | None, ledger_folder: Path | None, prices: Prices | None
) -> RunMeasures:
    """The numbers of validate's report in ``checks``, the ages as of now, and the cost by the ledger.

    Without ``checks`` there are none of the data, without a ledger none of the cost.
    """
    validation: dict[str, Any] = read_json_object(checks / VALIDATION) if checks else {}
    ages = {
        "events_hours": validation.get("newest_event") or manifest.data_end,
        "features_hours": manifest.data_end,
        "training_hours": manifest.train_end,
    }
    return RunMeasures(
        data=validation.get("data", {}),
        freshness={name: _hours_since(time) for name, time in ages.items()},
        cost=_cost(ledger_folder, prices or Prices()) if ledger_folder else {},
    )


def stored_run_measures(
    models: ModelRegistry, history: list[Event], model_id: str, evaluation: Path, *, run_id: str
) -> RunMeasures | None:
    """The numbers by which an earlier attempt of this run judged this evaluation; None where none are stored.

    Time passes between attempts: with numbers of its own each would come to another verdict.
    """
    name = evidence_name(evaluation)
    for event in reversed(history):
        is_own = (event.run_id, event.model_id, event.digests.get("evaluation")) == (run_id, model_id, name)
        if run_id and is_own and (verdict := event.digests.get("verdict")):
            content = models.read_evidence(verdict, RUN_MEASURES)
            return RunMeasures.model_validate_json(content) if content is not None else None
    return None


def save_run_measures(verdict: Path, measured: RunMeasures, policy: PromotionPolicy) -> None:
    """Store the numbers beside the verdict if a gate of the policy reads any of them.

    They differ from run to run: without need, they would make two equal verdicts two.
    """
    names = [*(gate.metric for gate in policy.gates), *policy.floors, *policy.ceilings]
    if any(name.startswith(tuple(f"{part}." for part in RunMeasures.model_fields)) for name in names):
        write_json(verdict / RUN_MEASURES, measured.model_dump())


def _hours_since(iso_time: str) -> float | None:
    try:
        return (datetime.now(UTC) - parse_utc(iso_time)).total_seconds() / 3600
    except ValueError:
        return None


def _cost(ledger_folder: Path, prices: Prices) -> dict[str, float | None]:
    """Of the steps before this one; a step that is reused costs what restoring it takes."""
    entries = [entry for entry in ledger.read_entries(ledger_folder).values() if entry.status in ("done", "reused")]
    return {
        "core_s": sum(entry.core_s for entry in entries),
        "work_s": sum(entry.work_s for entry in entries),
        "peak_memory_bytes": float(max((entry.peak_memory_bytes for entry in entries), default=0)),
        "total": sum(step_cost(entry, prices) for entry in entries),
    }

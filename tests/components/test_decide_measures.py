"""Gates on what is measured when the verdict is given, through the real step `decide` and a real registry."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from components.promote.config import DecideConfig
from components.promote.saved_verdict import restore_verdict, save_verdict
from components.promote.step import decide
from components.validate.config import ValidateConfig
from components.validate.step import validate
from rankline.errors import UsageError
from rankline.evaluation.decision import Verdict
from rankline.evaluation.recheck import recheck
from rankline.evaluation.report import RUN_MEASURES
from rankline.runtime import ledger
from rankline.runtime.run_summary import Prices
from tests.components import events as data
from tests.components.test_decide_nights import Nights
from tests.rankline.registry.test_model_registry import tiny_bundle

NOW = datetime.now(UTC)
PRICES = Prices(core_hour=3.6, gpu_hour=36.0, gpus={"finetune": 1})


@pytest.fixture(scope="module")
def checks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What validate reports of data with twice the events of the last good run, all prices ten times as high."""
    root = tmp_path_factory.mktemp("validated")
    config = ValidateConfig(now="2030-01-01", max_volume_change=5, max_drift=1)
    rows = data.rows()
    before = {**rows, "events": rows["events"][: len(rows["events"]) // 2]}
    before["items"] = [{**row, "price": 0.1 * (row["price"] or 1.0)} for row in rows["items"]]
    validate(data.write(root / "earlier", before), root / "clean0", root / "report0", config=config)
    now = data.write(root / "raw", {**rows, "items": [{**row, "price": row["price"] or 1.0} for row in rows["items"]]})
    validate(now, root / "clean", root / "report", config=config, previous=root / "clean0" / "profile.json")
    return root / "report"


class Run:
    """A candidate of a run with a ledger."""

    def __init__(self, root: Path, checks: Path) -> None:
        self.root, self.checks, self.nights = root, checks, Nights(root)
        since = (NOW - timedelta(hours=30)).isoformat()
        self.bundle = tiny_bundle(root / "bundle", data_end=since, train_end=(NOW - timedelta(hours=54)).isoformat())
        self.evaluation = self.nights.evaluation(self.bundle, 1.0, champion=1.0, anchor=1.0)
        self.ledger = root / "runs" / "r1"
        self.ledger.mkdir(parents=True)
        for step, core_s, work_s in (("ingest", 600.0, 300.0), ("finetune", 3000.0, 1000.0)):
            entry = ledger.Entry(
                step=step, status="done", started=0.0, core_s=core_s, work_s=work_s, peak_memory_bytes=2**30
            )
            ledger.write_entry(self.ledger, entry)

    def decide(self, gates: list[dict[str, Any]], **changes: Any) -> Verdict:
        arguments: dict[str, Any] = {"checks": self.checks, "ledger_folder": self.ledger, "prices": PRICES} | changes
        decide(
            bundle=self.bundle.folder, evaluation=self.evaluation, verdict=self.root / "verdict", run_id="r1",
            config=DecideConfig(gates=gates), repository=self.nights.registry.root, **arguments,
        )  # fmt: skip
        return Verdict.model_validate_json((self.root / "verdict" / "verdict.json").read_text())


@pytest.fixture
def run(tmp_path: Path, checks: Path) -> Run:
    return Run(tmp_path, checks)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("metric", "below", "above"),
    [
        ("data.events_rows_change", 0.9, 1.1),
        ("data.price_drift", 0.5, 1.0),
        ("data.items_rejected_share", -0.1, 0.1),
        ("freshness.events_hours", 29.0, 1e7),
        ("freshness.features_hours", 29.9, 31.0),
        ("freshness.training_hours", 53.9, 55.0),
        ("cost.core_s", 3599.0, 3601.0),
        ("cost.total", 13.5, 13.7),  # an hour of a core and 1000 s of a GPU
        ("cost.peak_memory_bytes", 1e9, 1.1e9),
    ],
)
def test_a_gate_on_it_passes_and_fails(run: Run, metric: str, below: float, above: float) -> None:
    decided = run.decide([{"kind": "ceiling", "metric": metric, "at_most": above}])
    assert decided.outcome == "promote"
    decided = run.decide([{"kind": "ceiling", "metric": metric, "at_most": below}])
    assert (decided.outcome, [check.name for check in decided.failures]) == ("refused", [f"ceiling {metric}"])


def test_a_verdict_with_such_gates_is_computed_again_from_what_was_stored(run: Run) -> None:
    run.decide([{"kind": "ceiling", "metric": "freshness.events_hours", "at_most": 1e7}])
    stored = run.root / "verdict" / "verdict.json"
    assert recheck(stored, run.evaluation, run.nights.registry).differences == []
    path = run.root / "verdict" / RUN_MEASURES
    measured = json.loads(path.read_text())
    measured["freshness"]["events_hours"] = 1e8
    path.write_text(json.dumps(measured))
    assert recheck(stored, run.evaluation, run.nights.registry).recomputed == "refused"


def test_a_verdict_whose_gates_do_not_read_them_is_the_same_whenever_it_is_given(run: Run) -> None:
    run.decide([])
    events = len(run.nights.registry.history())
    assert not (run.root / "verdict" / RUN_MEASURES).exists()
    run.decide([])
    assert len(run.nights.registry.history()) == events


def test_a_pod_that_starts_again_has_what_the_verdict_was_computed_from(run: Run) -> None:
    run.decide([{"kind": "ceiling", "metric": "cost.core_s", "at_most": 1e7}])
    verdict = run.root / "verdict"
    save_verdict(run.ledger, verdict)
    result = {"outcome": "promote"}
    ledger.write_entry(run.ledger, ledger.Entry(step="decide", status="done", started=0.0, result=result))
    before = (verdict / RUN_MEASURES).read_bytes()
    assert restore_verdict(run.ledger, verdict)
    assert (verdict / RUN_MEASURES).read_bytes() == before


def test_without_a_validation_or_a_ledger_such_a_gate_is_refused_and_never_passed(run: Run) -> None:
    for metric, changes in (("data.events_rows", {"checks": None}), ("cost.core_s", {"ledger_folder": None})):
        with pytest.raises(UsageError, match=f"no number '{metric}'"):
            run.decide([{"kind": "floor", "metric": metric, "at_least": 0}], **changes)


def test_without_an_earlier_run_changes_are_not_measured_and_never_passed(run: Run, tmp_path: Path) -> None:
    validate(
        data.write(tmp_path / "raw", data.rows()), tmp_path / "clean", tmp_path / "report",
        config=ValidateConfig(now="2030-01-01"),
    )  # fmt: skip
    gate = {"kind": "ceiling", "metric": "data.events_rows_change", "at_most": 100}
    decided = run.decide([gate], checks=tmp_path / "report")
    assert [check.name for check in decided.failures] == ["ceiling data.events_rows_change"]

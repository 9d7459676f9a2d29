"""How long the pages of the console take over a registry with 1,000 candidates and 10,000 events."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from rankline.contracts import FeatureNames, Manifest
from rankline.evaluation.decision import PromotionPolicy, Verdict
from rankline.evaluation.report import CANDIDATE, CHAMPION, Estimate, Report, SystemScores, write_report
from rankline.gates.check import Check
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import Event, Kind

_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_OUTCOMES: tuple[Kind, ...] = ("pending", "rejected", "promoted")
_METRICS = tuple(f"{name}@{k}" for name in ("ndcg", "hr", "mrr", "recall", "map") for k in (5, 10, 20, 50))

_NO_FEATURES = FeatureNames(service="ranking_v1", user=[], item=[], cross=[], context=[], sources=[])
_MANIFEST = Manifest(
    recipe="movielens", heads=["rank"], features=_NO_FEATURES, text=None, vector_size=64, max_history=50,
    covisit_decay=0.8, candidates_per_source=100, precisions={}, parity=[], data_digest="0" * 64, code_digest="0" * 64,
    train_end=_BEGIN.isoformat(),
)  # fmt: skip


class History:
    """Writes events as they are stored, without bundles: no page reads a bundle but the one of its lineage."""

    def __init__(self, models: ModelRegistry) -> None:
        self._folder = Path(models.root) / "events"
        self._folder.mkdir(parents=True)
        self.count, self.champion = 0, ""

    def add(self, kind: Kind, model: str, *, digests: dict[str, str] | None = None, **details: object) -> None:
        """Write the next event."""
        self.count += 1
        event = Event(
            n=self.count, kind=kind, model_id=model, at=(_BEGIN + timedelta(minutes=self.count)).isoformat(),
            who="the flow", why="Every gate is met: ndcg@10 0.3123 over 20000 requests", run_id=f"run-{model[:8]}",
            digests=digests or {}, details=details, champion_before=self.champion,
        )  # fmt: skip
        (self._folder / f"{event.n}.json").write_text(event.model_dump_json(indent=2) + "\n")
        if kind == "promoted":
            self.champion = model


def build(folder: Path, *, candidates: int, events: int) -> list[str]:
    """A registry with so many candidates and events; the ids of its models."""
    models = ModelRegistry(folder / "repository")
    history, digests = History(models), _evidence(models, folder)
    identifiers = [f"{n:016x}" for n in range(1, candidates + 1)]
    for n, model in enumerate(identifiers):
        manifest = Path(models.root) / "bundles" / model / "manifest.json"
        manifest.parent.mkdir(parents=True)
        manifest.write_text(_MANIFEST.model_dump_json())
        history.add("registered", model, digests={"catalogue": "own", "manifest": "0" * 64})
        history.add("evaluated", model, digests={"evaluation": digests["evaluation"]})
        history.add(_OUTCOMES[n % 3], model, digests=digests, recipe="movielens", started_by="ada")
        while history.champion and history.count < (n + 1) * events // candidates:
            revision = f"{history.count:016x}"
            history.add("catalogue_published", history.champion, digests={"catalogue": revision})
    return identifiers


def _evidence(models: ModelRegistry, folder: Path) -> dict[str, str]:
    """One evaluation and one verdict with as much in them as those of a real run; all candidates share them."""
    evaluation, verdict = folder / "evaluation", folder / "verdict"
    evaluation.mkdir(parents=True)
    verdict.mkdir()
    systems = (CANDIDATE, CHAMPION, "anchor", "popularity", "covisitation")
    metrics = {name: Estimate(mean=0.3, low=0.29, high=0.31) for name in _METRICS}
    report = Report(
        model_id="0" * 16, recipe="movielens", run_id="run", requests=20000,
        systems={system: SystemScores(metrics=metrics) for system in systems},
    )  # fmt: skip
    write_report(evaluation, report)
    checks = [
        Check(name=f"gate {n}", passed=True, observed=0.3, required="at least 0.29", sentence="It is met. " * 8)
        for n in range(60)
    ]
    decided = Verdict(
        outcome="pending", model_id="0" * 16, champion="", sentence="Every gate is met.", checks=checks,
        policy=PromotionPolicy(mode="review"),
    )  # fmt: skip
    (verdict / "verdict.json").write_text(decided.model_dump_json())
    (verdict / "evidence.html").write_text(f"<!doctype html><title>Evidence</title>{'<p>Wins and losses</p>' * 20000}")
    return {"evaluation": models.add_evidence(evaluation), "verdict": models.add_evidence(verdict)}


@contextmanager
def console(folder: Path) -> Iterator[str]:
    """A console over the registry; the URL."""
    ready = folder / "ready.json"
    command = [sys.executable, "-c", "from cli.main import main; main()", "review", "serve", "-w", str(folder)]
    process = subprocess.Popen([*command, "--port", "0", "--ready-file", str(ready)], env=dict(os.environ))
    try:
        while not ready.exists():
            if process.poll() is not None:
                raise SystemExit("the console did not start")
            time.sleep(0.05)
        yield json.loads(ready.read_text())["url"]
    finally:
        process.terminate()
        process.wait()


def seconds(client: httpx.Client, path: str) -> float:
    """How long one answer takes."""
    began = time.perf_counter()
    response = client.get(path)
    took = time.perf_counter() - began
    if response.status_code != 200:
        raise SystemExit(f"{path} answers {response.status_code}: {response.text[:500]}")
    return took


def measure(client: httpx.Client, path: str, repeats: int, change: Callable[[], None]) -> str:
    """A row of the table: unchanged registry (median, slowest), and the first answer after a new event."""
    took = [seconds(client, path) for _ in range(repeats)]
    after_change = []
    for _ in range(5):
        change()
        after_change.append(seconds(client, path))
    return (
        f"| `{path.partition('?')[0] if len(path) > 60 else path}` | {1000 * statistics.median(took):.0f} "
        f"| {1000 * max(took):.0f} | {1000 * max(after_change):.0f} |"
    )


def main() -> None:
    """Build the registry, start a console and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=1000)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rankline-") as scratch:
        folder = Path(scratch)
        identifiers = build(folder, candidates=arguments.candidates, events=arguments.events)
        models = ModelRegistry(folder / "repository")
        waiting, promoted = identifiers[-1 - (len(identifiers) - 1) % 3], identifiers[2]
        began = time.perf_counter()
        with console(folder) as url, httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
            started = time.perf_counter()
            first = seconds(client, "/")
            print(f"start {started - began:.1f} s, first page {first:.1f} s\n")
            print("| page | ms, median | ms, slowest | ms, slowest after a new event |\n| --- | --- | --- | --- |")
            paths = (
                "/", "/?page=7", "/decided", f"/candidates/{waiting}", f"/candidates/{waiting}/evidence", "/timeline",
                "/timeline?page=150", "/timeline?kind=promoted", f"/timeline?model={promoted}", f"/models/{promoted}",
                "/serving", "/at?time=2026-01-04T00:00", "/compare", "/healthz",
            )  # fmt: skip
            for path in paths:
                row = measure(client, path, arguments.repeats, lambda: _hide(models))
                print(row, flush=True)


def _hide(models: ModelRegistry) -> None:
    """One more event."""
    models.hide(["item"], who="benchmark", why="one more event")


if __name__ == "__main__":
    main()

"""Candidates that wait for a review: real bundles, evaluations and verdicts, in a registry of any kind."""

from __future__ import annotations

import shutil
from pathlib import Path

from components.promote.config import DecideConfig
from components.promote.step import decide
from pipelines.overrides import change
from pipelines.recipes import smoke
from rankline.registry.model_registry import ModelRegistry
from review.desk import Desk
from review.queue import Candidate, find
from tests.components.test_promote import evaluation_of
from tests.rankline.registry.test_model_registry import tiny_bundle

NO_MLFLOW = "promote.tracking_uri=http://127.0.0.1:9"  # nobody listens there
REASON = "it recommends recalled items"


class Reviewed:
    """A workspace and its registry."""

    def __init__(self, root: Path, repository: str = "") -> None:
        self.root, self.workspace = root, root / "workspace"
        self.repository = repository or str(self.workspace / "repository")
        self.models = ModelRegistry(self.repository)
        self.warnings: list[str] = []

    @property
    def desk(self) -> Desk:
        """The desk, whose MLflow is down."""
        recipe = change(smoke(), [NO_MLFLOW])
        return Desk.open(self.workspace, self.repository, recipe=recipe, warn=self.warnings.append)

    def candidate(self, name: str, *, started_by: str = "", weights: str = "", **policy: object) -> Candidate:
        """A candidate that waits, evaluated beside the champion of the time; another name is another evaluation."""
        bundle = tiny_bundle(self.root / name / "bundle", weights=(weights or name).encode())
        evaluation = evaluation_of(bundle, self.root / name / "evaluation", champion=self.models.champion())
        (evaluation / "name.txt").write_text(name)
        decide(
            bundle=bundle.folder, evaluation=evaluation, verdict=self.root / name / "verdict", started_by=started_by,
            config=DecideConfig(**{"mode": "review", "loss_budget": None, "seed": len(name), **policy}),
            repository=self.repository, run_id=f"run-{name}",
        )  # fmt: skip
        shutil.rmtree(self.root / name)
        return find(self.models.history(), bundle.model_id)

    def champion(self, name: str) -> str:
        """A model that serves, by a promotion of the flow."""
        bundle = tiny_bundle(self.root / name, weights=name.encode())
        self.models.add(bundle.folder)
        for kind in ("registered", "promoted"):
            self.models.append(kind, bundle.model_id, who="the flow", why="because", run_id=f"run-{name}")
        return bundle.model_id

    def approve(self, candidate: Candidate, who: str = "rita", **more: str):
        """Approve a candidate by its evidence."""
        return self.desk.approve(candidate.model_id, verdict=candidate.verdict, who=who, **more)

    @property
    def kinds(self) -> list[str]:
        """The kinds of all events."""
        return [event.kind for event in self.models.history()]

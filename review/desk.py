"""The desk: approve, reject and roll back, with what that needs of the workspace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.recipe import Recipe
from rankline.evaluation.decision import Verdict
from rankline.evaluation.report import Report
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import Event
from review.queue import Candidate


@dataclass(frozen=True)
class Evidence:
    """The evidence for a candidate; evidence of earlier versions has no page and no card."""

    report: Report
    verdict: Verdict
    page: bytes | None  # evidence.html
    card: str | None  # MODEL_CARD.md


class Desk:
    """A registry and the workspace whose online store serves its models."""

    def __init__(self, models: ModelRegistry, workspace: Path, *, recipe: Recipe | None = None) -> None:
        self.models, self.workspace, self.recipe = models, workspace, recipe
        self.warnings: list[str] = []  # of the last action

    @classmethod
    def open(cls, workspace: Path, repository: str = "", *, recipe: Recipe | None = None, bucket: Any = None) -> Desk:
        """The desk of a workspace; ``repository`` is its own where it is empty."""
        return cls(ModelRegistry(repository or str(workspace / "repository")), workspace, recipe=recipe)

    def approve(self, model: str, *, verdict: str, who: str, why: str = "") -> Event:
        """Make a pending candidate the champion; where four eyes are needed, the first approval is an `approved` event.

        Raises:
            UsageError: there is no such candidate, ``verdict`` is the digest of other evidence, or ``who`` may not.
            StaleEvidence: it was decided on already, or something that it was judged by changed.
        """
        raise NotImplementedError

    def reject(self, model: str, *, verdict: str, who: str, why: str) -> Event:
        """Reject a candidate that waits."""
        raise NotImplementedError

    def roll_back(self, model: str, *, who: str, why: str) -> Event:
        """Make a former champion serve again; the nearest one if ``model`` is empty."""
        raise NotImplementedError

    def evidence(self, candidate: Candidate) -> Evidence:
        """The evidence for a candidate."""
        raise NotImplementedError

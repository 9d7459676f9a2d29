"""A verdict computed again from the stored scores: whether it is the stored one, and where it differs."""

from __future__ import annotations

from pathlib import Path

from rankline.contracts import FrozenModel
from rankline.errors import IntegrityError
from rankline.evaluation import decision
from rankline.evaluation.decision import Verdict
from rankline.evaluation.report import read_report
from rankline.gates.check import Check
from rankline.gates.evidence import read_evidence
from rankline.io.files import read_model
from rankline.registry.model_registry import ModelRegistry

_TOLERANCE = 1e-9  # of observed numbers, as shares of them


class Recheck(FrozenModel):
    """The stored verdict, the one computed again, and their differences."""

    model_id: str
    stored: str
    recomputed: str
    checks: int
    differences: list[str]


def recheck(verdict: Path, evaluation: Path, models: ModelRegistry) -> Recheck:
    """Decide again as the stored verdict did: its policy, its champion, its state of earlier nights.

    Raises:
        IntegrityError: the verdict or the evaluation cannot be read.
        RegistryError: the candidate or the champion of that time is not in the registry any more.
    """
    stored = read_model(
        verdict,
        Verdict,
        what="the verdict",
        error=IntegrityError,
        missing="this run came to no verdict",
        damaged="run `rankline step decide` again",
    )
    again = decision.decide(
        read_report(evaluation),
        read_evidence(evaluation),
        models.manifest(stored.model_id),
        stored.policy,
        champion_id=stored.champion,
        champion_manifest=models.manifest(stored.champion) if stored.champion else None,
        state=stored.state,
    )
    differences = [f"outcome: {stored.outcome} stored, {again.outcome} recomputed"] * (stored.outcome != again.outcome)
    before, after = ({check.name: check for check in each.checks} for each in (stored, again))
    for name in dict.fromkeys([*before, *after]):
        differences += _differences(name, before.get(name), after.get(name))
    return Recheck(
        model_id=stored.model_id,
        stored=stored.outcome,
        recomputed=again.outcome,
        checks=len(again.checks),
        differences=differences,
    )


def _differences(name: str, before: Check | None, after: Check | None) -> list[str]:
    if before is None or after is None:
        return [f"{name}: {'not stored' if before is None else 'not recomputed'}"]
    parts = [
        f"{name}: {field} {getattr(before, field)} stored, {getattr(after, field)} recomputed"
        for field in ("status", "required")
        if getattr(before, field) != getattr(after, field)
    ]
    if not _same(before.observed, after.observed):
        parts.append(f"{name}: observed {before.observed} stored, {after.observed} recomputed")
    return parts


def _same(before: float | int | str | None, after: float | int | str | None) -> bool:
    if isinstance(before, int | float) and isinstance(after, int | float):
        return abs(before - after) <= _TOLERANCE * max(abs(before), abs(after), 1.0)
    return before == after

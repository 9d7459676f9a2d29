"""The files of a verdict: written for programs and for people, stored as evidence, read again by `promote`."""

from __future__ import annotations

import contextlib
from pathlib import Path

from components.promote.run_measures import save_run_measures
from components.promote.verdict_page import verdict_page
from rankline.errors import IntegrityError, UsageError
from rankline.evaluation.decision import Verdict
from rankline.evidence.model_card import MODEL_CARD, model_card
from rankline.evidence.page import EVIDENCE_PAGE, evidence_page
from rankline.evidence.subject import Subject
from rankline.io.files import read_model
from rankline.model.bundle import Bundle
from rankline.registry.model_registry import ModelRegistry

VERDICT, PAGE = "verdict.json", "verdict.md"


def write_verdict(folder: Path, subject: Subject) -> None:
    """Write the verdict for programs and, with what the run's ledger says, for people."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / VERDICT).write_text(subject.verdict.model_dump_json(indent=2) + "\n")
    save_run_measures(folder, subject.report.run_measures, subject.verdict.policy)
    (folder / PAGE).write_text(verdict_page(subject.verdict, subject.report, warning=subject.warning))
    (folder / EVIDENCE_PAGE).write_text(evidence_page(subject))
    (folder / MODEL_CARD).write_text(model_card(subject))


def add_evidence(
    models: ModelRegistry, decided: Verdict, evaluation: Path, verdict: Path, *, with_verdict: bool
) -> dict[str, str]:
    """Store the evaluation and, where an event names it, the verdict; returns their digests."""
    digests = {"evaluation": models.add_evidence(evaluation)}
    if with_verdict:
        stored = _stored_verdict(models, decided.model_id, digests["evaluation"], verdict)
        digests["verdict"] = stored or models.add_evidence(verdict)
    return digests


def _stored_verdict(models: ModelRegistry, model_id: str, evaluation: str, verdict: Path) -> str:
    """The digest of the same verdict, if the registry has it.

    The pages beside verdict.json tell of the run, and so differ where another run comes to the same verdict.
    """
    content = (verdict / VERDICT).read_bytes()
    for event in reversed(models.history()):
        is_of_it = (event.model_id, event.digests.get("evaluation")) == (model_id, evaluation)
        if is_of_it and (stored := event.digests.get("verdict")):
            with contextlib.suppress(OSError):
                if models.fs.cat_file(f"{models.evidence(stored)}/{VERDICT}") == content:
                    return stored
    return ""


def read_verdict_for(candidate: Bundle, verdict: Path) -> Verdict:
    """A verdict that promotes this model."""
    decided = read_model(
        verdict / VERDICT,
        Verdict,
        what="the verdict",
        error=IntegrityError,
        missing="run `rankline step decide` first",
        damaged="run `rankline step decide` again",
    )
    if decided.outcome != "promote" or decided.model_id != candidate.model_id:
        raise UsageError(
            "this verdict does not promote this model",
            expected=f"outcome promote for model {candidate.model_id}",
            found=f"outcome {decided.outcome} for model {decided.model_id}",
            where=str(verdict),
            hint="verdict.md in that folder has the reasons",
        )
    return decided

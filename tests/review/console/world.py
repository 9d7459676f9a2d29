"""A registry of tiny models: a champion, a former one, a candidate that waits, one that the gates rejected."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rankline.evaluation.decision import PromotionPolicy, Verdict
from rankline.evaluation.report import CANDIDATE, CHAMPION, Estimate, Report, SystemScores, write_report
from rankline.gates.check import Check
from rankline.model.bundle import Bundle
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import Event, Kind

HOSTILE = '<script>document.title = "hurt"</script><img src=x onerror="document.title=1">'
EVIDENCE_PAGE = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>Evidence</title><style>body { font: 1rem sans-serif; "
    "background: #fff; color: #111; padding: 1rem }</style><h1>Evidence of {model}</h1><p>Wins and losses.</p>"
    "<script>document.body.textContent = 'hurt'</script></html>"
)


def estimate(mean: float) -> Estimate:
    return Estimate(mean=mean, low=mean - 0.01, high=mean + 0.01)


def add_evidence(models: ModelRegistry, folder: Path, bundle: Bundle, outcome: str, **policy: object) -> dict[str, str]:
    """Evidence of a model beside the present champion, in the registry; the digests of an event."""
    evaluation, verdict = folder / f"evaluation-{bundle.model_id}", folder / f"verdict-{bundle.model_id}"
    evaluation.mkdir(parents=True)
    verdict.mkdir(parents=True)
    champion = models.champion()
    scores = {CANDIDATE: 0.31, **({CHAMPION: 0.3} if champion else {}), "popularity": 0.1}
    report = Report(
        model_id=bundle.model_id, recipe="tiny", run_id="run-1", champion=champion, requests=200,
        systems={
            name: SystemScores(metrics={"ndcg@10": estimate(score), "hr@10": estimate(score + 0.1)})
            for name, score in scores.items()
        },
    )  # fmt: skip
    write_report(evaluation, report)
    passed = outcome == "pending"
    checks = [
        Check(name="requests", passed=True, observed=200, required="at least 100", sentence="200 requests."),
        Check(name="floor ndcg@10", passed=passed, observed=0.31, required="at least 0.3", sentence="0.31 ndcg@10."),
    ]
    decided = Verdict(
        outcome="pending" if passed else "refused", model_id=bundle.model_id, champion=champion,
        sentence="Every gate is met." if passed else "It is below a floor.", checks=checks,
        policy=PromotionPolicy.model_validate({"mode": "review", **policy}),
    )  # fmt: skip
    (verdict / "verdict.json").write_text(decided.model_dump_json())
    (verdict / "evidence.html").write_text(EVIDENCE_PAGE.replace("{model}", bundle.model_id[:12]))
    (verdict / "MODEL_CARD.md").write_text(f"# Model card\n\nIntended use: {HOSTILE}\n")
    return {"evaluation": models.add_evidence(evaluation), "verdict": models.add_evidence(verdict)}


def judge(
    models: ModelRegistry, folder: Path, bundle: Bundle, outcome: str = "pending", *, started_by: str = "",
    why: str = "Every gate is met.", **policy: object,
) -> Event:  # fmt: skip
    """Register a model and record a verdict on it, as `decide` does."""
    models.add(bundle.folder)
    models.append("registered", bundle.model_id, who="the flow", why="made by recipe tiny", run_id="run-1")
    digests = add_evidence(models, folder, bundle, outcome, **policy)
    models.append(
        "evaluated", bundle.model_id, who="the flow", why="ndcg@10 0.31", run_id="run-1",
        digests={"evaluation": digests["evaluation"]},
    )  # fmt: skip
    kind: Kind = "pending" if outcome == "pending" else "rejected"
    details = {"outcome": outcome, "failures": [], "recipe": "tiny", "started_by": started_by}
    return models.append(
        kind, bundle.model_id, who="the flow", why=why, run_id="run-1", digests=digests, details=details
    )


@dataclass(frozen=True)
class World:
    """A workspace, and the models of its registry."""

    workspace: Path
    models: ModelRegistry
    former: str
    champion: str
    waiting: str
    rejected: str
    verdict: str  # of the candidate that waits

"""A candidate of which everything is known, in whose data every text is HTML, Markdown and mathematics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lxml import html

from rankline.contracts import Manifest, Parity, Precision, TextSettings
from rankline.evaluation.decision import PromotionPolicy, Verdict
from rankline.evaluation.report import Report
from rankline.evidence.comparisons import Compared, Comparisons, ListedItem
from rankline.evidence.page import evidence_page
from rankline.evidence.run_facts import DataFacts, RunFacts, StepFacts
from rankline.evidence.subject import Subject
from rankline.gates.check import Check
from rankline.gates.clusters import Effect
from rankline.model.scoring import feature_names

EVIL = """<script>alert("1")</script><img src=x onerror='a()'> & | `b` **c** $x^{$ </article></details> 日本"""
SCORES = {"candidate": 0.31, "champion": 0.35, "anchor": 0.33, "teacher": 0.4, "popularity": 0.1, "item_knn": 0.2}


def manifest() -> Manifest:
    """The manifest of a bundle."""
    return Manifest(
        recipe="r", catalogue=EVIL, heads=["click", EVIL], features=feature_names(),
        text=TextSettings(max_tokens=16), vector_size=8, max_history=10, covisit_decay=0.8, candidates_per_source=50,
        precisions={"fp32": Precision(scorer="s.onnx", item_vectors="v.npy")},
        parity=[Parity(graph="scorer", precision="fp32", samples=1, max_abs_difference=1e-6)],
        data_digest="d" * 64, code_digest="c" * 64, train_end="2024-01-01T00:00:00+00:00",
        data_end="2024-01-02T00:00:00+00:00",
    )  # fmt: skip


def report(**changes: Any) -> Report:
    """A report with every section."""
    estimates = {
        name: {metric: {"mean": mean, "low": mean - 0.05, "high": mean + 0.05} for metric in ("ndcg@10", "hr@10")}
        for name, mean in SCORES.items()
    }
    differences = {
        name: {"ndcg@10": {"mean": 0.31 - mean, "low": 0.29 - mean, "high": 0.33 - mean}}
        for name, mean in SCORES.items()
        if name != "candidate"
    }
    slices = {"user: new": (60, 0.2), "user: established": (140, 0.36), f"category: {EVIL}": (12, 0.3)}
    fields: dict[str, Any] = {
        "model_id": "a" * 16, "recipe": EVIL, "run_id": EVIL, "champion": "b" * 16, "anchor": "c" * 16, "requests": 200,
        "systems": {name: {"metrics": each, "lists": {"coverage@10": 0.5}} for name, each in estimates.items()},
        "slices": {
            name: {"requests": requests, "systems": {"candidate": {"ndcg@10": mean}, "champion": {"ndcg@10": 0.3}}}
            for name, (requests, mean) in slices.items()
        },
        "latency": {"p50_ms": 3.0, "p95_ms": 9.5, "p99_ms": 12.0, "throughput_rps": 88.0, "provider": "cpu"},
        "model": {"size_bytes": 2_500_000, "memory_bytes": 300_000_000}, "calibration": {"click_auc": 0.8},
        "heads": {
            EVIL: {
                "type": "binary", "impressions": 10, "metrics": {"auc": 0.7},
                "deciles": [{"count": 10, "mean_chance": 0.1, "share": 0.2}],
            }
        },
        "details": {
            "differences": differences,
            "items": {
                "count": 7, "languages": {EVIL: 5, "de": 2}, "training_events": 99, "new": 2, "gone": 1,
                "new_titles": [EVIL, "New"], "gone_ids": [EVIL],
            },
        },
    }  # fmt: skip
    return Report.model_validate(fields | changes)


def compared(n: int, *, user: str | None = EVIL, wins: bool = True) -> Compared:
    """A request whose first target one of the systems lists first."""
    lists = [[ListedItem(item_id="i", title=EVIL, hit=hit, categories=[EVIL], features={EVIL: 3.0})] for hit in (1, 0)]
    best, worst = (lists[0], lists[1]) if wins else (lists[1], lists[0])
    return Compared(
        request_id=f"test:{user}:{n}", user_id=user, query=EVIL, at=1_700_000_000.0 + n, history=[EVIL],
        history_length=3, targets=[EVIL], candidate_score=float(wins), other_score=float(not wins), candidate=best,
        other=worst,
    )  # fmt: skip


def comparisons() -> Comparisons:
    """Two wins and a loss."""
    wins = [compared(1), compared(2, user="u2")]
    losses = [compared(3, wins=False)]
    return Comparisons(metric="ndcg@10", other="champion", requests=200, better=2, worse=1, wins=wins, losses=losses)


def checks() -> list[Check]:
    """Gates of every status; the worst is not the first."""
    effect = Effect(mean=-0.04, low=-0.06, high=-0.02, requests=200, clusters=90, detectable=0.01)
    return [
        Check.of("requests", "pass", "200 test requests.", required="at least 100", observed=200),
        Check.of(f"slice {EVIL}", "insufficient data", "Too few.", required="50", observed=12),
        Check.of("not worse", "fail", EVIL, required="interval from -0.035", observed=-0.06, effect=effect),
    ]


def run_facts() -> RunFacts:
    """A run of two steps, beside an earlier one."""
    data = DataFacts(
        rows={"items": 60, EVIL: 3}, rejected={"items": 2}, changes={"items_rows_change": 0.25, f"{EVIL}_drift": 0.125},
        warnings=(EVIL,), first="2023-01-01", last="2024-01-01", compared=True,
    )  # fmt: skip
    steps = (
        StepFacts("ingest", "reused", 1.0, 0.5, 10_000_000, {"raw": "e" * 64}),
        StepFacts("finetune", "done", 30.0, 41.25, 900_000_000, {"teacher": "f" * 64}),
    )
    curves = {f"finetune/{EVIL}": [{"epoch": 0, "loss": 2.0}, {"epoch": 1, "loss": 1.0, "valid_ndcg@10": 0.1}]}
    return RunFacts(
        "run-1", steps, data, settings={"ingest.source": f'"{EVIL}"'}, images={"data": EVIL},
        curves=curves, commands=("rankline runs retry run-1 -w '/a b'", "rankline gates check run-1 -w '/a b'"),
    )  # fmt: skip


def full(**changes: Any) -> Subject:
    """A candidate with everything that can be known."""
    verdict = Verdict(
        outcome="refused",
        model_id="a" * 16,
        champion="b" * 16,
        sentence=EVIL,
        checks=checks(),
        policy=PromotionPolicy(),
    )
    fields: dict[str, Any] = {
        "report": report(), "verdict": verdict, "manifest": manifest(), "comparisons": comparisons(),
        "run": run_facts(), "started_from": EVIL, "warning": EVIL,
    }  # fmt: skip
    return Subject(**fields | changes)


def bare(**changes: Any) -> Subject:
    """A candidate of an earlier version's evaluation, decided on where its run is not known."""
    old = report(slices={}, calibration={}, heads={}, details={}, champion="", anchor="")
    return full(report=old, comparisons=None, run=None, **changes)


def parsed(subject: Subject) -> Any:
    """The page as a tree."""
    return html.document_fromstring(evidence_page(subject))


def text(node: Any) -> str:
    """The text of a node, with single spaces."""
    return " ".join(str(node.text_content()).split())


def rows(table: Any) -> list[list[str]]:
    """The cells of the rows of a table's body."""
    return [[text(cell) for cell in row] for row in table.xpath("./tbody/tr")]


def table(tree: Any, caption: str) -> Any:
    """The only table with this caption."""
    (match,) = [each for each in tree.xpath("//table") if text(each.find("caption")).startswith(caption)]
    return match


def ids(nodes: Sequence[Any]) -> list[str]:
    """The ids of nodes."""
    return [node.get("id") for node in nodes]

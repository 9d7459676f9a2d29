"""Many nights through the real step `decide` and a real registry: loss budget, anchor, the way past the gates."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from components.promote.config import DecideConfig
from components.promote.step import decide
from rankline.errors import UsageError
from rankline.evaluation.decision import Verdict, anchors
from rankline.evaluation.recheck import recheck
from rankline.evaluation.report import Report, write_report
from rankline.registry import anchor as anchoring
from rankline.registry.model_registry import ModelRegistry
from tests.rankline.registry.test_model_registry import tiny_bundle

REQUESTS = 400  # new ones a night
MEAN = 0.5


class Nights:
    """A registry, and one evaluation a night on requests that are newer than those of the night before."""

    def __init__(self, root: Path) -> None:
        self.root, self.night = root, 0
        self.models: dict[str, str] = {}
        self.registry = ModelRegistry(root / "repository")

    def evaluation(self, bundle, quality: float, *, champion: float, anchor: float, new: bool = True) -> Path:
        """An evaluation of systems of these true qualities; the requests are those of last night unless ``new``."""
        self.night += new
        rng = np.random.default_rng(self.night + 1000 * (not new))
        history = self.registry.history()
        serving, origin = self.registry.champion(), anchoring.anchor(history)
        ease = rng.uniform(0, 2 * MEAN, REQUESTS)
        qualities = {"candidate": quality, "popularity": 0.1}
        qualities |= {"champion": champion} if serving else {}
        qualities |= {"anchor": anchor} if origin not in ("", serving) else {}
        scores = {name: ease * each + rng.normal(0, 0.1, REQUESTS) for name, each in qualities.items()}
        folder = self.root / bundle.model_id / "evaluation"
        folder.mkdir(parents=True)
        ids = [f"n{self.night:03}:{n:03}" for n in range(REQUESTS)]
        tables = [
            pa.table({"request_id": ids, "system": [name] * REQUESTS, "ndcg@10": scores[name]}) for name in scores
        ]
        parquet.write_table(pa.concat_tables(tables), folder / "per_request.parquet")
        at = (self.night * 86_400.0 + np.arange(REQUESTS)).tolist()
        users = [f"user {n % 200}" for n in range(REQUESTS)]
        parquet.write_table(pa.table({"request_id": ids, "cluster": users, "at": at}), folder / "requests.parquet")
        value = {
            "model_id": bundle.model_id, "recipe": "smoke", "run_id": f"run-{self.night}", "champion": serving,
            "anchor": origin if "anchor" in scores else "", "requests": REQUESTS,
            "systems": {name: {"metrics": {"ndcg@10": {"mean": float(each.mean())}}} for name, each in scores.items()},
            "latency": {"p95_ms": 12.0}, "parity": {"served_max_abs_difference": 1e-6, "same_top10_share": 1.0},
            "model": {"size_bytes": 1000},
        }  # fmt: skip
        write_report(folder, Report.model_validate(value))
        return folder

    def decide(
        self, name: str, quality: float, *, champion=1.0, anchor=1.0, new=True, promote=True, **gates
    ) -> Verdict:
        """The verdict on a new model; one to promote is promoted."""
        bundle = tiny_bundle(self.root / name, weights=name.encode())
        self.models[name] = bundle.model_id
        folder = self.evaluation(bundle, quality, champion=champion, anchor=anchor, new=new)
        verdict = self.root / bundle.model_id / "verdict"
        self.result = decide(
            bundle=bundle.folder, evaluation=folder, verdict=verdict, run_id=f"run-{self.night}",
            config=DecideConfig(**gates), repository=self.registry.root,
        )  # fmt: skip
        decided = Verdict.model_validate_json((verdict / "verdict.json").read_text())
        if promote and decided.outcome == "promote":
            self.registry.append("promoted", bundle.model_id, who="t", why="t")
        return decided

    def model(self, name: str) -> str:
        return self.models[name]


@pytest.fixture
def nights(tmp_path):
    return Nights(tmp_path)


def status(decided: Verdict, name: str = "loss budget") -> str:
    return next(check.status for check in decided.checks if check.name == name)


def test_one_night_is_too_little_for_an_equal_candidate_and_several_are_enough(nights):
    assert nights.decide("first", 1.0).outcome == "promote"
    outcomes = [nights.decide(f"n{n}", 1.0).outcome for n in range(8)]
    assert outcomes[0] == "insufficient_data"
    assert "promote" in outcomes[1:]
    looked = [event.details["night"] for event in nights.registry.history() if "night" in event.details]
    assert [each["requests"] for each in looked] == [REQUESTS] * len(looked)
    passed = outcomes.index("promote") + 1
    assert [each["since"] for each in looked[1:passed]] == [each["until"] for each in looked[: passed - 1]]


@pytest.mark.integration
def test_a_candidate_beyond_the_budget_is_refused_once_that_is_proven(nights):
    nights.decide("first", 1.0)
    outcomes = [nights.decide(f"n{n}", 0.93).outcome for n in range(8)]
    assert outcomes[-1] == "refused"
    assert "promote" not in outcomes


@pytest.mark.integration
def test_losses_add_up_against_the_anchor_and_not_against_the_champion(nights):
    """Each candidate is two percent worse than the champion of its time, which the margin allows for ever."""
    nights.decide("first", 1.0)
    quality = 1.0
    for n in range(30):
        if nights.decide(f"n{n}", quality * 0.98, champion=quality).outcome == "promote":
            quality *= 0.98
    assert quality >= 0.98
    free = Nights(nights.root / "free")
    free.root.mkdir()
    free.decide("first", 1.0)
    assert free.decide("second", 0.98, loss_budget=None).outcome == "promote"


def test_requests_of_last_night_are_no_new_evidence_and_every_model_on_them_is_a_trial(nights):
    nights.decide("first", 1.0)
    first = nights.decide("a", 1.0)
    again = nights.decide("b", 1.0, new=False)
    third = nights.decide("c", 1.0, new=False)
    assert [each.state.trials for each in (first, again, third)] == [1, 2, 3]
    assert [each.state.before.nights for each in (first, again, third)] == [0, 0, 0]


def test_a_champion_that_is_proven_better_becomes_the_anchor(nights):
    nights.decide("first", 1.0)
    decided = nights.decide("second", 1.2)
    assert decided.outcome == "promote"
    assert anchors(decided)
    # this test promotes without the step `promote`, which moves the anchor at once: the nights after it do
    assert anchoring.anchor(nights.registry.history()) == nights.model("first")
    nights.decide("third", 1.2, champion=1.2)
    event = next(event for event in nights.registry.history() if event.kind == "anchored")
    assert (event.model_id, event.who) == (nights.model("second"), "the flow")
    assert anchoring.anchor(nights.registry.history()) == nights.model("second")


def test_a_fixed_anchor_stays(nights):
    nights.decide("first", 1.0)
    nights.decide("second", 1.2, anchor=1.0)
    nights.decide("third", 1.2, champion=1.2)
    fixed = Nights(nights.root / "fixed")
    fixed.root.mkdir()
    fixed.decide("first", 1.0)
    assert not anchors(fixed.decide("second", 1.2, loss_budget=None))
    for n in range(3):
        decided = fixed.decide(f"n{n}", 1.2, champion=1.2, promote=False)
        decided = decided.model_copy(update={"policy": decided.policy.model_copy(update={"anchor": "fixed"})})
        assert not anchors(decided)


def test_an_evaluation_without_scores_of_the_anchor_is_insufficient_data(nights):
    nights.decide("first", 1.0)
    nights.decide("second", 1.0, loss_budget=None)
    bundle = tiny_bundle(nights.root / "third", weights=b"third")
    folder = nights.evaluation(bundle, 1.1, champion=1.0, anchor=1.0)
    table = parquet.read_table(folder / "per_request.parquet")
    keep = [system != "anchor" for system in table["system"].to_pylist()]
    parquet.write_table(table.filter(pa.array(keep)), folder / "per_request.parquet")
    report = json.loads((folder / "report.json").read_text())
    del report["systems"]["anchor"]
    (folder / "report.json").write_text(json.dumps({**report, "anchor": ""}))
    result = decide(
        bundle=bundle.folder, evaluation=folder, verdict=nights.root / "verdict", run_id="r", config=DecideConfig(),
        repository=nights.registry.root,
    )  # fmt: skip
    assert (result["outcome"], result["failures"]) == ("insufficient_data", ["loss budget"])
    assert result["insufficient"] == ["loss budget"]
    assert nights.model("first") in result["sentence"]


def test_a_gate_of_the_policy_decides_with_the_others(nights):
    gate = {"kind": "ceiling", "metric": "latency.p95_ms", "at_most": 10}
    decided = nights.decide("first", 1.0, gates=[gate])
    assert (decided.outcome, [check.name for check in decided.failures]) == ("refused", ["ceiling latency.p95_ms"])
    elsewhere = nights.decide("second", 1.0, gates=[{**gate, "provider": "cuda"}])
    assert elsewhere.outcome == "insufficient_data"
    allowed = nights.decide("third", 1.0, gates=[{**gate, "provider": "cuda", "when_insufficient": "allow"}])
    assert allowed.outcome == "promote"
    assert "1 lack data" in allowed.sentence
    with pytest.raises(UsageError, match=r"latency\.p59_ms"):
        nights.decide("fourth", 1.0, gates=[{**gate, "metric": "latency.p59_ms"}])


def test_a_verdict_is_computed_again_and_a_changed_score_is_seen(nights):
    nights.decide("first", 1.0)
    nights.decide("a", 1.0)
    gate = {"kind": "better", "metric": "ndcg@10", "than": "popularity", "by": 0.5}
    decided = nights.decide("b", 1.0, gates=[gate], promote=False)
    folder = nights.root / decided.model_id
    assert recheck(folder / "verdict" / "verdict.json", folder / "evaluation", nights.registry).differences == []
    path = folder / "evaluation" / "per_request.parquet"
    table = parquet.read_table(path).to_pandas()
    table.loc[(table.system == "candidate") & (table.request_id == table.request_id[5]), "ndcg@10"] += 0.01
    parquet.write_table(pa.Table.from_pandas(table, preserve_index=False), path)
    differences = recheck(folder / "verdict" / "verdict.json", folder / "evaluation", nights.registry).differences
    assert any(each.startswith("loss budget: observed") for each in differences)


def test_a_verdict_of_an_earlier_version_is_still_read(nights):
    decided = nights.decide("first", 1.0)
    value = json.loads(decided.model_dump_json())
    for name in ("state", "night"):
        del value[name]
    for name in ("loss_budget", "loss_error", "anchor", "trials", "gates"):
        del value["policy"][name]
    for check in value["checks"]:
        del check["status"], check["effect"]
    again = Verdict.model_validate(value)
    assert [(check.name, check.status) for check in again.checks] == [(c.name, c.status) for c in decided.checks]


@pytest.mark.integration
@pytest.mark.parametrize(
    "gates", [{}, {"loss_budget": None}, {"loss_budget": None, "margin": 0.05, "margin_kind": "absolute"}]
)
def test_a_model_that_was_promoted_past_the_gates_is_confirmed_by_later_nights(nights, gates):
    nights.decide("first", 1.0)
    refused = nights.decide("second", 1.0, gates=[{"kind": "ceiling", "metric": "latency.p95_ms", "at_most": 1}])
    anchoring.break_glass(
        nights.registry, refused.model_id, who="ann", why="the champion is broken", check=lambda model: None
    )
    assert "ann" in anchoring.warning(nights.registry.history())
    if not gates:
        nights.decide("third", 0.5)
        page = (nights.root / nights.model("third") / "verdict" / "verdict.md").read_text()
        assert "promoted past the gates by ann" in page
        assert refused.model_id in nights.result["warning"]
        assert "promoted past the gates by ann" in nights.result["warning"]
    for n in range(8 if not gates else 3):
        nights.decide(f"n{n}", 0.5, **gates)
    assert "warning" not in nights.result
    assert anchoring.warning(nights.registry.history()) == ""
    assert "confirmed" in [event.kind for event in nights.registry.history()]


def test_a_model_that_is_worse_than_the_margin_is_not_confirmed(nights):
    nights.decide("first", 1.0)
    refused = nights.decide("second", 0.8)
    anchoring.break_glass(nights.registry, refused.model_id, who="ann", why="no other way", check=lambda model: None)
    for n in range(3):
        nights.decide(f"n{n}", 0.5, champion=0.8, loss_budget=None)
    assert "ann" in anchoring.warning(nights.registry.history())


def test_the_lead_of_the_best_of_several_is_not_proven_without_a_budget_either(nights):
    """Every model on the same requests counts, and those that `trials` says it was chosen from."""
    nights.decide("first", 1.0)
    policy = {"loss_budget": None, "superior": True, "promote": False}
    one = nights.decide("one", 1.04, **policy)
    assert status(one, "better than the champion") == "pass"
    nights.night -= 1  # the same night again, with a policy that knows of a hundred others
    chosen = nights.decide("chosen", 1.04, trials=100, **policy)
    effect = {each.name: each.effect for each in chosen.checks}["better than the champion"]
    before = {each.name: each.effect for each in one.checks}["better than the champion"]
    assert effect.mean == pytest.approx(before.mean)
    assert effect.low < before.low
    assert status(chosen, "better than the champion") == "insufficient data"
    assert chosen.outcome == "insufficient_data"

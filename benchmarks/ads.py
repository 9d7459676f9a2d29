"""Chances of clicks and conversions on synthetic ads, served, against the planted ones; with two baselines.

Shapes: N impressions.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
LABELS = ("click", "conversion")
DECILES = 10
PRIOR_IMPRESSIONS = 50  # with which the click share of a campaign is smoothed
COLUMNS = ("AUC", "log loss", "calibration error", "worst decile")


@dataclass(frozen=True)
class Impressions:
    """What some exposures showed: per impression its user, time, campaign, history of clicks, and what happened."""

    users: list[str]
    times: list[int]
    campaigns: list[str]
    histories: list[list[str]]
    happened: dict[str, Doubles]  # label -> [N] 0 or 1

    @classmethod
    def read(cls, features: Path, *splits: str) -> Impressions:
        """The impressions of these splits."""
        import pyarrow.parquet as parquet

        columns = ["split", "user_id", "at", "items", "history_items", *(f"label_{name}" for name in LABELS)]
        rows = parquet.read_table(features / "exposures.parquet", columns=columns).to_pylist()
        each = [(row, n) for row in rows if row["split"] in splits for n in range(len(row["items"]))]
        return cls(
            [row["user_id"] for row, _ in each],
            [round(row["at"]) for row, _ in each],
            [row["items"][n] for row, n in each],
            [row["history_items"] for row, _ in each],
            {name: np.array([row[f"label_{name}"][n] for row, n in each], np.float64) for name in LABELS},
        )

    @property
    def keys(self) -> list[tuple[str, int, str]]:
        """What identifies each impression in the file of planted chances."""
        return list(zip(self.users, self.times, self.campaigns, strict=True))


def main() -> None:
    """Run the recipe for each seed and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workspace", type=Path, default=Path(".rankline-ads-benchmark"))
    arguments = parser.parse_args()
    print(table([measure(arguments.workspace.resolve() / f"seed-{seed}", seed=seed) for seed in arguments.seeds]))


def measure(workspace: Path, *, seed: int) -> dict[str, dict[str, Any]]:
    """System -> label and measure -> value, on the test impressions of a log and a model with this seed."""
    from pipelines.assets import synthetic_ads

    data = workspace / "log"
    if not data.is_dir():
        data.mkdir(parents=True)
        synthetic_ads.write_ads(data, seed=seed)
    steps = _run(workspace, [f"ingest.source={data}", f"finetune.seed={seed}", f"distill.seed={seed}"])
    features = Path(steps["featurize"]["features"])
    known, test = Impressions.read(features, "train", "valid"), Impressions.read(features, "test")
    planted = _planted(data / synthetic_ads.TRUTH_FILE, test)
    chances = {
        "Rankline, served": served_chances(Path(steps["export"]["bundle"]), features, test, workspace / "server"),
        "logistic regression": {name: logistic_regression(known, test, name) for name in LABELS},
        "click share of the campaign": {name: popularity(known, test, name) for name in LABELS},
        "the planted chances": planted,
    }
    return {system: _measures(each, test, planted) for system, each in chances.items()}


def _run(workspace: Path, settings: list[str]) -> dict[str, dict[str, str]]:
    """Step -> its paths, of a run of the recipe with these settings; finished steps are reused."""
    from cli.runs.progress import Screen
    from pipelines.recipes import named
    from pipelines.runs.runner import run

    recipe = named("ads", settings)
    with Screen(workspace, recipe.name) as screen:
        summary = run(recipe, workspace, watch=screen)
    return {step["step"]: step.get("paths", {}) for step in summary["steps"]}


def _planted(path: Path, test: Impressions) -> dict[str, Doubles]:
    """Label -> [N] its planted chance in the mean over the positions; a conversion's includes that of the click."""
    import pyarrow.csv as csv

    rows = csv.read_csv(path).to_pylist()
    chances = {(row["user"], row["shown_at"], row["campaign"]): row for row in rows}
    matching = [chances[key] for key in test.keys]
    click_N = np.array([row["click_anywhere"] for row in matching])
    return {"click": click_N, "conversion": click_N * np.array([row["conversion_of_click"] for row in matching])}


def served_chances(bundle: Path, features: Path, test: Impressions, folder: Path) -> dict[str, Doubles]:
    """Label -> [N] the chance that the real server answers for each impression."""
    from components.evaluate import replay
    from rankline.runtime.server_process import serving

    chosen = replay.sample_requests(features, split="test", max_requests=0, seed=0, file="exposures.parquet")
    answered: dict[tuple[str, int, str], Mapping[str, float]] = {}
    settings = {"precision": "fp32", "start_timeout_s": 60.0, "request_timeout_s": 60.0, "connections": 1}
    with serving(bundle, folder=folder, **settings) as server:  # type: ignore[arg-type]
        for request, exposure in replay.read_exposures(features, split="test", chosen=chosen):
            answer = server.post("/v1/rank", request.body(candidates=exposure.items))
            key = exposure.request.user_id or "", round(exposure.request.state.at)
            answered |= {(*key, item["item_id"]): item["heads"] for item in answer["items"]}
    heads = [answered[key] for key in test.keys]
    return {name: np.array([each[name] for each in heads]) for name in LABELS}


def popularity(known: Impressions, test: Impressions, label: str) -> Doubles:
    """[N] how often the label happened of each campaign's impressions, smoothed by the mean of all."""
    mean = float(known.happened[label].mean())
    counts: dict[str, list[float]] = {}
    for campaign, happened in zip(known.campaigns, known.happened[label], strict=True):
        counts.setdefault(campaign, []).append(float(happened))
    share = {
        name: (sum(each) + PRIOR_IMPRESSIONS * mean) / (len(each) + PRIOR_IMPRESSIONS) for name, each in counts.items()
    }
    return np.array([share.get(name, mean) for name in test.campaigns])


def logistic_regression(known: Impressions, test: Impressions, label: str) -> Doubles:
    """[N] of the campaign, and of how much of the user's earlier clicks are of its topic."""
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(DictVectorizer(), LogisticRegression(max_iter=1000))
    model.fit(_features(known), known.happened[label])
    return np.asarray(model.predict_proba(_features(test))[:, 1])


def _features(impressions: Impressions) -> list[dict[str, Any]]:
    rows = []
    for campaign, history in zip(impressions.campaigns, impressions.histories, strict=True):
        topic = campaign.partition("-")[0]
        same = sum(each.partition("-")[0] == topic for each in history)
        share = same / len(history) if history else 0.0
        rows.append(
            {"campaign": campaign, "topic share": share, "clicks of topic": np.log1p(same), "any": bool(history)}
        )
    return rows


def _measures(chances: Mapping[str, Doubles], test: Impressions, planted: Mapping[str, Doubles]) -> dict[str, Any]:
    from sklearn.metrics import log_loss, roc_auc_score

    measures: dict[str, Any] = {}
    for name in LABELS:
        deciles = by_decile(chances[name], planted[name])
        gaps = [abs(served - truth) for served, truth in deciles]
        measures[name] = {
            "AUC": float(roc_auc_score(test.happened[name], chances[name])),
            "log loss": float(log_loss(test.happened[name], np.clip(chances[name], 1e-7, 1 - 1e-7))),
            "calibration error": float(np.mean(gaps)),
            "worst decile": max(gaps),
            "deciles": deciles,
        }
    return measures


def by_decile(chance_N: Doubles, planted_N: Doubles) -> list[tuple[float, float]]:
    """The mean chance and the mean planted chance of each tenth of the impressions, by their chance."""
    parts = np.array_split(np.argsort(chance_N, kind="stable"), DECILES)
    return [(float(chance_N[part].mean()), float(planted_N[part].mean())) for part in parts]


def table(seeds: Sequence[Mapping[str, Mapping[str, Any]]]) -> str:
    """The mean over seeds of each measure, per label and system, and the deciles of the served chance of a click."""
    lines = []
    for label in LABELS:
        lines += ["", f"| {label} | {' | '.join(COLUMNS)} |", "| --- " * (len(COLUMNS) + 1) + "|"]
        for system in seeds[0]:
            values = [[seed[system][label][column] for seed in seeds] for column in COLUMNS]
            cells = [f"{np.mean(each):.4f} [{min(each):.4f}, {max(each):.4f}]" for each in values]
            lines.append(f"| {system} | {' | '.join(cells)} |")
    deciles = np.mean([seed["Rankline, served"]["click"]["deciles"] for seed in seeds], axis=0)
    lines += ["", f"| tenth | {' | '.join(str(n + 1) for n in range(DECILES))} |", "| --- " * (DECILES + 1) + "|"]
    for name, values_D in zip(("served", "planted"), deciles.T, strict=True):
        lines.append(f"| {name} | {' | '.join(f'{value:.3f}' for value in values_D)} |")
    return "\n".join(lines).strip()


if __name__ == "__main__":
    main()

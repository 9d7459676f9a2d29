"""The table of an ablation: what each part adds, with paired intervals over the seeds pooled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from pipelines.ablation.cells import BASE, Ablation, Cell
from pipelines.ablation.parts import Part
from rankline.contracts import FrozenModel
from rankline.evaluation.report import CANDIDATE, Estimate
from rankline.gates.clusters import Clustered
from rankline.gates.evidence import read_evidence
from rankline.io.files import write_json

JSON, MARKDOWN, PAGE = "ablation.json", "ablation.md", "ablation.html"
RESAMPLES = 2000
Finding = Literal["helps", "harms", "not proven", "not run", "does not apply"]


class Row(FrozenModel):
    """What a part adds: the recipe with it minus the recipe without it."""

    part: str
    change: str = Field(description="what its cells change")
    in_recipe: bool = Field(description="whether the recipe has the part")
    finding: Finding
    adds: Estimate = Estimate()
    with_part: float | None = None
    without_part: float | None = None
    requests: int = 0
    seeds: tuple[int, ...] = ()
    why: str = Field(default="", description="why it does not apply")


class Table(FrozenModel):
    """An ablation of a recipe."""

    recipe: str
    metric: str
    rows: list[Row]


def make_table(ablation: Ablation, parts: Sequence[Part], seeds: int) -> Table:
    """The table of the cells that have run."""
    metric = ablation.recipe.evaluate.primary
    return Table(
        recipe=ablation.recipe.name,
        metric=metric,
        rows=[_row(ablation, part, seeds, metric) for part in parts],
    )


def _row(ablation: Ablation, part: Part, seeds: int, metric: str) -> Row:
    known = {"part": part.name, "change": part.change, "in_recipe": part.is_on}
    if part.not_applicable:
        return Row(**known, finding="does not apply", why=part.not_applicable)
    done = [
        seed
        for seed in range(seeds)
        if ablation.result(Cell(BASE, seed)) is not None and ablation.result(Cell(part, seed)) is not None
    ]
    if not done:
        return Row(**known, finding="not run")
    differences, clusters, means = [], list[str](), list[tuple[float, float]]()
    for seed in done:
        base, changed = (read_evidence(ablation.cell_folder(Cell(each, seed))) for each in (BASE, part))
        base_R, changed_R = base.scores[metric][CANDIDATE], changed.scores[metric][CANDIDATE]
        with_R, without_R = (base_R, changed_R) if part.is_on else (changed_R, base_R)
        differences.append(with_R - without_R)
        clusters += base.clusters  # a user is one cluster over all seeds: seeds are no new users
        means.append((float(with_R.mean()), float(without_R.mean())))
    pooled_R = np.concatenate(differences)
    effect = Clustered.of(pooled_R[:, None], clusters).effects(resamples=RESAMPLES, seed=0)[0]
    finding: Finding = "helps" if effect.low > 0 else "harms" if effect.high < 0 else "not proven"
    with_part, without_part = np.mean(means, axis=0).tolist()
    return Row(
        **known,
        finding=finding,
        adds=Estimate(mean=effect.mean, low=effect.low, high=effect.high),
        with_part=with_part,
        without_part=without_part,
        requests=len(pooled_R),
        seeds=tuple(done),
    )


def markdown(table: Table) -> str:
    """The table as Markdown."""
    lines = [
        f"What each part of the recipe {table.recipe} adds: {table.metric} with it minus without it, by request.",
        "",
        f"| part | in the recipe | its cells | {table.metric} with | without | adds | finding | seeds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in table.rows:
        adds, numbers = "", ["", ""]
        if row.adds.mean is not None:
            adds = f"{row.adds.mean:+.4f} [{row.adds.low:+.4f}, {row.adds.high:+.4f}]"
            numbers = [f"{value:.4f}" for value in (row.with_part, row.without_part) if value is not None]
        finding = f"{row.finding}: {row.why}" if row.why else row.finding
        cells = [row.part, "yes" if row.in_recipe else "no", row.change, *numbers, adds, finding, str(len(row.seeds))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_table(folder: Path, table: Table) -> None:
    """Write ablation.json, ablation.md and ablation.html."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from rankline.evidence.plots import effect_plot

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / JSON, table.model_dump(mode="json"))
    (folder / MARKDOWN).write_text(markdown(table))
    effects = {row.part: row.adds for row in table.rows if row.adds.mean is not None}
    plot = effect_plot(effects, f"what each part adds to {table.metric}") if effects else ""
    environment = Environment(
        loader=PackageLoader("pipelines.ablation", "."), autoescape=True, undefined=StrictUndefined
    )
    (folder / PAGE).write_text(environment.get_template(PAGE).render(table=table, plot=plot))

"""The plots of the evidence page: inline SVG whose colours follow the page, light or dark."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rankline.evaluation.report import ANCHOR, CANDIDATE, CHAMPION, Estimate, Report
from rankline.evaluation.system_names import display_name
from rankline.evidence.comparisons import one_line
from rankline.evidence.run_facts import Curve
from rankline.io.svg import AMBER, BLUE, FAINT, GRID, INK, PURPLE, figure, style, svg

GREEN, OTHER = "#15803d", "#8a95a3"
COLOURS = {CANDIDATE: BLUE, CHAMPION: AMBER, ANCHOR: GREEN, "teacher": PURPLE}
# colour of matplotlib -> variable of the page, which has another value where the page is dark
VARIABLES = {
    INK: "--ink", FAINT: "--faint", GRID: "--line", BLUE: "--candidate", AMBER: "--champion", GREEN: "--anchor",
    PURPLE: "--teacher", OTHER: "--other",
}  # fmt: skip
MAX_ROWS, MAX_NAME, MAX_TICKS = 30, 48, 8
_ID = re.compile(r'(?<= id=")[^"]+|(?<=url\(#)[^)]+|(?<=href="#)[^"]+')


def variable(name: str) -> str:
    """The page's variable with a system's colour."""
    return VARIABLES[COLOURS.get(name, OTHER)]


def metric_plots(report: Report, metrics: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(metric, plot): the mean and interval of every system, the best first."""
    for n, metric in enumerate(metrics):
        rows = {name: system.metrics[metric] for name, system in report.systems.items() if metric in system.metrics}
        ordered = sorted(rows, key=lambda name: -(rows[name].mean or 0.0))
        plot = _intervals({name: rows[name] for name in ordered}, f"{metric}: mean and interval of each system")
        yield metric, _inline(plot, f"m{n}")


def difference_plot(differences: Mapping[str, Estimate], metric: str) -> str:
    """Candidate minus each other system, paired by request."""
    return effect_plot(differences, f"candidate minus each other system, {metric}")


def effect_plot(effects: Mapping[str, Estimate], label: str) -> str:
    """Effects with their intervals, beside zero."""
    return _inline(_intervals(effects, label, zero=True), "d")


def slice_plot(rows: Mapping[str, Mapping[str, float | None]], systems: Sequence[str], metric: str) -> str:
    """The metric of some systems by slice; slice -> system -> mean."""
    shown = list(rows)[:MAX_ROWS]
    with _drawing():
        fig, axes = figure(0.32 * len(shown) + 1.0, width=9.0)
        for name in reversed(systems):
            points = [(rows[each].get(name), y) for y, each in enumerate(shown)]
            known = [(value, y) for value, y in points if value is not None]
            x, y = zip(*known, strict=True) if known else ((), ())
            size = 8 if name == CANDIDATE else 6
            axes.plot(x, y, "o", color=COLOURS.get(name, OTHER), markersize=size, label=display_name(name))
        _rows(axes, [one_line(each, MAX_NAME) for each in shown])
        axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
        axes.set_xlabel(metric)
        handles, names = axes.get_legend_handles_labels()
        axes.legend(
            handles[::-1], names[::-1], frameon=False, labelcolor=INK, loc="center left", bbox_to_anchor=(1, 0.5)
        )
        return _inline(svg(fig, f"{metric} by slice"), "s")


def curve_plots(curves: Mapping[str, Curve]) -> Iterator[tuple[str, str]]:
    """(step and part, plot): each value of the training curves by epoch, losses and metrics apart."""
    for n, (name, curve) in enumerate(curves.items()):
        series = _series(curve)
        groups = [[key for key in series if ("loss" in key) == is_loss] for is_loss in (True, False)]
        with _drawing():
            for part, keys in enumerate(filter(None, groups)):
                fig, axes = figure(2.5, width=4.4)
                for key, colour in zip(keys, (BLUE, AMBER, PURPLE, GREEN, OTHER), strict=False):
                    axes.plot(
                        *zip(*series[key], strict=True), "o-", color=colour, linewidth=1.8, markersize=3.5, label=key
                    )
                axes.set_xlabel("epoch")
                epochs = sorted({epoch for key in keys for epoch, _ in series[key]})
                axes.set_xticks(epochs[:: math.ceil(len(epochs) / MAX_TICKS)])
                axes.legend(frameon=False, labelcolor=INK)
                yield name, _inline(svg(fig, f"{name}: {', '.join(keys)} by epoch"), f"c{n}{part}")


def _series(curve: Curve) -> dict[str, list[tuple[float, float]]]:
    """Value -> (epoch, value) of the points that have it."""
    series: dict[str, list[tuple[float, float]]] = {}
    for number, point in enumerate(curve):
        for key, value in point.items():
            if key != "epoch" and isinstance(value, int | float) and math.isfinite(value):
                series.setdefault(key, []).append((point.get("epoch", number), value))
    return series


def _intervals(rows: Mapping[str, Estimate], label: str, *, zero: bool = False) -> str:
    """Means with their intervals, one row for each system."""
    with _drawing():
        fig, axes = figure(0.36 * len(rows) + 0.75, width=5.4)
        for y, (name, row) in enumerate(rows.items()):
            if row.mean is None:
                continue
            colour = COLOURS.get(name, OTHER)
            low, high = row.mean if row.low is None else row.low, row.mean if row.high is None else row.high
            axes.plot([low, high], [y, y], color=colour, linewidth=2.2, solid_capstyle="round")
            axes.plot([row.mean], [y], "o", color=colour, markersize=7)
            text = f"{row.mean:+.3f}" if zero else f"{row.mean:.3f}"
            place = {"xytext": (7, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(text, (high, y), color=INK, **place)
        if zero:
            axes.axvline(0, color=INK, linewidth=1)
        _rows(axes, [display_name(name) for name in rows])
        axes.margins(x=0.15)
        axes.set_xlabel(label.partition(":")[0])
        return svg(fig, label)


def _rows(axes: Any, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


@contextmanager
def _drawing() -> Iterator[None]:
    """The style of the plots; names in scripts that matplotlib has no font for are drawn by the browser."""
    with style(named_rows=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _inline(text: str, prefix: str) -> str:
    """An SVG with the page's colours, and ids that no other one on the page has."""
    text = _ID.sub(lambda match: f"{prefix}-{match[0]}", text)
    for colour, name in VARIABLES.items():
        text = text.replace(colour, f"var({name})")
    return text

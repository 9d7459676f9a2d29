"""The HTML report: one self-contained file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.evaluate.scores import length_suffix
from rankline.evaluation.metrics import Reliability
from rankline.evaluation.report import CANDIDATE, CHAMPION, CONTROL, SOURCE, Report, SliceScores
from rankline.evaluation.system_names import display_name
from rankline.io.svg import AMBER, BLUE, FAINT, INK, PURPLE, figure, style, svg

PAGE = "report.html"

# One colour per role, the same in every plot and table.
COLOURS = {CANDIDATE: BLUE, CHAMPION: AMBER, "teacher": PURPLE}
OTHER_COLOUR = "#9aa5b1"


@dataclass(frozen=True)
class Example:
    """A request's history, its targets, and each system's list as (title, whether it is a target)."""

    label: str
    history: list[str]
    targets: list[str]
    lists: dict[str, list[tuple[str, bool]]]


@dataclass(frozen=True)
class PageData:
    """What only the page shows."""

    latency_ms: list[float]
    reliability: Reliability | None
    examples: list[Example]


def write_page(folder: Path, report: Report, page_data: PageData) -> None:
    """Write ``report.html``: tables, plots and examples in one self-contained file."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("components.evaluate", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "display_name": display_name, "bytes": size, "colour": colour}
    primary = report.details["primary"]
    ranked = sorted(report.systems, key=lambda name: -(report.systems[name].metrics[primary].mean or 0.0))
    html = environment.get_template("report.html").render(
        report=report,
        primary=primary,
        systems=ranked,
        metrics=_columns(report, primary),
        shapes=list(report.systems[CANDIDATE].lists),
        differences=report.details["differences"],
        left_out=report.details["baselines"]["left_out"],
        small_slices={name: part for name, part in report.slices.items() if name not in scored_slices(report, primary)},
        page=page_data,
        plots=_plots(report, page_data, primary, ranked),
    )
    (folder / PAGE).write_text(html)


def number(value: float | None, digits: int = 3) -> str:
    """A number with some digits; "n/a" if it was not measured."""
    return "n/a" if value is None else f"{value:.{digits}f}"


def size(value: int | None) -> str:
    """Bytes as megabytes."""
    return "n/a" if value is None else f"{value / 1e6:.1f} MB"


def colour(name: str) -> str:
    """A system's colour."""
    return COLOURS.get(name, OTHER_COLOUR)


def _columns(report: Report, primary: str) -> list[str]:
    """The metrics of the main table: those at the primary's length, then recall at the longest."""
    suffix = length_suffix(primary)
    names = list(report.systems[CANDIDATE].metrics)
    chosen = [primary] + [name for name in names if name.endswith(suffix) and name != primary]
    longest = max(names, key=lambda name: int(name.partition("@")[2])).partition("@")[2]
    return chosen + [f"recall@{longest}"] * (f"recall@{longest}" not in chosen)


def _plots(report: Report, page_data: PageData, primary: str, ranked: Sequence[str]) -> dict[str, str]:
    """Plot name -> inline SVG, whose text can be selected and has the page's font."""
    with style(named_rows=True):
        plots = {
            "scores": _forest({name: report.systems[name].metrics[primary].model_dump() for name in ranked}, primary),
            "latency": _latency(report, page_data.latency_ms),
        }
        differences = report.details["differences"]
        if differences:
            plots["differences"] = _forest(
                {name: differences[name][primary] for name in ranked if name != CANDIDATE},
                f"candidate minus the other, {primary}",
                zero=True,
            )
        if scored_slices(report, primary):
            plots["slices"] = _slices(report, primary, ranked)
        if page_data.reliability:
            plots["calibration"] = _calibration(page_data.reliability, calibrated="chance_ece" in report.calibration)
    return plots


def scored_slices(report: Report, primary: str) -> dict[str, SliceScores]:
    """The slices that are not too small for scores."""
    return {name: part for name, part in report.slices.items() if part.systems[CANDIDATE][primary] is not None}


def _forest(rows: Mapping[str, Mapping[str, float | None]], label: str, *, zero: bool = False) -> str:
    """Means with their intervals, one row per system."""
    fig, axes = figure(0.36 * len(rows) + 0.7)
    for y, (name, row) in enumerate(rows.items()):
        mean, low, high = row["mean"], row["low"], row["high"]
        if mean is None or low is None or high is None:
            continue
        line_colour = colour(name)
        axes.plot([low, high], [y, y], color=line_colour, linewidth=2.2, solid_capstyle="round")
        axes.plot([mean], [y], "o", color=line_colour, markersize=7)
        axes.annotate(
            f"{mean:+.3f}" if zero else f"{mean:.3f}",
            (high, y),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=INK,
        )
    if zero:
        axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(range(len(rows)), [display_name(name) for name in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.margins(x=0.12)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(label)
    return svg(fig, label)


def _slices(report: Report, primary: str, ranked: Sequence[str]) -> str:
    """The primary metric by slice, with candidate and champion on top."""
    drawn_slices = scored_slices(report, primary)
    fig, axes = figure(0.34 * len(drawn_slices) + 1.1, width=9.6)
    drawn = [
        name
        for name in reversed(ranked)
        if name not in (CANDIDATE, CHAMPION) and not name.startswith((SOURCE, CONTROL))
    ]
    drawn += [name for name in (CHAMPION, CANDIDATE) if name in ranked]
    marks = dict(zip([n for n in drawn if n not in COLOURS], "sD^vP*Xhd<>8p"))
    for name in drawn:
        values = [part.systems[name][primary] for part in drawn_slices.values()]
        axes.plot(
            values,
            range(len(values)),
            marks.get(name, "o"),
            color=colour(name),
            markersize=8 if name == CANDIDATE else 5.5,
            label=display_name(name),
            alpha=1.0 if name in COLOURS else 0.75,
        )
    labels = [f"{name}  ({part.requests})" for name, part in drawn_slices.items()]
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlim(left=min(0, axes.get_xlim()[0]))
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(primary)
    handles, names = axes.get_legend_handles_labels()
    beside = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
    axes.legend(handles[::-1], names[::-1], frameon=False, labelcolor=INK, **beside)
    return svg(fig, f"{primary} by slice")


def _calibration(reliability: Reliability, *, calibrated: bool) -> str:
    """Predicted probabilities against outcomes; a dot's area is the size of its bin.

    The probabilities of a calibrated model are that an item is a target, others that a target is liked.
    """
    fig, axes = figure(3.4, width=4.6)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    area = 20 + 380 * reliability.count_B / reliability.count_B.max()
    axes.plot(reliability.mean_score_B, reliability.positive_share_B, color=COLOURS[CANDIDATE], linewidth=1, alpha=0.5)
    axes.scatter(reliability.mean_score_B, reliability.positive_share_B, s=area, color=COLOURS[CANDIDATE], alpha=0.85)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    axes.set(xlabel="predicted probability", ylabel="share of targets" if calibrated else "share of liked targets")
    axes.yaxis.label.set_color(FAINT)
    return svg(fig, "predicted probabilities against outcomes")


def _latency(report: Report, latency_ms: Sequence[float]) -> str:
    """A histogram of answer times; far outliers are counted, not drawn, so that the rest stays visible."""
    fig, axes = figure(3.4, width=4.6)
    limit = 1.5 * (report.latency.p95_ms or max(latency_ms))
    beyond = sum(taken > limit for taken in latency_ms)
    axes.hist(latency_ms, bins=30, range=(0, limit), color=COLOURS[CANDIDATE], alpha=0.85)
    axes.margins(y=0.12)
    top = axes.get_ylim()[1]
    for label, value in (("p50", report.latency.p50_ms), ("p95", report.latency.p95_ms)):
        if value is not None:
            axes.axvline(value, color=INK, linewidth=1)
            axes.text(value, top, f" {label}", va="top", color=INK)
    axes.grid(axis="x", visible=False)
    axes.set(xlabel="milliseconds per answer" + f" ({beyond} beyond)" * bool(beyond), ylabel="requests")
    return svg(fig, "latency")

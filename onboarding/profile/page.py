"""The profile as one self-contained HTML page with plots."""

from __future__ import annotations

from collections.abc import Sequence

from onboarding.profile.profile import Profile
from rankline.io.svg import AMBER, BLUE, PURPLE, figure, style, svg

COLOURS = {"users": BLUE, "items": AMBER, "queries": PURPLE}


def render_page(profile: Profile, *, title: str) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("onboarding.profile", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"whole": lambda value: f"{value:,.0f}", "share": lambda value: f"{value:.0%}"}
    return environment.get_template("page.html").render(profile=profile, title=title, plots=_plots(profile))


def _plots(profile: Profile) -> dict[str, str]:
    """Name -> inline SVG. Text stays text, so that it can be selected and takes the font of the page."""
    plots = {}
    with style(named_rows=False):
        if profile.days:
            plots["days"] = _plot_days(profile.days)
            plots["hours"] = _plot_bars(
                [f"{hour}" for hour in range(24)], profile.hours, "events per hour of the day (UTC)"
            )
        if profile.tails:
            plots["tails"] = _plot_tails(profile)
        for label, values in profile.labels.items():
            plots[f"label {label}"] = _plot_bars(list(values), list(values.values()), f"events by {label}")
    return plots


def _plot_days(days: Sequence[tuple[str, int]]) -> str:
    """Events per day, with the mean of the last seven days."""
    import numpy as np

    canvas, axes = figure(2.6, 12.0)
    dates = np.array([day for day, _ in days], dtype="datetime64[D]")
    counts = np.array([events for _, events in days], dtype=float)
    axes.fill_between(dates, counts, step="mid", color=BLUE, alpha=0.25, linewidth=0)
    if len(counts) >= 14:
        mean = np.convolve(counts, np.ones(7) / 7, mode="valid")
        axes.plot(dates[6:], mean, color=BLUE, linewidth=1.8, label="7-day mean")
        axes.legend(frameon=False, loc="upper left")
    axes.set_ylim(0)
    axes.set_ylabel("events per day")
    axes.margins(x=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return svg(canvas, "events per day")


def _plot_bars(names: list[str], values: Sequence[int], label: str) -> str:
    canvas, axes = figure(2.5)
    axes.bar(range(len(names)), values, color=BLUE, width=0.7)
    axes.set_xticks(range(len(names)), names, rotation=0 if max(map(len, names)) < 5 else 30)
    axes.grid(axis="x", visible=False)
    axes.set_xlabel(label)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return svg(canvas, label)


def _plot_tails(profile: Profile) -> str:
    """The share of events that belongs to the busiest; a straight line would mean that all are alike."""
    canvas, axes = figure(3.2)
    for table, tail in profile.tails.items():
        x, y = zip(*tail.curve, strict=True)
        axes.plot(x, y, "o-", color=COLOURS[table], linewidth=2, markersize=4, label=table)
    axes.set_xscale("log")
    axes.set_xlim(0.001, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xticks([0.001, 0.01, 0.1, 1], ["0.1%", "1%", "10%", "100%"])
    axes.minorticks_off()
    axes.tick_params(axis="x", pad=8)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("share of the busiest")
    axes.set_ylabel("share of the events")
    axes.legend(frameon=False)
    return svg(canvas, "share of events of the busiest users and items")

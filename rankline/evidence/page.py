"""The evidence page of a candidate: one HTML file without scripts that loads nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from rankline.evaluation.system_names import display_name
from rankline.evidence import plots
from rankline.evidence.subject import Subject
from rankline.utc import parse_utc

EVIDENCE_PAGE = "evidence.html"
TEMPLATE = "evidence.html"
OUTCOMES = {
    "promote": "Promote",
    "pending": "Waits for a reviewer",
    "refused": "Refused",
    "insufficient_data": "Insufficient data",
    "already_serving": "Serves already",
}
_TIME = "%Y-%m-%d %H:%M UTC"
_ORDER = {"fail": 0, "insufficient data": 1, "pass": 2}


def evidence_page(subject: Subject) -> str:
    """The page as HTML; what is not known is left out, and a sentence says so."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("rankline.evidence", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": _number, "signed": _signed, "bytes": _bytes, "percent": _percent, "time": _time, "date": _date,
        "system": display_name, "variable": plots.variable, "plain": _plain,
    }  # fmt: skip
    page = environment.get_template(TEMPLATE).render(
        subject=subject,
        report=subject.report,
        verdict=subject.verdict,
        run=subject.run,
        outcome=OUTCOMES[subject.verdict.outcome],
        checks=sorted(subject.verdict.checks, key=lambda check: _ORDER[check.status]),
        changes=_changes(subject),
        drawn={name: [(title, Markup(svg)) for title, svg in each] for name, each in _drawn(subject).items()},
        missing=dict(missing(subject)),
        sections=sections(subject),
    )
    return page


def sections(subject: Subject) -> dict[str, str]:
    """Id -> title of the sections that the page has, in their order."""
    titles = {
        "reasons": "Gates",
        "scores": "Scores",
        "differences": "Against each other system",
        "slices": "Slices",
        "comparisons": "Wins and losses",
        "calibration": "Calibration",
        "serving": "Latency, memory and size",
        "cost": "Cost of the run",
        "data": "Data",
        "training": "Training",
        "lineage": "Lineage",
        "reproduce": "Reproduce it",
    }
    absent = dict(missing(subject))
    return {name: title for name, title in titles.items() if name not in absent}


def missing(subject: Subject) -> Iterator[tuple[str, str]]:
    """(section, why the page does not have it)."""
    report, run = subject.report, subject.run
    no_ledger = "the run's ledger is not where the verdict was given"
    if not subject.verdict.checks:
        yield "reasons", "No gates: there was nothing to decide."
    if not subject.differences:
        yield "differences", "No paired differences: the evaluation has none."
    if not report.slices:
        yield "slices", "No slices: none has enough requests."
    if subject.comparisons is None:
        yield "comparisons", "No wins and losses: the evaluation has no comparisons.json, as of an earlier version."
    if not report.calibration and not report.heads:
        yield "calibration", "No calibration: no head was measured."
    if run is None:
        yield "cost", f"No cost: {no_ledger}."
    if (run is None or run.data is None) and not subject.items:
        yield "data", f"No data differences: {no_ledger}, and the evaluation does not describe the items."
    if run is None or not run.curves:
        yield "training", "No training curves: the outputs of the training steps are not where the verdict was given."
    if run is None or not run.commands:
        yield "reproduce", "No command: the folder of the run does not have its recipe."


def _drawn(subject: Subject) -> dict[str, list[tuple[str, str]]]:
    """Section -> its plots, each with what it shows."""
    drawn = {
        "scores": list(plots.metric_plots(subject.report, subject.plotted_metrics)),
        "training": list(plots.curve_plots(subject.run.curves if subject.run else {})),
    }
    if subject.differences:
        drawn["differences"] = [(subject.primary, plots.difference_plot(subject.differences, subject.primary))]
    if subject.report.slices:
        rows = {
            f"{name} ({part.requests})": {
                system: part.systems.get(system, {}).get(subject.primary) for system in subject.compared_systems
            }
            for name, part in subject.report.slices.items()
        }
        drawn["slices"] = [(subject.primary, plots.slice_plot(rows, subject.compared_systems, subject.primary))]
    return drawn


def _changes(subject: Subject) -> list[tuple[str, str]]:
    """(what, how much) of the differences between the data and that of the last good run, apart from row counts."""
    data = subject.run.data if subject.run else None
    changes = data.changes if data else {}
    return [
        (name.removesuffix("_drift"), _percent(value)) for name, value in changes.items() if name.endswith("_drift")
    ]


# -- filters ---------------------------------------------------------------------------------------------------


def _number(value: float | None, digits: int = 3) -> str:
    return "not measured" if value is None else f"{value:.{digits}f}"


def _signed(value: float | None, digits: int = 4) -> str:
    return "not measured" if value is None else f"{value:+.{digits}f}"


def _percent(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1%}"


def _bytes(value: int | None) -> str:
    return "not measured" if value is None else f"{value / 1e6:.1f} MB"


def _time(value: float) -> str:
    try:
        return datetime.fromtimestamp(value, UTC).strftime(_TIME)
    except (ValueError, OverflowError, OSError):
        return "at an unknown time"


def _date(value: str) -> str:
    """An ISO time as the page writes times; a date, or another text of the data, as it is."""
    try:
        return parse_utc(value).strftime(_TIME) if "T" in value else value
    except ValueError:
        return value


def _plain(value: Any) -> str:
    """An observed value or a feature, with four digits that count."""
    if value is None:
        return "not measured"
    return f"{value:.4g}" if isinstance(value, float) else str(value)

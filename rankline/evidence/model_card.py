"""The model card of a candidate (Mitchell et al. 2019): MODEL_CARD.md, whose numbers are those of the report."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rankline.evaluation.report import CANDIDATE, CHAMPION, Estimate
from rankline.evidence.page import OUTCOMES
from rankline.evidence.run_facts import RunFacts
from rankline.evidence.subject import Subject

MODEL_CARD = "MODEL_CARD.md"
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~$])")


def model_card(subject: Subject) -> str:
    """The card as Markdown."""
    parts = [_title, _intended_use, _data, _model, _metrics, _fairness, _limits, _reproduce]
    return "\n\n".join("\n".join(part(subject)) for part in parts) + "\n"


def _title(subject: Subject) -> Iterator[str]:
    verdict = subject.verdict
    yield f"# Model {_code(verdict.model_id)}"
    yield ""
    yield f"{OUTCOMES[verdict.outcome]}: {_text(verdict.sentence)}"
    if subject.warning:
        yield ""
        yield f"**The champion was {_text(subject.warning)}.**"


def _intended_use(subject: Subject) -> Iterator[str]:
    manifest = subject.manifest
    yield "## Intended use"
    yield ""
    asked = "queries, users and items" if manifest.text else "users and items"
    yield (
        f"It ranks the items of the catalogue {_code(manifest.catalogue or '(no name)')} for {asked}, behind the "
        "server of Rankline. It knows no other catalogue. Its scores order items for one request; only calibrated "
        "chances can be compared between requests. It is not meant for decisions about people."
    )


def _data(subject: Subject) -> Iterator[str]:
    manifest, report, run = subject.manifest, subject.report, subject.run
    yield "## Data"
    yield ""
    yield f"- Test requests: {report.requests}, {_held_out(run)}"
    if (data := run.data if run else None) is not None:
        yield "- Rows: " + ", ".join(f"{count} {_text(name)}" for name, count in data.rows.items())
        if data.first and data.last:
            yield f"- Events from {_text(data.first)} to {_text(data.last)}"
    if "count" in subject.items:
        yield f"- Items: {subject.items['count']}"
    if "training_events" in subject.items:
        yield f"- Training events: {subject.items['training_events']}"
    if subject.languages:
        languages = (f"{_text(name)} ({count})" for name, count in subject.languages.items())
        yield "- Languages of the items: " + ", ".join(languages)
    yield f"- Last training event known at {_text(manifest.train_end)}; the data ends at " + (
        _text(manifest.data_end) or "an unknown time"
    )
    yield f"- Digest: {_code(manifest.data_digest)}"


def _held_out(run: RunFacts | None) -> str:
    """What is known of the test requests' times, by the split."""
    if run is None:
        return "held out from the training"
    if run.settings.get("featurize.split") == '"time_cut"':
        return "all later than every training event"
    return "each later than its own user's history; the training events of other users may be later"


def _model(subject: Subject) -> Iterator[str]:
    manifest, report = subject.manifest, subject.report
    features = manifest.features
    yield "## Model"
    yield ""
    yield f"- Recipe {_text(report.recipe)}, code {_code(manifest.code_digest)}"
    yield f"- Heads: {', '.join(map(_text, manifest.heads))}"
    yield f"- Vectors of {manifest.vector_size} numbers; histories of up to {manifest.max_history} items"
    if manifest.text:
        yield f"- Texts of up to {manifest.text.max_tokens} tokens"
    yield f"- {len(features.columns)} features of the service {_text(features.service)}"
    yield f"- Precisions: {', '.join(map(_text, manifest.precisions))}"
    if report.model.size_bytes is not None:
        yield f"- Size: {report.model.size_bytes / 1e6:.1f} MB"
    if subject.started_from not in ("", "scratch"):
        yield f"- Training began with the weights of model {_code(subject.started_from)}"


def _metrics(subject: Subject) -> Iterator[str]:
    report = subject.report
    shown = [name for name in (CANDIDATE, CHAMPION) if name in report.systems]
    shown += [subject.strongest_baseline] if subject.strongest_baseline else []
    yield "## Metrics"
    yield ""
    yield f"Means over {report.requests} requests, with intervals. The baseline is the strongest one."
    yield ""
    rows = [
        [_text(metric), *(_estimate(report.systems[name].metrics.get(metric)) for name in shown)]
        for metric in subject.metrics
    ]
    yield from _table(["metric", *map(_text, shown)], rows)
    if report.latency.p95_ms is not None:
        where = f" on {report.latency.provider}" if report.latency.provider else ""
        yield ""
        yield f"95% of the answers take at most {report.latency.p95_ms:.1f} ms{where} on the machine that evaluated."
    for name, head in report.heads.items():
        yield ""
        yield f"Head {_text(name)}, {head.impressions} impressions: " + ", ".join(
            f"{_text(metric)} {value:.4g}" for metric, value in head.metrics.items() if value is not None
        )


def _fairness(subject: Subject) -> Iterator[str]:
    yield "## Fairness"
    yield ""
    if not subject.groups:
        yield "The evaluation has no two groups with enough requests to compare."
        return
    yield f"{_text(subject.primary)} of the candidate by group of requests. The gap is from best to worst."
    yield ""
    rows = [
        [
            _text(name),
            str(group.requests[name]),
            f"{mean:.4f}",
            f"{group.gap:.4f}" if name == group.worst else "",
        ]
        for group in subject.groups
        for name, mean in sorted(group.means.items(), key=lambda entry: -entry[1])
    ]
    yield from _table(["group", "requests", subject.primary, "gap"], rows)


def _limits(subject: Subject) -> Iterator[str]:
    yield "## Limits"
    yield ""
    yield "- It was measured on requests of the past, not by a live experiment."
    yield "- What users were never shown could not be chosen: scores favour items that were shown before."
    if subject.report.parity.requests == 0:
        yield "- The served answers were not compared with torch's."
    for check in subject.verdict.failures:
        status = "Not proven" if check.status == "insufficient data" else "Not met"
        yield f"- {status}: {_text(check.name)}. {_text(check.sentence)}"
    fewest = subject.verdict.policy.slice_min_requests
    if small := [name for name, part in subject.report.slices.items() if part.requests < fewest]:
        yield f"- Fewer than {fewest} requests, so little is known: {', '.join(map(_text, small))}."


def _reproduce(subject: Subject) -> Iterator[str]:
    yield "## Reproduce"
    yield ""
    if subject.run is None or not subject.run.commands:
        yield "The run's folder with its recipe is not where the verdict was given."
        return
    yield "```"
    yield from subject.run.commands
    yield "```"


def _estimate(value: Estimate | None) -> str:
    if value is None or value.mean is None:
        return "not measured"
    interval = f" ({value.low:.4f} to {value.high:.4f})" if value.low is not None and value.high is not None else ""
    return f"{value.mean:.4f}{interval}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (header, ["---"] * len(header), *rows):
        yield f"| {' | '.join(row)} |"


def _text(value: str) -> str:
    """A text of the data in one line, of which Markdown and HTML make nothing."""
    plain = " ".join(value.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", plain)


def _code(value: str) -> str:
    return f"`{' '.join(value.split()).replace('`', '')}`"

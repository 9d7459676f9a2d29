"""The candidates that wait for a review: list and show them, approve or reject one, compare two models."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import WORKSPACE, AsJson, ReadWorkspace, RepositoryUrl, open_registry

if TYPE_CHECKING:
    from rankline.registry.registry_state import Event
    from review.comparison import Difference
    from review.desk import Desk, Evidence
    from review.queue import Candidate

app = typer.Typer(help="Review the candidates that wait: read the evidence, approve or reject.", no_args_is_help=True)

Model = Annotated[str, typer.Argument(help="Model id of the candidate, or the start of one.")]
EvidenceDigest = Annotated[
    str,
    typer.Option("--evidence", help="Digest of the verdict that you read, at least 8 characters (`review show`)."),
]
StoresOf = Annotated[
    str,
    typer.Option(
        "--recipe", "-r",
        help="Recipe whose stores and MLflow are used, by name or module:function. Default: that of the run.",
    ),
]  # fmt: skip


def open_desk(workspace: Path, repository: str, recipe: str = "", **more: Any) -> Desk:
    """The desk of a workspace, or of the registry at a URL; warnings go to standard error. See `Desk` for ``more``."""
    from cli.bucket_copy import bucket_of
    from pipelines.recipes import named
    from review.desk import Desk

    def warn(text: str) -> None:
        typer.secho(f"warning: {text}", fg=typer.colors.YELLOW, err=True)

    registry = open_registry(workspace, repository)
    chosen = named(recipe) if recipe else None
    return Desk(registry, workspace, recipe=chosen, bucket=bucket_of(workspace), warn=warn, **more)


@app.command("list")
def list_(
    all_: Annotated[bool, typer.Option("--all", help="Include those that were decided on.")] = False,
    workspace: ReadWorkspace = WORKSPACE,
    repository: RepositoryUrl = "",
    as_json: AsJson = False,
) -> None:
    """List the candidates that wait for a review, the newest first.

    A run with decide.mode=review ends with such a candidate. One is stale when the champion, its catalogue or the
    bundle changed since it was judged: `rankline evaluate --candidate` measures it again.

    Example: rankline review list, then rankline review show MODEL
    """
    from review.queue import candidates, queue

    history = open_registry(workspace, repository).history()
    listed = candidates(history) if all_ else queue(history)
    if as_json:
        typer.echo(json.dumps([each.model_dump(mode="json") for each in listed], indent=2))
    elif listed:
        typer.echo("\n".join(table(listed)))
    else:
        typer.echo("no candidates yet; a run ends with one" if all_ else "nothing waits for a review")


def table(listed: list[Candidate]) -> list[str]:
    """Candidates as aligned lines, no wider than the terminal."""
    from cli.formats import aligned_lines, fitted

    rows = [("model", "status", "recipe", "judged (UTC)", "evidence", "")]
    for each in listed:
        note = each.changed or each.reason or each.sentence
        rows.append((each.model_id, each.status, each.recipe, each.at[:16].replace("T", " "), each.verdict[:12], note))
    return fitted(aligned_lines(rows))


@app.command("show")
def show(
    model: Model, workspace: ReadWorkspace = WORKSPACE, repository: RepositoryUrl = "", as_json: AsJson = False
) -> None:
    """Show a candidate: its checks, its scores beside the champion's, its evidence, and how to decide.

    The commands that it prints name the evidence by its digest: they are refused if another verdict took its place.

    Example: rankline review show 5468169b
    """
    from review.queue import find

    desk = open_desk(workspace, repository)
    candidate = find(desk.models.history(), model)
    evidence, place = desk.evidence(candidate), _place(workspace, repository)
    if as_json:
        payload = {**_payload(desk, candidate, evidence), "approve": candidate.command + place}
        typer.echo(json.dumps(payload, indent=2))
        return
    typer.echo("\n".join([*_facts(candidate, evidence), *_scores(evidence), *_checks(evidence)]))
    typer.echo("\n".join(_next_steps(desk, candidate, place)))


def _place(workspace: Path, repository: str) -> str:
    """The options that name the workspace and the registry of a command, if they are not the default ones."""
    from cli.bucket_copy import bucket_of

    bucket = bucket_of(workspace)
    named = bucket.url if bucket else "" if workspace == WORKSPACE else str(workspace)
    options = (("-w", named), ("--repository", repository))
    return "".join(f" {option} {shlex.quote(value)}" for option, value in options if value)


def _payload(desk: Desk, candidate: Candidate, evidence: Evidence) -> dict[str, Any]:
    return {
        **candidate.model_dump(mode="json"),
        "policy": evidence.verdict.policy.model_dump(mode="json"),
        "checks": [each.model_dump(mode="json") for each in evidence.verdict.checks],
        "systems": {name: each.model_dump(mode="json") for name, each in evidence.report.systems.items()},
        "evidence": {
            name: desk.models.evidence(digest)
            for name, digest in (("verdict", candidate.verdict), ("evaluation", candidate.evaluation))
        },
    }


def _facts(candidate: Candidate, evidence: Evidence) -> list[str]:
    started = f", started by {candidate.started_by}" if candidate.started_by else ""
    lines = [
        f"{candidate.model_id}  {candidate.status}",
        f"  {candidate.sentence}",
        f"  recipe {candidate.recipe}, run {candidate.run_id or '(none)'}{started}",
        f"  judged {candidate.at} (event {candidate.verdict_event}) beside "
        + (f"champion {candidate.champion}" if candidate.champion else "no champion"),
    ]
    lines += [f"  changed since: {candidate.changed}"] if candidate.changed else []
    lines += [f"  approved once by {each.who} at {each.at} (event {each.event})" for each in candidate.approvals]
    if candidate.reviewer:
        lines.append(f"  {candidate.status} by {candidate.reviewer} (event {candidate.event}): {candidate.reason}")
    if (candidate.four_eyes or evidence.verdict.policy.four_eyes) and candidate.status in ("pending", "approved"):
        one = "a reviewer other than the one who started the run approves it"
        lines.append(f"  four eyes: {one if candidate.started_by else 'two reviewers approve it'}")
    return lines


def _scores(evidence: Evidence) -> list[str]:
    """The primary metric of every system with its interval."""
    from cli.formats import aligned_lines

    primary = evidence.verdict.policy.primary
    rows = [("system", primary, "from", "to")]
    for name, system in evidence.report.systems.items():
        estimate = system.metrics.get(primary)
        mean, low, high = (
            f"{number:.4f}" if number is not None else "-"
            for number in ((estimate.mean, estimate.low, estimate.high) if estimate else (None, None, None))
        )
        rows.append((name, mean, low, high))
    return ["", *aligned_lines(rows, right=[1, 2, 3])]


def _checks(evidence: Evidence) -> list[str]:
    from cli.formats import aligned_lines, fitted

    marks = {"pass": "met", "fail": "not met"}
    rows = [("check", "", "observed", "required")]
    for each in evidence.verdict.checks:
        observed = f"{each.observed:.4g}" if isinstance(each.observed, float) else str(each.observed)
        rows.append((each.name, marks.get(each.status, each.status), observed, each.required))
    return ["", *fitted(aligned_lines(rows))]


def _next_steps(desk: Desk, candidate: Candidate, place: str) -> list[str]:
    """The commands that decide on a candidate, and where its evidence is."""
    page = "evidence.html" if desk.models.read_evidence(candidate.verdict, "evidence.html") else "verdict.md"
    lines = ["", f"evidence: {desk.models.evidence(candidate.verdict)}/{page}"]
    if candidate.status in ("pending", "approved"):
        lines.append(f"approve:  {candidate.command}{place}")
    if candidate.status == "stale":
        lines.append(f"measure it again: rankline evaluate --candidate {candidate.model_id}{place}")
    if candidate.status in ("pending", "approved", "stale"):
        digest = candidate.verdict[:12]
        lines.append(f'reject:   rankline review reject {candidate.model_id} --evidence {digest}{place} --reason "…"')
    return lines


@app.command("approve")
def approve(
    model: Model,
    evidence: EvidenceDigest,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the history. Default: the verdict.")] = "",
    recipe: StoresOf = "",
    workspace: ReadWorkspace = WORKSPACE,
    repository: RepositoryUrl = "",
    as_json: AsJson = False,
) -> None:
    """Approve a candidate that waits: its features come online, and it serves.

    Running servers swap to it within seconds without a failed request. With decide.four_eyes the one who started the
    run may not approve; where it is not known who did, two reviewers have to.

    Exit code: 0 it serves, or this was the first of two approvals; 4 stale or decided on meanwhile; 2 wrong usage, or
    another reviewer has to approve; 1 failed, and nothing changed.

    Example: rankline review approve 5468169b --evidence 4f0c77a1e2b9
    """
    from rankline.runtime.current_user import current_user

    desk = open_desk(workspace, repository, recipe)
    event = desk.approve(model, verdict=evidence, who=current_user(), why=reason)
    _print_event(event, as_json)
    desk.announce(event)


@app.command("reject")
def reject(
    model: Model,
    evidence: EvidenceDigest,
    reason: Annotated[str, typer.Option("--reason", help="Why, in a sentence, for the history.")],
    workspace: ReadWorkspace = WORKSPACE,
    repository: RepositoryUrl = "",
    as_json: AsJson = False,
) -> None:
    """Reject a candidate that waits, with a reason. It does not wait any more; what serves stays.

    Example: rankline review reject 5468169b --evidence 4f0c77a1e2b9 --reason "it recommends recalled items"
    """
    from rankline.runtime.current_user import current_user

    desk = open_desk(workspace, repository)
    event = desk.reject(model, verdict=evidence, who=current_user(), why=reason)
    _print_event(event, as_json)
    desk.announce(event)


def _print_event(event: Event, as_json: bool) -> None:
    if as_json:
        print(event.model_dump_json(indent=2), flush=True)
        return
    before = event.champion_before or "no model"
    sentences = {
        "promoted": f"{event.model_id} serves (event {event.n}); before it {before} did",
        "approved": f"{event.model_id} is approved once (event {event.n}); a second reviewer has to approve it",
        "rejected": f"{event.model_id} is rejected (event {event.n}); {before} still serves",
    }
    print(sentences[event.kind], flush=True)


@app.command("compare")
def compare(
    first: Annotated[str, typer.Argument(help="A model id, or the start of one.")],
    second: Annotated[str, typer.Argument(help="Another model id, or the start of one.")],
    workspace: ReadWorkspace = WORKSPACE,
    repository: RepositoryUrl = "",
    as_json: AsJson = False,
) -> None:
    """Compare two models by the metrics in their evidence.

    Where both were scored on the same requests, the difference has an interval of 95%, clustered by user.

    Example: rankline review compare 5468169b 91ad03c7
    """
    from cli.formats import aligned_lines
    from review.comparison import compare as compare_models

    result = compare_models(open_registry(workspace, repository), first, second)
    if as_json:
        typer.echo(result.model_dump_json(indent=2))
        return
    rows = [("metric", result.first, result.second, "difference", "from", "to"), *map(_row, result.metrics)]
    typer.echo("\n".join(aligned_lines(rows, right=range(1, 6))))
    typer.echo(result.note or f"on {result.same_requests} requests that both were scored on")


def _row(each: Difference) -> tuple[str, str, str, str, str, str]:
    first, second = (f"{number:.4f}" if number is not None else "-" for number in (each.first, each.second))
    change, low, high = (
        f"{number:+.4f}" if number is not None else "-" for number in (each.difference, each.low, each.high)
    )
    return each.metric, first, second, change, low, high

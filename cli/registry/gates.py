"""The gates: simulate and plan them, compute a verdict again, move the anchor."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import (
    WORKSPACE,
    AsJson,
    ReadWorkspace,
    RepositoryUrl,
    open_registry,
    repository_of,
    require_workspace,
)

if TYPE_CHECKING:
    from rankline.errors import UsageError
    from rankline.gates.simulation import Shape
    from rankline.registry.model_registry import ModelRegistry

app = typer.Typer(help="Simulate and plan the gates, check a verdict, move the anchor.", no_args_is_help=True)

FromRun = Annotated[
    str,
    typer.Option("--run", help="Simulate the scores of this run, or of `last`. Default: those of the MovieLens demo."),
]
Budget = Annotated[float, typer.Option("--budget", min=0.0001, max=0.9, help="The loss budget (decide.loss_budget).")]
Error = Annotated[float, typer.Option("--error", min=0.0001, max=0.49, help="Its error (decide.loss_error).")]


@app.command("simulate")
def simulate(
    trials: Annotated[int, typer.Option("--trials", min=100, help="Years to simulate for each effect.")] = 2000,
    nights: Annotated[int, typer.Option("--nights", min=1, max=3650, help="Nights of a year.")] = 365,
    budget: Budget = 0.03,
    margin: Annotated[float, typer.Option("--margin", min=0.0, help="The margin of one night (decide.margin).")] = 0.15,
    error: Error = 0.05,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the simulation.")] = 0,
    run: FromRun = "",
    workspace: ReadWorkspace = WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Simulate years of nightly candidates of a planted quality, and print how the gates decide.

    Candidates are better or worse than the champion of the time by a fixed share. A promotion is false if the quality
    falls to the end of the loss budget, relative to the best model so far. Two rows show the margin alone, without a
    loss budget. On two cores it takes about a minute.

    Example: rankline gates simulate --trials 2000
    """
    from cli.formats import aligned_lines
    from rankline.gates.simulation import Policy
    from rankline.gates.study import Plan, one_night_table, study, table

    plan = Plan(trials, nights, seed, policy=Policy("budget", budget, margin, error))
    result = study(_shape(run, workspace), plan, progress=_progress(as_json))
    if as_json:
        typer.echo(result.model_dump_json(indent=2))
        return
    typer.echo(_origin(run))
    typer.echo(
        f"{result.requests} requests a night; two equal models differ by {result.relative_error:.1%} "
        "(one standard error)"
    )
    typer.echo("\n".join(aligned_lines(table(result), right=range(2, 11))))
    typer.echo("the comparisons of one night, by themselves:")
    typer.echo("\n".join(aligned_lines(one_night_table(result), right=range(2, 5))))
    typer.echo(
        f"years in which a champion that is no better became the anchor (effect 0): {result.false_anchor_moves:.1%}"
    )
    winner = result.winner
    typer.echo(
        f"best of {winner.candidates} candidates at the budget's edge: a false promotion in {winner.uncorrected:.1%} "
        f"of years, {winner.corrected:.1%} with decide.trials={winner.candidates}; nominal {winner.nominal:.0%}"
    )


@app.command("plan")
def plan(
    effect: Annotated[
        list[float], typer.Option("--effect", help="How much better a candidate truly is, as a share; repeatable.")
    ] = [0.0, 0.01, 0.02, 0.05],  # noqa: B006 (typer does not change a default)
    power: Annotated[float, typer.Option("--power", min=0.01, max=0.999, help="Wanted probability to pass.")] = 0.8,
    budget: Budget = 0.03,
    error: Error = 0.05,
    run: FromRun = "",
    workspace: ReadWorkspace = WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Print how many requests and nights it takes until an effect is seen with a wanted power.

    Example: rankline gates plan --run last --effect 0.02 --power 0.8
    """
    from cli.formats import aligned_lines
    from rankline.gates.planning import WITHIN_NIGHTS, needs
    from rankline.gates.simulation import draw_bank

    shape = _shape(run, workspace)
    bank = draw_bank(shape, nights=2000, seed=0)
    result = needs(bank, shape.requests, tuple(effect), power=power, budget=budget, confidence=0.95, alpha=error)
    if as_json:
        typer.echo(json.dumps([each.model_dump() for each in result], indent=2))
        return
    header = ("effect", "requests to see it in one comparison", f"nights of {shape.requests} requests to pass",
              *(f"requests a night to pass in {n}" for n in WITHIN_NIGHTS))  # fmt: skip
    rows = [
        (
            f"{each.effect:+.1%}", f"{each.requests_one_night or '-'}", f"{each.nights_to_pass or '-'}",
            *(f"{each.requests_per_night[str(n)] or '-'}" for n in WITHIN_NIGHTS),
        )
        for each in result
    ]  # fmt: skip
    typer.echo(_origin(run))
    typer.echo(
        f"with power {power:.0%}; two equal models differ by {bank.relative_error:.1%} a night (one standard error)"
    )
    typer.echo("\n".join(aligned_lines([header, *rows], right=range(6))))


@app.command("check")
def check(
    run: Annotated[str, typer.Argument(help="Name of a run, or `last`.")] = "last",
    workspace: ReadWorkspace = WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Compute a run's verdict again from its stored scores, and say whether it is the stored one.

    The scores and the verdict are those in the run's folder, or, where that is gone, the registry's evidence.

    Exit code: 0 the same; 3 another.
    """
    from pipelines.runs.folder import read_repository
    from pipelines.runs.store import LocalRuns
    from rankline.errors import EXIT_REFUSED
    from rankline.evaluation.recheck import recheck
    from rankline.registry.model_registry import ModelRegistry

    workspace = require_workspace(workspace, "runs")
    folder = LocalRuns(workspace).folder(run)
    models = ModelRegistry(read_repository(folder, workspace) or repository_of(workspace), repair_cache=False)
    verdict, report = (
        _output(folder, step, name, models=models) for step, name in (("decide", "verdict"), ("evaluate", "report"))
    )
    result = recheck(verdict / "verdict.json", report, models)
    if as_json:
        typer.echo(result.model_dump_json(indent=2))
    else:
        for each in result.differences:
            typer.echo(each)
        same = "the stored verdict" if not result.differences else f"not the stored verdict ({result.stored})"
        typer.echo(f"model {result.model_id}: {result.recomputed}, {result.checks} checks: {same}")
    if result.differences:
        raise typer.Exit(EXIT_REFUSED)


@app.command("anchor")
def anchor(
    model: Annotated[str, typer.Argument(help="Model id or the start of one. Default: only show the anchor.")] = "",
    why: Annotated[str, typer.Option("--why", help="The reason, recorded in the history.")] = "moved by hand",
    workspace: ReadWorkspace = WORKSPACE,
    repository: RepositoryUrl = "",
    as_json: AsJson = False,
) -> None:
    """Show the anchor, the past champion that losses are measured against, or make another model the anchor.

    It is the first champion until a later one is proven better. Move it when it cannot answer the requests of today
    any more, or when a loss was accepted: the loss budget is full again from then on.
    """
    from rankline.registry.anchor import anchor_event, move_anchor
    from rankline.runtime.current_user import current_user

    registry = open_registry(workspace, repository)
    event = move_anchor(registry, model, who=current_user(), why=why) if model else anchor_event(registry.history())
    if as_json:
        typer.echo(json.dumps(event.model_dump(mode="json") if event else None, indent=2))
        return
    if event is None:
        typer.echo("no anchor yet; the first champion becomes it")
        return
    typer.echo(f"{event.model_id}\n  {event.kind} {event.at} by {event.who} (event {event.n}): {event.why}")


@app.command("schema")
def schema() -> None:
    """Print the JSON schema of a policy file, which `--set decide=@FILE` reads."""
    from components.promote.config import DecideConfig
    from rankline.gates.measures import with_examples

    typer.echo(json.dumps(with_examples(DecideConfig.model_json_schema()), indent=2))


def _origin(run: str) -> str:
    """Whose scores a simulation is drawn from."""
    return f"scores of run {run}" if run else "scores of the MovieLens demo; --run last takes yours"


def _shape(run: str, workspace: Path) -> Shape:
    """The shape of the demo's scores, or of a run's."""
    from rankline.gates.simulation import DEMO_ALIKE, demo_shape

    if not run:
        return demo_shape()
    from pipelines.runs.store import LocalRuns
    from rankline.evaluation.report import CANDIDATE, CHAMPION, read_report
    from rankline.gates.evidence import read_evidence
    from rankline.gates.study import shape_of

    folder = LocalRuns(require_workspace(workspace, "runs")).folder(run)
    report = _output(folder, "evaluate", "report")
    primary = str(read_report(report).details.get("primary", "ndcg@10"))
    by_system = read_evidence(report).scores[primary]
    other = by_system.get(CHAMPION)
    return shape_of(by_system[CANDIDATE].tolist(), None if other is None else other.tolist(), alike=DEMO_ALIKE)


def _output(run_folder: Path, step: str, name: str, *, models: ModelRegistry | None = None) -> Path:
    """The folder that a step of a run wrote, or the evidence that ``models`` has of it."""
    from rankline.errors import UsageError
    from rankline.evaluation.report import PER_REQUEST
    from rankline.registry.erased_evidence import NOTE
    from rankline.runtime import ledger
    from rankline.users.erased import FOLDER, ErasedUsers

    entry = ledger.read_entries(run_folder).get(step)
    if entry is None or name not in entry.paths or not Path(entry.paths[name]).is_dir():
        kind = "evaluation" if name == "report" else name
        for event in reversed(models.history() if models is not None and models.local else []):
            if event.run_id == run_folder.name and kind in event.digests:
                evidence = Path(models.evidence(event.digests[kind]))  # type: ignore[union-attr]
                if (evidence / NOTE).is_file() and not (evidence / PER_REQUEST).is_file() and name == "report":
                    raise _erased(run_folder)
                return evidence
        if entry is not None and name in entry.paths and len(ErasedUsers(run_folder.parents[1] / FOLDER)):
            raise _erased(run_folder)
        raise UsageError(
            f"this run has no {name}",
            expected=f"a run whose step {step} has finished, with its files or their evidence on this machine",
            found=f"step {step}: {entry.status}" if entry else f"no step {step}",
            where=str(run_folder),
            hint="`rankline runs list` shows the runs with their outcome",
        )
    return Path(entry.paths[name])


def _erased(run_folder: Path) -> UsageError:
    from rankline.errors import UsageError

    return UsageError(
        "the scores of this run were removed when users were erased",
        expected="the scores of every request, as the step evaluate wrote them",
        found="the reports without them",
        where=str(run_folder),
        hint="run the recipe again: its evaluation has no erased users, and can be checked and planned with",
    )


def _progress(as_json: bool) -> Callable[[str, int, int], None]:
    """Prints one line on a terminal's standard error that is written over; nothing elsewhere."""
    shown = not as_json and sys.stderr.isatty()

    def show(what: str, done: int, of: int) -> None:
        if shown and (done % 10 == 0 or done == of):
            typer.echo(f"\r\x1b[K{what}: {done}/{of}" if done < of else "\r\x1b[K", nl=False, err=True)

    return show

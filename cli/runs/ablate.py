"""What each part of a recipe adds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import WORKSPACE, AsJson, MapFile, Settings, SourcePath, Workspace

if TYPE_CHECKING:
    from pipelines.ablation.cells import Ablation, Cell


def ablate(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe (`rankline recipes`), or module:function.")],
    part: Annotated[list[str], typer.Option("--part", help="Change this part only; may be given several times.")] = [],  # noqa: B006
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each cell, with seeds from 0.")] = 3,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Start no cell that is not expected to end within so many minutes.")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Run nothing; show the cells, and which of them have run.")
    ] = False,
    source: SourcePath = None,
    map: MapFile = None,
    settings: Settings = [],  # noqa: B006 (typer does not change a default)
    workspace: Workspace = WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Run a recipe with one part changed at a time, and write a table of what each part adds.

    Parts: words, pretraining, joint_training, lora, teacher, sources, and the augmentations crop, mask and reorder. A
    part that the recipe has is taken away, one that it does not have is added. Nothing is registered or promoted. Steps
    that cells share are reused, and cells that have run are kept: run the command again to go on.

    --plan shows what would run.

    Example: rankline ablate smoke --part words --part teacher --seeds 1
    """
    from cli.runs.run import fetch_assets
    from pipelines.ablation import table as tables
    from pipelines.ablation.cells import Ablation, all_cells
    from pipelines.ablation.parts import chosen_parts, parts
    from pipelines.recipes import named

    ablation = Ablation(named(recipe, settings, source=source, map=map), workspace.resolve())
    chosen = chosen_parts(parts(ablation.recipe, ablation.encoder), part)
    cells = all_cells(chosen, seeds)
    if plan:
        _show_plan(ablation, cells)
        for each in chosen:
            if each.not_applicable:
                typer.echo(f"{each.name} does not apply: {each.not_applicable}")
        return
    fetch_assets(ablation.recipe, ablation.workspace, as_json=as_json)
    left = _run_cells(ablation, cells, minutes)
    table = tables.make_table(ablation, chosen, seeds)
    tables.write_table(ablation.folder, table)
    typer.echo(table.model_dump_json(indent=2) if as_json else tables.markdown(table))
    typer.echo(f"page: {ablation.folder / tables.PAGE}", err=as_json)
    if left:
        typer.echo(f"{left} of {len(cells)} cells are left: run the same command again", err=as_json)


def _show_plan(ablation: Ablation, cells: list[Cell]) -> None:
    for cell in cells:
        result = ablation.result(cell)
        state = f"done in {result.seconds:.0f} s" if result else "would run"
        changes = " ".join((cell.part.change, *cell.part.settings))
        typer.echo(f"{cell.name}: {state}; {changes}")


def _run_cells(ablation: Ablation, cells: list[Cell], minutes: float | None) -> int:
    """Run the cells that have not run, as the time allows; returns how many are left."""
    started_s, longest_s = time.monotonic(), 0.0
    waiting = [cell for cell in cells if ablation.result(cell) is None]
    for number, cell in enumerate(waiting):
        if minutes is not None and time.monotonic() - started_s + longest_s > 60 * minutes:
            return len(waiting) - number

        def say(line: str, place: str = f"cell {number + 1} of {len(waiting)}") -> None:
            typer.echo(f"{place}, {line}", err=True)

        longest_s = max(longest_s, ablation.run(cell, say=say).seconds)
    return 0

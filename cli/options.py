"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Workspace = Annotated[
    Path,
    typer.Option(
        "--workspace", "-w", envvar="RANKLINE_WORKSPACE",
        help="Folder of everything a run reads and leaves: material, cache, ledger, model repository.",
    ),
]  # fmt: skip
RecipeName = Annotated[
    str, typer.Option("--recipe", "-r", help="Name of a recipe (`rankline recipes`), or module:function.")
]
Settings = Annotated[
    list[str],
    typer.Option("--set", "-s", help="Change one knob: section.knob=value, such as finetune.epochs=3."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Url = Annotated[str, typer.Option("--url", envvar="RANKLINE_URL", help="Where the server answers.")]

WORKSPACE = Path(".rankline")

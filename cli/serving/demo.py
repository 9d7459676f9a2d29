"""The whole line on real data, ending in an answered request."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from cli.options import WORKSPACE, RecipeName, Settings, Workspace

HELP = """The whole line on real data: fetch, run, promote, serve, answer one request, stop.

About eight minutes on two cores the first time, under a minute after that: unchanged steps are reused."""


def demo(
    recipe: RecipeName = "movielens",
    user: Annotated[str, typer.Option(help="Whom to recommend to; empty takes a user of the data.")] = "",
    settings: Settings = [],  # noqa: B006
    workspace: Workspace = WORKSPACE,
) -> None:
    """See HELP."""
    from cli.runs.progress import Screen, format_duration, summary_lines
    from cli.runs.run import report_pages
    from cli.serving.serve import answer_lines
    from pipelines.assets import packaged
    from pipelines.recipes import named
    from pipelines.runs.runner import exit_code
    from pipelines.runs.runner import run as run_recipe

    started_at = time.time()
    chosen = named(recipe, settings)
    workspace = workspace.resolve()
    for name in chosen.material:
        packaged.fetch(name, workspace, say=typer.echo)
    with Screen(workspace, chosen.name) as screen:
        summary = run_recipe(chosen, workspace, watch=screen)
    typer.echo("\n" + "\n".join(summary_lines(summary)))
    code = exit_code(summary)
    if code:
        typer.echo("the candidate was not promoted, so there is nothing new to ask")
        raise typer.Exit(code)
    user = user or _first_user(summary)
    typer.echo(f"\nasking the server for user {user}'s recommendations")
    answer, url = _ask_temporary_server(workspace, user)
    typer.echo("\n".join(answer_lines(answer)))
    typer.echo(f"(it ran at {url}; `rankline serve` starts it to stay, `rankline ask {user}` asks)\n")
    for title, path in report_pages(summary):
        typer.echo(f"{title}: {path}")
    typer.echo(f"demo took {format_duration(time.time() - started_at)}")


def _first_user(summary: dict[str, Any]) -> str:
    """The first user of the run's data: a new one would get what is popular."""
    from pathlib import Path

    import pyarrow.parquet as parquet

    paths = {step["step"]: step["paths"] for step in summary["steps"]}
    users = parquet.read_table(Path(paths["featurize"]["features"]) / "sequences.parquet", columns=["user_id"])
    return str(users["user_id"][0])


def _ask_temporary_server(workspace: Any, user: str) -> tuple[dict[str, Any], str]:
    """Start the server on the champion, wait until it has its features, ask it, stop it."""
    import json
    import subprocess
    import sys
    import tempfile
    from pathlib import Path

    from cli.serving.serve import ask_server, server_arguments
    from rankline.errors import ServerError

    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        command = [
            sys.executable,
            "-P",
            "-m",
            "serving",
            *server_arguments(workspace, port=0),
            "--ready-file",
            str(ready),
        ]
        log = (Path(folder) / "server.log").open("w+")
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            url = ""
            for _ in range(600):
                if process.poll() is not None:
                    log.seek(0)
                    raise ServerError("the server did not start", found=log.read().strip()[-500:])
                if not url and ready.is_file():
                    url = json.loads(ready.read_text())["url"]
                if url and _features_ready(url):
                    break
                time.sleep(0.1)
            else:
                raise ServerError("the server was not ready within a minute", where=url)
            return ask_server(url, user=user, k=10), url
        finally:
            process.terminate()
            process.wait(timeout=30)
            log.close()


def _features_ready(url: str) -> bool:
    """Whether the server there has its online features; no proxy stands between this process and its own child."""
    import httpx

    readiness = httpx.get(f"{url}/readyz", timeout=10, trust_env=False).json()
    return bool(readiness["features"]["state"] == "ready")

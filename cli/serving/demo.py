"""The demo: the training pipeline on real data, ending in an answered request."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import WORKSPACE, RecipeName, Settings, Workspace

START_TIMEOUT_S = 60


def demo(
    recipe: RecipeName = "movielens",
    user: Annotated[str, typer.Option(help="User to recommend to. Default: a user of the data.")] = "",
    settings: Settings = [],  # noqa: B006
    workspace: Workspace = WORKSPACE,
) -> None:
    """Run the whole product on real data: fetch, train, promote, serve, answer one request, stop.

    About eight minutes on two cores the first time, under a minute after that, since unchanged steps are reused.
    """
    from cli.formats import format_duration
    from cli.runs.progress import Screen, summary_lines
    from cli.runs.run import fetch_assets, report_pages
    from cli.serving.serve import answer_lines
    from pipelines.recipes import named
    from pipelines.runs.runner import exit_code
    from pipelines.runs.runner import run as run_recipe

    started_at = time.time()
    chosen = named(recipe, settings)
    workspace = workspace.resolve()
    fetch_assets(chosen, workspace, as_json=False)
    with Screen(workspace, chosen.name) as screen:
        summary = run_recipe(chosen, workspace, watch=screen)
    typer.echo("\n" + "\n".join(summary_lines(summary)))
    if code := exit_code(summary):
        typer.echo("the candidate was not promoted, so there is no new model to ask")
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
    """The first user of the run's data, since an unknown user would only get what is popular."""
    import pyarrow.parquet as parquet

    paths = {step["step"]: step["paths"] for step in summary["steps"]}
    users = parquet.read_table(Path(paths["featurize"]["features"]) / "sequences.parquet", columns=["user_id"])
    return str(users["user_id"][0])


def _ask_temporary_server(workspace: Path, user: str) -> tuple[dict[str, Any], str]:
    """Serve the champion until its features are ready, send one request, and stop; returns the answer and the URL."""
    from cli.serving.serve import ask_server, server_arguments

    with tempfile.TemporaryDirectory() as folder, Path(folder, "server.log").open("w+") as log:
        ready = Path(folder) / "ready.json"
        command = [sys.executable, "-P", "-m", "serving", *server_arguments(workspace, port=0)]
        process = subprocess.Popen([*command, "--ready-file", str(ready)], stdout=log, stderr=subprocess.STDOUT)
        try:
            url = _wait_until_ready(process, ready, Path(log.name))
            return ask_server(url, user=user, k=10), url
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait_until_ready(process: subprocess.Popen[bytes], ready: Path, log: Path) -> str:
    """The URL of the server, once it has its online features."""
    import json

    from rankline.errors import ServerError

    url = ""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerError("the server did not start", found=log.read_text().strip()[-500:])
        if not url and ready.is_file():
            url = json.loads(ready.read_text())["url"]
        if url and _features_ready(url):
            return url
        time.sleep(0.1)
    raise ServerError(f"the server was not ready within {START_TIMEOUT_S} s", where=url)


def _features_ready(url: str) -> bool:
    """Whether the server has its online features. (A proxy must not stand between this process and its child.)"""
    import httpx

    readiness = httpx.get(f"{url}/readyz", timeout=10, trust_env=False).json()
    return bool(readiness["features"]["state"] == "ready")

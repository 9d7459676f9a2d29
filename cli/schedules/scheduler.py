"""The embedded scheduler as a process in the foreground, for systemd or a container."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from cli.options import WORKSPACE, Workspace

HELP = """Begin what the workspace's schedules ask for, until it is ended; it may be killed at any moment.

Runs end with it. The next one goes on with what was begun and not ended, then with what was missed, as each schedule
says. A second one in the same workspace is refused.

Example: rankline scheduler -w /srv/rankline --max-runs 1"""


def scheduler(
    workspace: Workspace = WORKSPACE,
    max_runs: Annotated[int, typer.Option(min=1, max=64, help="Runs of all schedules together, at once.")] = 2,
) -> None:
    """See HELP."""
    from datetime import UTC, datetime

    from pipelines.schedules.daemon import Scheduler

    def say(line: str) -> None:
        typer.echo(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {line}")

    workspace = workspace.resolve()
    with Scheduler(workspace, max_runs=max_runs, say=say).running() as running:
        names = running.store.names()
        say(f"at work in {workspace}: {', '.join(names) or 'no schedules yet; they are noticed when they come'}")
        while True:
            time.sleep(3600)

"""The embedded scheduler as a process in the foreground, for systemd or a container."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from cli.options import WORKSPACE, Workspace
from rankline.runtime.outcomes import EXIT_INTERRUPTED

HELP = """Start the runs of the workspace's schedules until you end it; you can kill it at any moment.

Its runs end with it. The next scheduler continues what was interrupted, then starts what was missed, as each schedule
says. A second scheduler in the same workspace is refused.

With --listen it takes signed POSTs to /schedules/NAME/fire for schedules with a trigger webhook:VARIABLE.

Example: rankline scheduler -w /srv/rankline --max-runs 1"""


def scheduler(
    workspace: Workspace = WORKSPACE,
    max_runs: Annotated[int, typer.Option(min=1, max=64, help="Largest number of concurrent runs.")] = 2,
    listen: Annotated[
        int | None, typer.Option("--listen", min=0, max=65535, help="Port for webhooks; 0 takes any free port.")
    ] = None,
    listen_host: Annotated[
        str, typer.Option("--listen-host", help="Address for webhooks; behind a proxy with TLS, leave it as it is.")
    ] = "127.0.0.1",
) -> None:
    """See HELP."""
    from contextlib import ExitStack
    from datetime import UTC, datetime

    from pipelines.schedules.daemon import Scheduler
    from pipelines.schedules.triggers.listener import listening, missing_keys

    def say(line: str) -> None:
        typer.echo(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {line}")

    daemon = Scheduler(workspace.resolve(), max_runs=max_runs, say=say)

    stack = ExitStack()

    def announce() -> None:
        names = ", ".join(daemon.store.names()) or "no schedules yet; it notices new ones"
        say(f"running in {daemon.workspace}: {names}")
        if listen is not None:
            address = stack.enter_context(listening(daemon.store, listen_host, listen))
            say(f"webhooks: POST {address}/schedules/NAME/fire")
            for problem in missing_keys(daemon.store):
                say(problem)

    for number in (signal.SIGINT, signal.SIGTERM):  # ends the loop between two rounds, never within a write
        signal.signal(number, lambda *_: daemon.stop())
    with stack:
        daemon.serve(announce)
    raise typer.Exit(EXIT_INTERRUPTED)

"""What the commands that talk to a Kubeflow cluster share: how it is reached, and a run of it as people watch it."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from pipelines.kubeflow.access import Access

Host = Annotated[
    str,
    typer.Option(
        "--host", envvar="RANKLINE_KFP_HOST",
        help="URL of Kubeflow Pipelines, such as https://kubeflow.example.com/pipeline.",
    ),
]  # fmt: skip
Namespace = Annotated[
    str, typer.Option("--namespace", "-n", envvar="RANKLINE_KFP_NAMESPACE", help="Your profile's namespace.")
]
Auth = Annotated[
    Literal["none", "token", "cookie", "dex", "existing", "port-forward"],
    typer.Option(
        "--auth", envvar="RANKLINE_KFP_AUTH",
        help="How to sign in; secrets come from the environment (docs/cluster.md). existing: kfp's own settings.",
    ),
]  # fmt: skip
Context = Annotated[
    str, typer.Option("--context", help="Context of the kubeconfig, for existing and port-forward; the current one.")
]
Ca = Annotated[
    str, typer.Option("--ca", envvar="RANKLINE_KFP_CA", help="File with the authority of the host's certificate.")
]
MARKS = {"running": "▶", "done": "✔", "failed": "✘", "cancelled": "✘", "skipped": "·", "pending": "·"}
COLOURS = {"running": "cyan", "done": "green", "failed": "red", "cancelled": "red"}


def access(*, host: str, namespace: str, auth: str, context: str, ca: str) -> Access:
    """The options of a command as one thing."""
    from pipelines.kubeflow.access import Access

    return Access.model_validate({"host": host, "namespace": namespace, "auth": auth, "context": context, "ca": ca})


class GoesOn(SystemExit):
    """The end of a command that watched a run, which goes on without it."""


class ClusterScreen:
    """Watches one run of a cluster: a live table, or lines where there is no terminal."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet, self._told = quiet, dict[str, str]()
        self._live: Any = None
        self._spoke = time.monotonic()

    def __enter__(self) -> ClusterScreen:
        if not self.quiet and sys.stdout.isatty():
            from rich.live import Live

            self._live = Live(auto_refresh=False)
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def __call__(self, told: dict[str, Any]) -> None:
        """Draw the run as it is now."""
        if self.quiet:
            return
        if self._live is not None:
            self._live.update(_table(told), refresh=True)
            return
        for step in told["steps"]:
            if self._told.get(step["step"]) != step["status"] and step["status"] != "pending":
                self._told[step["step"]] = step["status"]
                self._say(_line(step))
        if time.monotonic() - self._spoke > 60:
            running = ", ".join(step["step"] for step in told["steps"] if step["status"] == "running")
            self._say(f"  {running or told['kubeflow_status'].lower() or 'pending'}…")

    def _say(self, line: str) -> None:
        self._spoke = time.monotonic()
        print(line, flush=True)


def lines(told: dict[str, Any]) -> list[str]:
    """A run of a cluster as lines: its steps, its outcome, where it is seen."""
    from cli.screen import clock

    took = f" after {clock(told['seconds'])}" if told["seconds"] else ""
    said = told["verdict"] or told["error"] or told["kubeflow_status"].lower()
    return [*map(_line, told["steps"]), f"{told['outcome']}{took}: {said}", f"run {told['run']}: {told['url']}"]


def _line(step: dict[str, Any]) -> str:
    from cli.screen import clock

    took = clock(step["seconds"]) if step["status"] not in ("pending", "skipped") else ""
    return f"{MARKS[step['status']]} {step['step']:<17} {took:>7}  {step['error']}".rstrip()


def _table(told: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.text import Text

    from rankline import ledger

    known = {step["step"]: step for step in told["steps"]}
    lines = [Text(f"{told['name']}   {told['kubeflow_status'].lower()}", style="bold")]
    for name in (*ledger.STEPS, *(name for name in known if name not in ledger.STEPS)):
        step = known.get(name, {"step": name, "status": "pending", "error": "", "seconds": 0.0})
        lines.append(Text(_line(step), style=COLOURS.get(step["status"], "dim"), no_wrap=True, overflow="ellipsis"))
    return Group(*lines)

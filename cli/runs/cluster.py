"""What the commands that talk to a Kubeflow cluster share: how it is reached, and a run of it as people watch it."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from rankline.errors import AccessError, UsageError

if TYPE_CHECKING:
    from pipelines.kubeflow.client import Access, Cluster

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
NamespaceAlone = Annotated[  # where -n means something else
    str, typer.Option("--namespace", envvar="RANKLINE_KFP_NAMESPACE", help="Your profile's namespace.")
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
Zone = Annotated[
    str,
    typer.Option(
        "--cluster-zone", envvar="RANKLINE_KFP_ZONE",
        help="Time zone that the cluster's controller fires by, where somebody set one (CRON_SCHEDULE_TIMEZONE).",
    ),
]  # fmt: skip
MARKS = {"running": "▶", "done": "✔", "failed": "✘", "cancelled": "✘", "skipped": "·", "pending": "·"}
COLOURS = {"running": "cyan", "done": "green", "failed": "red", "cancelled": "red"}


def access(*, host: str, namespace: str, auth: str, context: str, ca: str) -> Access:
    """The options of a command as one thing."""
    from pipelines.kubeflow.client import Access

    return Access.model_validate({"host": host, "namespace": namespace, "auth": auth, "context": context, "ca": ca})


OPTIONS: dict[str, tuple[Any, str]] = {
    "host": (Host, ""), "namespace": (Namespace, ""), "auth": (Auth, "existing"), "context": (Context, ""),
    "ca": (Ca, ""),
}  # fmt: skip
ZONED = {"cluster_zone": (Zone, "UTC")}


@dataclass(frozen=True)
class Where:
    """Where a command that knows workspaces and clusters is to look; true where a cluster is meant."""

    host: str
    namespace: str
    auth: str
    context: str
    ca: str
    zone: str
    cluster: bool

    def __bool__(self) -> bool:
        return self.cluster

    @contextlib.contextmanager
    def connected(self) -> Iterator[Cluster]:
        """The cluster, signed in (see `pipelines.kubeflow.client.connected`)."""
        from pipelines.kubeflow.client import connected

        told = access(host=self.host, namespace=self.namespace, auth=self.auth, context=self.context, ca=self.ca)
        with connected(told) as cluster:
            yield cluster


def reachable(command: Callable[..., None], *, zoned: bool = False) -> Callable[..., None]:
    """Give a command of a workspace the options of a cluster; its parameter ``where`` is what they say (a `Where`).

    ``zoned`` adds the time zone that the cluster fires by.

    A cluster is meant where there is a host, a context or a port to forward, or where any of these options is given.
    What is given on the command line goes before the environment: `-w FOLDER` means the workspace though
    RANKLINE_KFP_HOST is set, and so does `--host ""`.
    """
    signature = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def reaching(*, ctx: typer.Context, **given: Any) -> None:
        options = {name: given.pop(name) for name in OPTIONS}
        zone = given.pop("cluster_zone") if zoned else "UTC"
        command(**given, where=Where(**options, zone=zone, cluster=_is_meant(ctx, options)))

    own = [each for name, each in signature.parameters.items() if name != "where"]
    taken = {
        flag for each in own for told in getattr(each.annotation, "__metadata__", ()) for flag in told.param_decls or ()
    }
    offered = OPTIONS | ({"namespace": (NamespaceAlone, "")} if "-n" in taken else {}) | (ZONED if zoned else {})
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in offered.items()
    ]
    context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
    reaching.__signature__ = signature.replace(parameters=[*parameters, *added, context])  # type: ignore[attr-defined]
    return reaching


def _is_meant(ctx: typer.Context, options: dict[str, Any]) -> bool:
    """Whether these options mean a cluster.

    Raises:
        UsageError: a workspace and a cluster are both asked for.
    """

    def given(name: str) -> bool:
        source = ctx.get_parameter_source(name)
        return source is not None and source.name == "COMMANDLINE"

    named = any(given(name) and options[name] for name in OPTIONS)
    if named and given("workspace"):
        raise UsageError(
            "a workspace and a cluster are both asked for",
            expected="-w FOLDER, or --host URL with what goes with it",
            found="both",
        )
    if named or given("workspace") or given("host"):
        return named
    return bool(options["host"] or options["context"] or options["auth"] == "port-forward")


def watched(cluster: Cluster, run: str, url: str, *, as_json: bool, told: dict[str, Any], poll_s: float) -> NoReturn:
    """Watch a run of a cluster to its end, print what came of it (after ``told``), and end with its code."""
    from pipelines.kubeflow.runs import follow
    from pipelines.runs.runner import exit_code

    try:
        with ClusterScreen(quiet=as_json) as screen:
            summary = follow(cluster, run, watch=screen, poll_s=poll_s)
    except KeyboardInterrupt:
        typer.secho(f"interrupted; run {run} goes on: {url}", err=True)
        raise GoesOn(INTERRUPTED) from None
    except AccessError as error:
        typer.secho(f"it can no longer be watched; run {run} goes on: {url}", err=True)
        raise error from None
    if as_json:
        typer.echo(json.dumps({**told, **summary}, indent=2))
    else:
        typer.echo("\n" + "\n".join(lines(summary)[len(summary["steps"]) :]))
        if summary["failed_step"]:
            typer.echo(f"{summary['failed_step']} stopped")
    raise typer.Exit(exit_code(summary))


POLL_S = 5.0  # between two looks at a run
INTERRUPTED = 130


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
    from cli.runs.progress import clock

    took = f" after {clock(told['seconds'])}" if told["seconds"] else ""
    said = told["verdict"] or told["error"] or told["kubeflow_status"].lower()
    return [*map(_line, told["steps"]), f"{told['outcome']}{took}: {said}", f"run {told['run']}: {told['url']}"]


def _line(step: dict[str, Any]) -> str:
    from cli.runs.progress import clock

    took = clock(step["seconds"]) if step["status"] not in ("pending", "skipped") else ""
    return f"{MARKS[step['status']]} {step['step']:<17} {took:>7}  {step['error']}".rstrip()


def _table(told: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.text import Text

    from rankline.runtime import ledger

    known = {step["step"]: step for step in told["steps"]}
    lines = [Text(f"{told['name']}   {told['kubeflow_status'].lower()}", style="bold")]
    line = ledger.FLOWS[told["flow"]]
    for name in (*line, *(name for name in known if name not in line)):
        step = known.get(name, {"step": name, "status": "pending", "error": "", "seconds": 0.0})
        lines.append(Text(_line(step), style=COLOURS.get(step["status"], "dim"), no_wrap=True, overflow="ellipsis"))
    return Group(*lines)

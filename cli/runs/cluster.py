"""What the commands for a Kubeflow cluster share: the options of the connection, and the view of a run."""

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

from rankline.errors import EXIT_FAILED, AccessError, UsageError
from rankline.runtime.outcomes import EXIT_INTERRUPTED, Outcome

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
NamespaceLong = Annotated[  # where -n means something else
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
        help="Time zone of the cluster's controller, if CRON_SCHEDULE_TIMEZONE is set there.",
    ),
]  # fmt: skip
MARKS = {"running": "▶", "done": "✔", "reused": "↺", "failed": "✘", "cancelled": "✘", "skipped": "·", "pending": "·"}
COLOURS = {"running": "cyan", "done": "green", "reused": "blue", "failed": "red", "cancelled": "red"}


def access_settings(*, host: str, namespace: str, auth: str, context: str, ca: str) -> Access:
    """The options of a command as `Access`."""
    from pipelines.kubeflow.client import Access

    return Access.model_validate({"host": host, "namespace": namespace, "auth": auth, "context": context, "ca": ca})


OPTIONS: dict[str, tuple[Any, str]] = {
    "host": (Host, ""), "namespace": (Namespace, ""), "auth": (Auth, "existing"), "context": (Context, ""),
    "ca": (Ca, ""),
}  # fmt: skip
ZONE_OPTIONS = {"cluster_zone": (Zone, "UTC")}


@dataclass(frozen=True)
class Target:
    """The place that a command is for: a cluster where it is true, else a workspace."""

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
        """A connection to the cluster (see `pipelines.kubeflow.client.connected`)."""
        settings = access_settings(
            host=self.host, namespace=self.namespace, auth=self.auth, context=self.context, ca=self.ca
        )
        with connection(settings) as cluster:
            yield cluster


@contextlib.contextmanager
def connection(access: Access) -> Iterator[Cluster]:
    """A connection to the cluster; a namespace that it has no use for is reported on stderr."""
    from pipelines.kubeflow.client import connected

    with connected(access) as cluster:
        if cluster.ignored_namespace:
            typer.secho(
                f"note: Kubeflow Pipelines has a single user here; --namespace {cluster.ignored_namespace} is ignored",
                err=True,
            )
        yield cluster


def with_cluster_options(command: Callable[..., None], *, zoned: bool = False) -> Callable[..., None]:
    """Give a command the options of a cluster in place of its parameter ``where`` (a `Target`).

    ``zoned`` adds the time zone of the cluster's controller.

    The command is for a cluster where there is a host, a context or a port to forward, or where one of these options
    is given. The command line takes precedence over the environment: with `-w FOLDER` or `--host ""` the command is
    for the workspace even if RANKLINE_KFP_HOST is set.
    """
    signature = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def wrapper(*, ctx: typer.Context, **given: Any) -> None:
        options = {name: given.pop(name) for name in OPTIONS}
        zone = given.pop("cluster_zone") if zoned else "UTC"
        command(**given, where=Target(**options, zone=zone, cluster=_targets_cluster(ctx, options)))

    own = [each for name, each in signature.parameters.items() if name != "where"]
    used_flags = {
        flag
        for each in own
        for option in getattr(each.annotation, "__metadata__", ())
        for flag in option.param_decls or ()
    }
    cluster_options = (
        OPTIONS | ({"namespace": (NamespaceLong, "")} if "-n" in used_flags else {}) | (ZONE_OPTIONS if zoned else {})
    )
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in cluster_options.items()
    ]
    context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
    wrapper.__signature__ = signature.replace(parameters=[*parameters, *added, context])  # type: ignore[attr-defined]
    return wrapper


def _targets_cluster(ctx: typer.Context, options: dict[str, Any]) -> bool:
    """Whether the command is for a cluster."""

    def given(name: str) -> bool:
        source = ctx.get_parameter_source(name)
        return source is not None and source.name == "COMMANDLINE"

    named = any(given(name) and options[name] for name in OPTIONS)
    if named and given("workspace"):
        raise UsageError(
            "a workspace and a cluster are both given",
            expected="-w FOLDER, or --host URL with its options",
            found="both",
        )
    if named or given("workspace") or given("host"):
        return named
    return bool(options["host"] or options["context"] or options["auth"] == "port-forward")


def watch_run(
    cluster: Cluster, run: str, url: str, *, as_json: bool, submitted: dict[str, Any], poll_s: float
) -> NoReturn:
    """Watch a run of a cluster to its end, print its summary, and end with its exit code.

    A run that was cancelled because a step could not begin has failed. ``submitted`` comes before the summary in JSON.
    """
    from pipelines.kubeflow.runs import follow
    from pipelines.runs.runner import exit_code

    try:
        with ClusterScreen(quiet=as_json) as screen:
            summary = follow(cluster, run, watch=screen, poll_s=poll_s)
    except KeyboardInterrupt:
        typer.secho(f"interrupted; run {run} continues: {url}", err=True)
        raise RunContinues(EXIT_INTERRUPTED) from None
    except AccessError as error:
        typer.secho(f"it can no longer be watched; run {run} continues: {url}", err=True)
        raise error from None
    if as_json:
        typer.echo(json.dumps({**submitted, **summary}, indent=2))
    else:
        typer.echo("\n" + "\n".join(run_lines(summary)[len(summary["steps"]) :]))
    gave_up = summary["outcome"] == Outcome.CANCELLED and summary["error"]
    raise typer.Exit(EXIT_FAILED if gave_up else exit_code(summary))


POLL_S = 5.0  # between two requests for a run


class RunContinues(SystemExit):
    """The end of a command whose run continues without it."""


class ClusterScreen:
    """The view of a run: a live table, or lines where there is no terminal."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet, self._printed = quiet, dict[str, str]()
        self._live: Any = None
        self._printed_at = time.monotonic()

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

    def __call__(self, status: dict[str, Any]) -> None:
        """Draw the run as it is now."""
        from pipelines.kubeflow.run_report import WAITS

        if self.quiet:
            return
        if self._live is not None:
            self._live.update(_run_table(status), refresh=True)
            return
        for step in status["steps"]:
            shown = step["why"].replace(WAITS, "") if step["status"] == "pending" else step["status"]
            if shown and self._printed.get(step["step"]) != shown:
                self._printed[step["step"]] = shown
                self._print(_step_line(step))
        if time.monotonic() - self._printed_at > 60:
            waiting = [f"{step['step']} is pending" for step in status["steps"] if step["status"] == "pending"]
            active = [step["step"] for step in status["steps"] if step["status"] == "running"] + waiting
            self._print(f"  {', '.join(active) or status['kubeflow_status'].lower() or 'pending'}…")

    def _print(self, line: str) -> None:
        self._printed_at = time.monotonic()
        print(line, flush=True)


def run_lines(summary: dict[str, Any]) -> list[str]:
    """A run of a cluster as lines: its steps, its outcome, the address of its page."""
    from cli.runs.progress import format_duration, reason_lines

    duration = f" after {format_duration(summary['seconds'])}" if summary["seconds"] else ""
    text = summary["error"] or summary["verdict"] or summary["kubeflow_status"].lower()
    stopped = f"{summary['failed_step']} stopped: " if summary["failed_step"] else ""
    return [
        *map(_step_line, summary["steps"]),
        f"{summary['outcome']}{duration}: {stopped}{text}",
        *reason_lines(summary),
        f"run {summary['run']}: {summary['url']}",
    ]


def _step_line(step: dict[str, Any]) -> str:
    from cli.runs.progress import format_duration

    duration = format_duration(step["seconds"]) if step["status"] not in ("pending", "skipped") else ""
    error = step["error"].partition("\n")[0]
    why = f"pending: {step['why']}" if step["status"] == "pending" and step["why"] else step["why"]
    return f"{MARKS[step['status']]} {step['step']:<17} {duration:>7}  {error or why}".rstrip()


def _run_table(summary: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.text import Text

    from rankline.runtime.steps import FLOWS

    known = {step["step"]: step for step in summary["steps"]}
    lines = [Text(f"{summary['name']}   {summary['kubeflow_status'].lower()}", style="bold")]
    step_names = FLOWS[summary["flow"]]
    for name in (*step_names, *(name for name in known if name not in step_names)):
        step = known.get(name, {"step": name, "status": "pending", "error": "", "seconds": 0.0})
        lines.append(
            Text(_step_line(step), style=COLOURS.get(step["status"], "dim"), no_wrap=True, overflow="ellipsis")
        )
    return Group(*lines)

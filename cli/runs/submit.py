"""Begin a run on a Kubeflow cluster, and watch it to its verdict."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.options import AsJson, MapFile, RecipeName, Settings, SourcePath, require_workspace
from cli.runs.cluster import (
    INTERRUPTED,
    Auth,
    Ca,
    Context,
    Host,
    Namespace,
    RunContinues,
    Target,
    access_settings,
    watch_run,
)
from rankline.errors import UsageError

if TYPE_CHECKING:
    from pipelines.recipes import Recipe

HELP = """Run a recipe on a Kubeflow cluster: its whole line, or one of its smaller flows (--flow).

The package is uploaded as a version of the recipe's pipeline, unless the cluster has the same content already; the
run is begun in an experiment, and the address of its page is printed. With --wait it is watched to its end.
--plan tells what would be uploaded, and of each step whether it would be reused and why, as far as that can be known
from here; nothing is uploaded. The workspace on the cluster's volume tells: -w FOLDER says where it is mounted here.
--flow refresh is `rankline refresh` there, of the recipe's own items; --flow features is `rankline features
materialize`, up to the end of the recipe's window. --plan knows the whole line alone.
Exit code: 0 begun, or with --wait: promoted, already serving, waiting for review, published, nothing changed or
materialized; 3 refused by a gate or a check; 2 wrong usage; 1 failed; 130 interrupted, and the run goes on.

Example: rankline submit --recipe movielens --host https://kubeflow.example.com/pipeline --auth dex -n team --wait"""


def submit(
    recipe: RecipeName = "movielens",
    source: SourcePath = None,
    map: MapFile = None,
    settings: Settings = [],  # noqa: B006
    flow: Annotated[
        Literal["train", "refresh", "features"],
        typer.Option(help="The whole line, the catalogue's refresh, or features alone."),
    ] = "train",
    host: Host = "",
    namespace: Namespace = "",
    auth: Auth = "existing",
    context: Context = "",
    ca: Ca = "",
    experiment: Annotated[str, typer.Option("--experiment", "-e", help="Experiment the run belongs to.")] = "rankline",
    account: Annotated[
        str, typer.Option("--service-account", help="Service account its pods run as; the namespace's own if left out.")
    ] = "",
    plan: Annotated[
        bool, typer.Option("--plan", help="Begin nothing: tell which steps would be reused, which would run, and why.")
    ] = False,
    mounted: Annotated[
        Path | None, typer.Option("--workspace", "-w", help="With --plan: where the cluster's volume is mounted here.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Watch it to its verdict.")] = False,
    poll_s: Annotated[float, typer.Option("--poll", min=0.05, help="Seconds between two looks at the run.")] = 5.0,
    as_json: AsJson = False,
) -> None:
    """See HELP."""
    from pipelines.recipes import named

    chosen = named(recipe, settings, source=source, map=map)
    if plan and flow != "train":
        raise UsageError(
            "a plan is told of the whole line alone",
            expected="--plan with --flow train",
            found=f"--plan with --flow {flow}",
            hint=f"`rankline submit --flow {flow}` without --plan; what has not changed is reused all the same",
        )
    if plan:
        asks = bool(host or context or auth != "existing")
        where = Target(host=host, namespace=namespace, auth=auth, context=context, ca=ca, zone="UTC", cluster=asks)
        _print_plan(chosen, where, mounted, as_json=as_json)
        return
    if mounted is not None:
        raise UsageError(
            "a workspace here is nothing to a cluster",
            expected="cluster.workspace and cluster.volume, which say where the steps share theirs",
            found=f"-w {mounted}",
            hint="with --plan it says where that volume is mounted here; `rankline run -w` runs in a folder",
        )
    told = access_settings(host=host, namespace=namespace, auth=auth, context=context, ca=ca)

    from pipelines.kubeflow.client import connected
    from pipelines.kubeflow.packages import upload
    from pipelines.kubeflow.runs import submit as submit_run

    with connected(told) as cluster:
        version = upload(cluster, chosen, flow=flow)
        if not as_json:
            typer.echo(f"{version.pipeline} {version.name} ({'uploaded' if version.uploaded else 'it was there'})")
        submitted = submit_run(cluster, version, experiment=experiment, account=account)
        try:
            if not as_json:
                typer.echo(f"run {submitted.run}\n{submitted.url}")
            elif not wait:
                typer.echo(json.dumps(_run_payload(submitted), indent=2))
        except KeyboardInterrupt:
            typer.secho(f"interrupted; run {submitted.run} goes on: {submitted.url}", err=True)
            raise RunContinues(INTERRUPTED) from None
        if wait:
            watch_run(
                cluster, submitted.run, submitted.url, as_json=as_json, submitted=_run_payload(submitted), poll_s=poll_s
            )


def _print_plan(recipe: Recipe, where: Target, mounted: Path | None, *, as_json: bool) -> None:
    """Print what a run would do."""
    from pipelines.kubeflow.plan import plan

    cluster_workspace = Path(recipe.cluster.workspace)
    here = (
        require_workspace(mounted).resolve()
        if mounted is not None
        else cluster_workspace
        if (cluster_workspace / "runs").is_dir()
        else None
    )
    with where.connected() if where else contextlib.nullcontext() as cluster:
        run_plan = plan(recipe, cluster=cluster, local_workspace=here)
    if as_json:
        typer.echo(run_plan.model_dump_json(indent=2))
        return
    from cli.runs.progress import print_plan

    package = {True: "would be uploaded", False: "is there", None: "the cluster was not asked"}[
        run_plan.cluster.uploaded
    ]
    typer.echo(f"{run_plan.cluster.pipeline} {run_plan.cluster.version} ({package})")
    print_plan(run_plan)
    for note in run_plan.cluster.notes:
        typer.echo(f"note: {note}")


def _run_payload(submitted: object) -> dict[str, object]:
    """A run that was begun, as JSON."""
    import dataclasses

    payload = dataclasses.asdict(submitted)  # type: ignore[call-overload]
    version = payload.pop("version")
    return {**payload, "pipeline": version["pipeline"], "version": version["name"], "uploaded": version["uploaded"]}

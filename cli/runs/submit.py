"""Submit a run to a Kubeflow cluster, and watch it to its end."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.bucket_copy import copy_folder
from cli.options import AsJson, MapFile, RecipeName, Settings, SourcePath, require_workspace
from cli.runs.cluster import (
    Auth,
    Ca,
    Context,
    Host,
    Namespace,
    RunContinues,
    Target,
    access_settings,
    connection,
    watch_run,
)
from cli.runs.run import FlowOption
from rankline.errors import UsageError
from rankline.runtime.outcomes import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from pipelines.kubeflow.client import Access
    from pipelines.recipes import Recipe


def submit(
    recipe: RecipeName = "movielens",
    source: SourcePath = None,
    map: MapFile = None,
    settings: Settings = [],  # noqa: B006
    flow: FlowOption = "train",
    host: Host = "",
    namespace: Namespace = "",
    auth: Auth = "existing",
    context: Context = "",
    ca: Ca = "",
    experiment: Annotated[str, typer.Option("--experiment", "-e", help="Experiment of the run.")] = "rankline",
    account: Annotated[
        str, typer.Option("--service-account", help="Service account of its pods. Default: the namespace's own.")
    ] = "",
    plan: Annotated[
        bool, typer.Option("--plan", help="Start nothing; show which steps would be reused, which would run, and why.")
    ] = False,
    workspace: Annotated[
        str,
        typer.Option(
            "--workspace",
            "-w",
            help="URL of a workspace in a bucket (storage.workspace); with --plan also the folder where the "
            "cluster's volume is mounted on this machine.",
        ),
    ] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Watch the run to its end.")] = False,
    poll_s: Annotated[float, typer.Option("--poll", min=0.05, help="Seconds between two polls of the run.")] = 5.0,
    as_json: AsJson = False,
) -> None:
    """Run a recipe on a Kubeflow cluster: the training pipeline, or a smaller one (--flow).

    The package is uploaded as a version of the recipe's pipeline, unless the cluster has the same content already. The
    run starts in an experiment, and the URL of its page is printed. With --wait it is watched to its end.

    --plan uploads nothing. It shows what would be uploaded, and for each step of the training pipeline whether it would
    be reused and why, as far as that can be known from here. The cluster's workspace decides: it is in a bucket (-w
    URL), or -w FOLDER says where its volume is mounted on this machine.

    --flow refresh runs `rankline refresh` of the recipe's own items there; --flow features runs `rankline features
    materialize` up to the end of the recipe's window.

    With --wait a run is cancelled once a step of it has been pending for longer than it may take.

    Exit code: 0 started, or with --wait: promoted, already serving, waiting for review, published, nothing changed or
    materialized; 3 refused by a gate or a check; 4 another model came to serve meanwhile: submit it again; 2 wrong
    usage; 1 failed, or a step could not begin; 130 cancelled, or interrupted: then the run continues.

    Example: rankline submit --recipe movielens --host https://kubeflow.example.com/pipeline --auth dex -n team --wait
    """
    from pipelines.recipes import named

    mounted = None if "://" in workspace or not workspace else Path(workspace)
    in_bucket = [f"storage.workspace={workspace}"] if workspace and mounted is None else []
    chosen = named(recipe, [*settings, *in_bucket], source=source, map=map)
    _check_options(flow, mounted, plan=plan)
    if plan:
        is_cluster = bool(host or context or auth != "existing")
        where = Target(
            host=host, namespace=namespace, auth=auth, context=context, ca=ca, zone="UTC", cluster=is_cluster
        )
        _print_plan(chosen, where, mounted, as_json=as_json)
        return
    access = access_settings(host=host, namespace=namespace, auth=auth, context=context, ca=ca)
    options = {"experiment": experiment, "account": account}
    _submit_and_watch(access, chosen, flow, options, poll_s=poll_s if wait else None, as_json=as_json)


def _check_options(flow: str, mounted: Path | None, *, plan: bool) -> None:
    if plan and flow != "train":
        raise UsageError(
            "only the training pipeline can be planned",
            expected="--plan with --flow train",
            found=f"--plan with --flow {flow}",
            hint=f"`rankline submit --flow {flow}` without --plan; unchanged steps are reused there too",
        )
    if mounted is not None and not plan:
        raise UsageError(
            "a cluster does not use a workspace of this machine",
            expected="-w URL, or cluster.workspace and cluster.volume: where the cluster's steps share their workspace",
            found=f"-w {mounted}",
            hint="with --plan it says where that volume is mounted here; `rankline run -w` runs in a folder",
        )


def _submit_and_watch(
    access: Access, recipe: Recipe, flow: Any, options: dict[str, str], *, poll_s: float | None, as_json: bool
) -> None:
    """Upload the package, start the run, and watch it unless ``poll_s`` is None."""
    from pipelines.kubeflow.limits import check_limits
    from pipelines.kubeflow.packages import upload
    from pipelines.kubeflow.runs import submit as submit_run

    check_limits({"experiment name": options["experiment"], "service account": options["account"]})
    with connection(access) as cluster:
        version = upload(cluster, recipe, flow=flow)
        if not as_json:
            typer.echo(f"{version.pipeline} {version.name} ({'uploaded' if version.uploaded else 'already there'})")
        submitted = submit_run(cluster, version, **options)
        try:
            if not as_json:
                typer.echo(f"run {submitted.run}\n{submitted.url}")
            elif poll_s is None:
                typer.echo(json.dumps(_run_payload(submitted), indent=2))
        except KeyboardInterrupt:
            typer.secho(f"interrupted; run {submitted.run} continues: {submitted.url}", err=True)
            raise RunContinues(EXIT_INTERRUPTED) from None
        if poll_s is not None:
            watch_run(
                cluster, submitted.run, submitted.url, as_json=as_json, submitted=_run_payload(submitted), poll_s=poll_s
            )


def _print_plan(recipe: Recipe, where: Target, mounted: Path | None, *, as_json: bool) -> None:
    from cli.runs.plan_output import print_plan
    from pipelines.assets.packaged import asset_folder
    from pipelines.kubeflow.plan import plan

    local_workspace = None
    if recipe.storage.workspace:
        copy = copy_folder(recipe.storage.workspace)
        assets = [f"material/{asset_folder(name, copy).name}" for name in recipe.material]
        local_workspace = require_workspace(copy, "profiles", "runs", *assets, suffixes=("",))
    elif mounted is not None:
        local_workspace = require_workspace(mounted).resolve()
    elif Path(recipe.cluster.workspace, "runs").is_dir():
        local_workspace = Path(recipe.cluster.workspace)
    with where.connected() if where else contextlib.nullcontext() as cluster:
        run_plan = plan(recipe, cluster=cluster, local_workspace=local_workspace)
    if as_json:
        typer.echo(run_plan.model_dump_json(indent=2))
        return
    uploaded = {True: "would be uploaded", False: "is there", None: "the cluster was not asked"}
    typer.echo(f"{run_plan.cluster.pipeline} {run_plan.cluster.version} ({uploaded[run_plan.cluster.uploaded]})")
    print_plan(run_plan)
    for note in run_plan.cluster.notes:
        typer.echo(f"note: {note}")


def _run_payload(submitted: object) -> dict[str, object]:
    """A run that was submitted, as JSON."""
    import dataclasses

    payload = dataclasses.asdict(submitted)  # type: ignore[call-overload]
    version = payload.pop("version")
    return {**payload, "pipeline": version["pipeline"], "version": version["name"], "uploaded": version["uploaded"]}

"""Begin a run on a Kubeflow cluster, and watch it to its verdict."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from cli.cluster import INTERRUPTED, Auth, Ca, Context, GoesOn, Host, Namespace, access, watched
from cli.options import AsJson, MapFile, RecipeName, Settings, SourcePath

HELP = """Run a recipe's whole line on a Kubeflow cluster.

The package is uploaded as a version of the recipe's pipeline, unless the cluster has the same content already; the
run is begun in an experiment, and the address of its page is printed. With --wait it is watched to its end.
Exit code: 0 begun, or with --wait: promoted, already serving or waiting for review; 3 refused by a gate; 2 wrong
usage; 1 failed; 130 interrupted, and the run goes on.

Example: rankline submit --recipe movielens --host https://kubeflow.example.com/pipeline --auth dex -n team --wait"""


def submit(
    recipe: RecipeName = "movielens",
    source: SourcePath = None,
    map: MapFile = None,
    settings: Settings = [],  # noqa: B006
    host: Host = "",
    namespace: Namespace = "",
    auth: Auth = "existing",
    context: Context = "",
    ca: Ca = "",
    experiment: Annotated[str, typer.Option("--experiment", "-e", help="Experiment the run belongs to.")] = "rankline",
    account: Annotated[
        str, typer.Option("--service-account", help="Service account its pods run as; the namespace's own if left out.")
    ] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Watch it to its verdict.")] = False,
    poll_s: Annotated[float, typer.Option("--poll", min=0.05, help="Seconds between two looks at the run.")] = 5.0,
    as_json: AsJson = False,
) -> None:
    """See HELP."""
    from pipelines.recipes import named

    # a plan of what will be reused goes here, before anything is uploaded
    chosen = named(recipe, settings, source=source, map=map)
    told = access(host=host, namespace=namespace, auth=auth, context=context, ca=ca)

    from pipelines.kubeflow.access import connected
    from pipelines.kubeflow.runs import submit as begin
    from pipelines.kubeflow.upload import upload

    with connected(told) as cluster:
        version = upload(cluster, chosen)
        if not as_json:
            typer.echo(f"{version.pipeline} {version.name} ({'uploaded' if version.uploaded else 'it was there'})")
        begun = begin(cluster, version, experiment=experiment, account=account)
        try:
            if not as_json:
                typer.echo(f"run {begun.run}\n{begun.url}")
            elif not wait:
                typer.echo(json.dumps(_told(begun), indent=2))
        except KeyboardInterrupt:
            typer.secho(f"interrupted; run {begun.run} goes on: {begun.url}", err=True)
            raise GoesOn(INTERRUPTED) from None
        if wait:
            watched(cluster, begun.run, begun.url, as_json=as_json, told=_told(begun), poll_s=poll_s)


def _told(begun: object) -> dict[str, object]:
    """A run that was begun, as JSON."""
    import dataclasses

    told = dataclasses.asdict(begun)  # type: ignore[call-overload]
    version = told.pop("version")
    return {**told, "pipeline": version["pipeline"], "version": version["name"], "uploaded": version["uploaded"]}

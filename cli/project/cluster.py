"""Prepare a namespace of a cluster: manifests to review and apply, and secrets from the environment."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.options import MapFile, RecipeName, Settings, SourcePath

if TYPE_CHECKING:
    from pipelines.recipe import Recipe

app = typer.Typer(help="Prepare a namespace of a cluster for a recipe.", no_args_is_help=True)
STORE_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION")  # where the bucket is

ClusterNamespace = Annotated[
    str, typer.Option("--namespace", "-n", envvar="RANKLINE_KFP_NAMESPACE", help="Namespace of the runs' pods.")
]


@app.command("init")
def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to write.")],
    namespace: ClusterNamespace,
    recipe: RecipeName = "movielens",
    source: SourcePath = None,
    map: MapFile = None,
    settings: Settings = [],  # noqa: B006
    server: Annotated[
        str, typer.Option(help="Image of the server, pinned by digest. Default: that of cluster.images.evaluate.")
    ] = "",
    access_mode: Annotated[
        Literal["ReadWriteMany", "ReadWriteOnce"],
        typer.Option(help="Access mode of the volume's claim; ReadWriteOnce is enough on a single node."),
    ] = "ReadWriteMany",
    size: Annotated[str, typer.Option(help="Size of the volume's claim.")] = "20Gi",
    name: Annotated[
        str,
        typer.Option(help="Name of the server, the service account and the jobs; another one for a second recipe."),
    ] = "rankline",
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there with other content.")] = False,
) -> None:
    """Write the manifests that a recipe needs in one namespace, to review, commit and apply.

    They are a service account, the volume (none with storage.workspace in a bucket), a job that fetches the recipe's
    data and weights, the server with its service, MLflow's pages where the recipe tracks in a database, and a job that
    rolls back. All fit Pod Security `restricted`, except volume-owner.yaml, which few storages need. The module
    on_cluster has the recipe with the settings that you give here. No secret is written: `rankline cluster secrets`
    prints them.

    Example:

      rankline cluster init team -r acme:shop -n team

      kubectl apply -k team
    """
    from pipelines.kubeflow.manifests.write import SetUp, recipe_reference, write_manifests
    from pipelines.recipes import named

    chosen = named(recipe, settings, source=source, map=map)
    set_up = SetUp(
        chosen, recipe, namespace, tuple(settings), source=source, map=map, server=server, access_mode=access_mode,
        size=size, name=name,
    )  # fmt: skip
    typer.echo("\n".join(f"  {name}" for name in write_manifests(set_up, folder, overwrite=force)))
    for note in _notes(chosen, source):
        typer.secho(f"note: {note}", err=True)
    typer.echo(f"wrote {folder}. Next:")
    reference = shlex.quote(recipe_reference(folder))
    if chosen.cluster.secrets:
        typer.echo(f"  rankline cluster secrets -r {reference} -n {namespace} | kubectl apply -f -")
    typer.echo(f"  kubectl apply -k {shlex.quote(str(folder))}")
    typer.echo(f"  rankline doctor {reference} -n {namespace} --host …")
    typer.echo(f"  rankline submit -r {reference} -n {namespace} --host … --wait")


def _notes(recipe: Recipe, source: str | None) -> Iterator[str]:
    """What pods may lack that a run on this machine has."""
    has_credentials = any(name.startswith("AWS_") for name in recipe.cluster.secrets)
    if recipe.storage.workspace.startswith("s3") and not has_credentials:
        yield (
            f"no secret names the credentials of {recipe.storage.workspace}; unless the pods have a role of their own, "
            "give them: --set cluster.secrets.AWS_ACCESS_KEY_ID=rankline-s3/key, and likewise AWS_SECRET_ACCESS_KEY"
        )
    in_bucket = any(place.startswith("s3://") for place in (recipe.storage.workspace, recipe.storage.repository or ""))
    unnamed = [name for name in STORE_VARIABLES if os.environ.get(name) and name not in recipe.cluster.secrets]
    if in_bucket and unnamed:
        yield (
            f"{' and '.join(unnamed)} is set here and not in the pods; if they need it to reach the bucket: "
            f"--set cluster.secrets.{unnamed[0]}=rankline-s3/{unnamed[0].rpartition('_')[2].lower()}"
        )
    if source and "://" not in source and not source.startswith(("{workspace}", f"{recipe.cluster.workspace}/")):
        yield f"pods read --source {source} in {recipe.cluster.workspace} or in a bucket, and not on this machine"


@app.command("secrets")
def secrets(
    namespace: ClusterNamespace,
    recipe: RecipeName = "movielens",
    source: SourcePath = None,
    map: MapFile = None,
    settings: Settings = [],  # noqa: B006
) -> None:
    """Print the secrets that a recipe names (cluster.secrets), with the values of the environment.

    Example: rankline cluster secrets -r acme:shop -n team | kubectl apply -f -
    """
    import yaml

    from pipelines.kubeflow.manifests.write import secret_manifests
    from pipelines.recipes import named

    chosen = named(recipe, settings, source=source, map=map)
    manifests = secret_manifests(chosen, namespace, from_environment=True)
    typer.echo(yaml.safe_dump_all(manifests, sort_keys=False), nl=False)

"""The pipeline of a recipe on the cluster, and its versions, named by their content so that none is uploaded twice."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pipelines.kubeflow.client import Cluster, quiet_stdout
from pipelines.kubeflow.errors import AlreadyExists
from pipelines.kubeflow.limits import check_limits
from pipelines.package import compile_flow
from pipelines.recipes import Recipe
from rankline.errors import UsageError
from rankline.io import digest
from rankline.runtime.steps import Flow

PREFIX = "rankline-"  # of the names of our pipelines
_PAGE = 100


@dataclass(frozen=True)
class Version:
    """One version of a pipeline on the cluster."""

    pipeline: str  # its name
    pipeline_id: str
    name: str  # of the version: the beginning of its content's digest
    version_id: str
    uploaded: bool  # False where the cluster had it already


def upload(
    cluster: Cluster,
    recipe: Recipe,
    *,
    schedule: dict[str, Any] | None = None,
    flow: Flow = "train",
    metadata: str = "",
) -> Version:
    """The version with this recipe's package of a ``flow``, uploaded where the cluster does not have that content.

    ``metadata`` is added to the description of the package.

    Raises:
        UsageError: the cluster would refuse the package, or the name of its pipeline stands for another flow.
        AccessError: the cluster does not answer, or refuses the request.
    """
    pipeline = pipeline_name(recipe, flow)
    with tempfile.TemporaryDirectory() as folder:
        described = dataclasses.replace(recipe, description=recipe.description + metadata)
        package = compile_flow(described, Path(folder) / "flow.yaml", schedule=schedule, flow=flow)
        name = version_name(recipe, package)
        pipeline_id = _get_or_create_pipeline(cluster, pipeline, recipe.description)
        version_id = _version_id(cluster, pipeline_id, name)
        uploaded = False
        if version_id is None:
            with contextlib.suppress(AlreadyExists), quiet_stdout():
                version_id = cluster.client.upload_pipeline_version(
                    str(package), name, pipeline_id=pipeline_id
                ).pipeline_version_id
                uploaded = True
            # somebody else may have uploaded the same content at the same time
            version_id = version_id or _version_id(cluster, pipeline_id, name) or ""
    return Version(pipeline, pipeline_id, name, version_id, uploaded)


def pipeline_name(recipe: Recipe, flow: Flow = "train") -> str:
    """The name of the pipeline of a recipe's flow, see `parse_pipeline_name`.

    Raises:
        UsageError: the name would stand for a flow of another recipe, or the cluster cannot store it.
    """
    name = f"{PREFIX}{recipe.name}" if flow == "train" else f"{PREFIX}{recipe.name}-{flow}"
    if (other := parse_pipeline_name(name)) != (recipe.name, flow):
        raise UsageError(
            f"on the cluster the pipeline name {name} belongs to a flow of another recipe",
            expected=f"a recipe whose name does not end in -{other[1]}",
            found=recipe.name,
            hint=f"rename the recipe; this name stands for the {other[1]} flow of the recipe {other[0]!r}",
        )
    check_limits({"pipeline name": name, "pipeline description": recipe.description})
    return name


def parse_pipeline_name(pipeline: str) -> tuple[str, Flow]:
    """The recipe and the flow of one of our pipelines."""
    name = pipeline.removeprefix(PREFIX)
    for flow in get_args(Flow):
        if flow != "train" and name.endswith(f"-{flow}"):
            return name.removesuffix(f"-{flow}"), flow
    return name, "train"


def version_name(recipe: Recipe, package: Path) -> str:
    """The name of a package's version.

    Raises:
        UsageError: the cluster cannot store that name, or the package.
    """
    name = f"{recipe.name}-{digest.file_digest(package)[:16]}"
    check_limits({"pipeline version name": name, "package": package.read_text()})
    return name


def find_version(cluster: Cluster, recipe: Recipe, version: str) -> str | None:
    """The id of a version of a recipe's pipeline, where the cluster has it."""
    pipeline_id = _pipeline_id(cluster, pipeline_name(recipe))
    return _version_id(cluster, pipeline_id, version) if pipeline_id is not None else None


def list_pipelines(cluster: Cluster) -> dict[str, str]:
    """Id -> name of each of our pipelines on the cluster."""
    query = _filter("IS_SUBSTRING", PREFIX)
    pipelines = paginate(
        lambda **page: cluster.client.list_pipelines(namespace=cluster.namespace_or_none, filter=query, **page),
        "pipelines",
    )
    return {each.pipeline_id: each.display_name for each in pipelines if each.display_name.startswith(PREFIX)}


def list_own_runs(
    cluster: Cluster, pipelines: Collection[str], *, limit: int | None = 200, experiment_id: str = ""
) -> list[Any]:
    """Those of the latest runs of a cluster, or of an experiment, that are of these pipelines; latest first."""
    scope = {"experiment_id": experiment_id} if experiment_id else {"namespace": cluster.namespace_or_none}
    runs = paginate(
        lambda **page: cluster.client.list_runs(**scope, **page), "runs", limit=limit, sort_by="created_at desc"
    )
    return [
        run
        for run in runs
        if run.pipeline_version_reference and run.pipeline_version_reference.pipeline_id in pipelines
    ]


def paginate(
    fetch_page: Callable[..., Any], attribute: str, *, limit: int | None = None, sort_by: str = ""
) -> list[Any]:
    """The entries of a list that comes in pages, at most ``limit``."""
    entries: list[Any] = []
    token = ""
    while True:
        page = fetch_page(page_token=token, page_size=min(_PAGE, limit or _PAGE), sort_by=sort_by)
        entries += getattr(page, attribute) or []
        token = page.next_page_token or ""
        if not token or (limit and len(entries) >= limit):
            return entries[:limit]


def _get_or_create_pipeline(cluster: Cluster, name: str, description: str) -> str:
    """The id of a pipeline, which is created where there is none."""
    import kfp_server_api

    if (existing := _pipeline_id(cluster, name)) is not None:
        return existing
    request = kfp_server_api.V2beta1Pipeline(
        display_name=name, description=description, namespace=cluster.namespace_or_none
    )
    # created empty: uploading a package as a pipeline would name its first version after the pipeline
    with contextlib.suppress(AlreadyExists):
        created_id: str = cluster.client._pipelines_api.pipeline_service_create_pipeline(pipeline=request).pipeline_id
        return created_id
    return _pipeline_id(cluster, name) or ""


def _pipeline_id(cluster: Cluster, name: str) -> str | None:
    query = _filter("EQUALS", name)
    matches = cluster.client.list_pipelines(namespace=cluster.namespace_or_none, filter=query).pipelines or []
    return matches[0].pipeline_id if matches else None


def _version_id(cluster: Cluster, pipeline_id: str, name: str) -> str | None:
    query = _filter("EQUALS", name)
    matches = cluster.client.list_pipeline_versions(pipeline_id, filter=query).pipeline_versions or []
    return matches[0].pipeline_version_id if matches else None


def _filter(operation: str, name: str) -> str:
    return json.dumps({"predicates": [{"operation": operation, "key": "display_name", "stringValue": name}]})

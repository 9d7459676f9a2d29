"""The pipeline of a recipe on the cluster, and its versions: each named by what is in it, so none is there twice."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pipelines.kubeflow.client import AlreadyExists, Cluster
from pipelines.package import compile_flow
from pipelines.recipes import Recipe
from pipelines.runs.folder import Flow
from rankline.errors import UsageError
from rankline.io import digest

PREFIX = "rankline-"  # of the name of every pipeline of ours: that of its flow
_PAGE = 100


@dataclass(frozen=True)
class Version:
    """One version of a pipeline on the cluster."""

    pipeline: str  # its name
    pipeline_id: str
    name: str  # of the version: the beginning of its content's digest
    version_id: str
    uploaded: bool  # just now; otherwise it was there


def upload(
    cluster: Cluster, recipe: Recipe, *, schedule: dict[str, Any] | None = None, flow: Flow = "train"
) -> Version:
    """The version that holds this recipe's package of a ``flow``; uploaded only where the cluster has no such content.

    Raises:
        UsageError: the package is not one that the cluster takes, or its pipeline's name is another flow's.
        AccessError: the cluster does not answer, or lets nobody in.
    """
    pipeline = pipeline_name(recipe, flow)
    with tempfile.TemporaryDirectory() as folder:
        package = compile_flow(recipe, Path(folder) / "flow.yaml", schedule=schedule, flow=flow)
        name = version_name(recipe, package)
        pipeline_id = _get_or_create_pipeline(cluster, pipeline, recipe.description)
        version_id = _version_id(cluster, pipeline_id, name)
        uploaded = False
        if version_id is None:
            with contextlib.suppress(AlreadyExists), contextlib.redirect_stdout(io.StringIO()):
                version_id = cluster.client.upload_pipeline_version(
                    str(package), name, pipeline_id=pipeline_id
                ).pipeline_version_id
                uploaded = True
            # of two who upload the same at once, the slower one is told so, and takes the other's
            version_id = version_id or _version_id(cluster, pipeline_id, name) or ""
    return Version(pipeline, pipeline_id, name, version_id, uploaded)


def pipeline_name(recipe: Recipe, flow: Flow = "train") -> str:
    """The name of the pipeline of a recipe's flow; `named` reads it.

    Raises:
        UsageError: the whole line of this recipe would be taken for a smaller flow of another.
    """
    name = f"{PREFIX}{recipe.name}" if flow == "train" else f"{PREFIX}{recipe.name}-{flow}"
    if (other := parse_pipeline_name(name)) != (recipe.name, flow):
        raise UsageError(
            f"the pipeline {name} on the cluster is that of another recipe's flow",
            expected=f"a recipe whose name does not end in -{other[1]}",
            found=recipe.name,
            hint=f"give it another name; this one is the {other[1]} flow of the recipe {other[0]!r}",
        )
    return name


def parse_pipeline_name(pipeline: str) -> tuple[str, Flow]:
    """The recipe and the flow that a pipeline of ours is of."""
    name = pipeline.removeprefix(PREFIX)
    for flow in get_args(Flow):
        if flow != "train" and name.endswith(f"-{flow}"):
            return name.removesuffix(f"-{flow}"), flow
    return name, "train"


def version_name(recipe: Recipe, package: Path) -> str:
    """The name of the version that a package is."""
    return f"{recipe.name}-{digest.file_digest(package)[:16]}"


def find_version(cluster: Cluster, recipe: Recipe, version: str) -> str | None:
    """The id of a version of a recipe's pipeline, where the cluster has it."""
    pipeline_id = _pipeline_id(cluster, pipeline_name(recipe))
    return _version_id(cluster, pipeline_id, version) if pipeline_id is not None else None


def list_pipelines(cluster: Cluster) -> dict[str, str]:
    """Id -> name of every pipeline of ours on the cluster."""
    query = _filter("IS_SUBSTRING", PREFIX)
    found_pipelines = paginate(
        lambda **page: cluster.client.list_pipelines(namespace=cluster.namespace_or_none, filter=query, **page),
        "pipelines",
    )
    return {each.pipeline_id: each.display_name for each in found_pipelines if each.display_name.startswith(PREFIX)}


def paginate(
    fetch_page: Callable[..., Any], attribute: str, *, limit: int | None = None, sort_by: str = ""
) -> list[Any]:
    """All entries of a list that comes in pages; not more than ``most``."""
    entries: list[Any] = []
    token = ""
    while True:
        page = fetch_page(page_token=token, page_size=min(_PAGE, limit or _PAGE), sort_by=sort_by)
        entries += getattr(page, attribute) or []
        token = page.next_page_token or ""
        if not token or (limit and len(entries) >= limit):
            return entries[:limit]


def _get_or_create_pipeline(cluster: Cluster, name: str, description: str) -> str:
    """The id of the pipeline of that name, made where there is none."""
    import kfp_server_api

    if (found := _pipeline_id(cluster, name)) is not None:
        return found
    request = kfp_server_api.V2beta1Pipeline(
        display_name=name, description=description, namespace=cluster.namespace_or_none
    )
    # made empty: uploading a package as a pipeline would name its first version after the pipeline
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

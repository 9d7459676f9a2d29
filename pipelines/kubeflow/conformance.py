"""The rules by which the Kubeflow API server refuses a package, so that Rankline refuses it first."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.kubeflow.limits import LIMITS
from rankline.errors import UsageError

SCHEMA = "2.1.0"
PIPELINE_NAME = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
PINNED_IMAGE = re.compile(r"^[a-z0-9][^@\s]*@sha256:[0-9a-f]{64}$")


def check_package(path: Path) -> None:
    """Refuse a package that the API server would refuse.

    Raises:
        UsageError: listing every rule that it breaks.
    """
    problems = list(package_problems(path))
    if problems:
        raise UsageError(
            "the Kubeflow API server would refuse this package",
            expected="one pipeline document, at most one platform document, known fields, lower-case names",
            found="; ".join(problems),
            where=str(path),
            hint="compile it again with this version of Rankline",
        )


def package_problems(path: Path) -> Iterator[str]:
    """Each rule that a package breaks, as a phrase."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast
    documents = [each for each in yaml.load_all(path.read_text(), loader) if each]
    pipelines = [each for each in documents if "pipelineInfo" in each]
    platforms = [each for each in documents if "platforms" in each]
    if len(pipelines) != 1:
        yield f"{len(pipelines)} pipeline documents"
    if len(platforms) > 1:
        yield f"{len(platforms)} platform documents"
    if len(pipelines) + len(platforms) != len(documents):
        yield "a document that is neither a pipeline nor a platform"
    for pipeline in pipelines:
        yield from _pipeline_problems(pipeline)
    for platform in platforms:
        yield from _platform_problems(platform)


def _pipeline_problems(pipeline: dict[str, Any]) -> Iterator[str]:
    if pipeline.get("schemaVersion") != SCHEMA:
        yield f"schemaVersion {pipeline.get('schemaVersion')} (only {SCHEMA} is known)"
    name = pipeline.get("pipelineInfo", {}).get("name", "")
    if not PIPELINE_NAME.match(name) or len(name) > LIMITS["pipeline name"].most:
        yield f"pipeline name {name!r}"
    executors = pipeline.get("deploymentSpec", {}).get("executors", {})
    for label, executor in executors.items():
        image = executor.get("container", {}).get("image", "")
        if not PINNED_IMAGE.match(image):
            yield f"{label}: image {image!r} is not pinned by digest"
    components = pipeline.get("components", {})
    for label, component in {"root": pipeline.get("root", {}), **components}.items():
        executor_label = component.get("executorLabel")
        if executor_label and executor_label not in executors:
            yield f"{label}: no executor {executor_label!r}"
        for task in component.get("dag", {}).get("tasks", {}).values():
            if task.get("componentRef", {}).get("name") not in components:
                yield f"{label}: a task refers to no component"
            for name, argument in task.get("inputs", {}).get("parameters", {}).items():
                constant = argument.get("runtimeValue", {}).get("constant")
                # a cluster replaces a placeholder only where it is the whole string
                if isinstance(constant, dict | list) and "{{$." in str(constant):
                    yield f"{label}: parameter {name} has a placeholder inside a structure"
    from kfp.pipeline_spec import pipeline_spec_pb2 as known

    yield from _unknown_fields(pipeline, known.PipelineSpec())
    yield from _unknown_fields(pipeline.get("deploymentSpec", {}), known.PipelineDeploymentConfig())


def _platform_problems(platform: dict[str, Any]) -> Iterator[str]:
    from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes
    from kfp.pipeline_spec import pipeline_spec_pb2 as known

    yield from _unknown_fields(platform, known.PlatformSpec())
    for platform_spec in platform["platforms"].values():
        for label, executor in platform_spec.get("deploymentSpec", {}).get("executors", {}).items():
            for problem in _unknown_fields(executor, kubernetes.KubernetesExecutorConfig()):
                yield f"{label}: {problem}"


def _unknown_fields(document: dict[str, Any], message: Any) -> Iterator[str]:
    """Fields that the server's message type does not have."""
    from google.protobuf import json_format

    try:
        json_format.ParseDict(document, message)
    except json_format.ParseError as error:
        yield str(error)

"""A cluster that a recipe is to be submitted to: Kubeflow's API, what Kubernetes has for it, its images and stores."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cli.project.checks.mlflow import mlflow
from cli.project.checks.model import Check, CheckContext, Finding
from cli.project.checks.model_registry import repository
from cli.project.checks.stores import servers
from rankline.errors import AccessError, RanklineError

if TYPE_CHECKING:
    from pipelines.kubeflow.client import Cluster

SYSTEM = "kubeflow"  # namespace of Kubeflow Pipelines itself, and of the runs where it has a single user
SINGLE_USER, MULTI_USER = "pipeline-runner", "default-editor"  # service accounts that Kubeflow creates


def cluster(context: CheckContext) -> Iterator[Finding]:
    """Kubeflow's API answers, Kubernetes has what the recipe names, and the registry its images."""
    from pipelines.kubeflow.kubernetes_api import open_kubernetes
    from pipelines.kubeflow.preflight.images import images
    from pipelines.kubeflow.preflight.model import Preflight
    from pipelines.kubeflow.preflight.pull_secrets import pull_credentials
    from pipelines.kubeflow.preflight.run import run_preflight

    assert context.cluster is not None
    with contextlib.ExitStack() as stack:
        connection = None
        try:
            connection = stack.enter_context(context.cluster.connected())
            yield _answer(connection)
            yield from _schedules(connection)
            yield from _runs(connection)
        except RanklineError as error:
            yield Finding("API", "fail", error.one_line, error.hint or "check --host and --auth: docs/cluster.md")
        named = connection.namespace if connection else context.cluster.namespace
        namespace = connection.pod_namespace() if connection else named or SYSTEM
        try:
            kubernetes = open_kubernetes(context.cluster.context)
        except AccessError as error:
            yield Finding("Kubernetes", "warn", f"not known: {error.one_line}", error.hint)
            yield from images(context.recipe, account=context.account, pull=None)
            return
        yield Finding("Kubernetes", "ok", f"{kubernetes.host}, namespace {namespace}")
        account = context.account or (MULTI_USER if named else SINGLE_USER)
        preflight = Preflight(context.recipe, kubernetes, namespace, account, SYSTEM)
        yield from run_preflight(preflight)
        yield from images(context.recipe, account=account, pull=pull_credentials(preflight))


def _answer(connection: Cluster) -> Finding:
    if connection.ignored_namespace:
        message = f"{connection.host} has a single user and ignores namespace {connection.ignored_namespace}"
        return Finding("API", "warn", message, f"leave out --namespace: runs go to {connection.pod_namespace()}")
    users = f"several users, namespace {connection.namespace}" if connection.namespace else "a single user"
    return Finding("API", "ok", f"{connection.host} answers: {users}")


def _schedules(connection: Cluster) -> Iterator[Finding]:
    """What fires or may fire without being governed by `rankline schedule`."""
    from pipelines.kubeflow.orphans import unlisted, unreadable

    orphans, unknown = unreadable(connection), None
    try:
        orphans += unlisted(connection)
    except AccessError as error:
        unknown = error
    for each in orphans:
        yield Finding(f"{each.kind} {each.name}", "warn", f"{each.reason} (pipeline {each.pipeline})", each.remedy)
    if unknown:
        message = f"not known whether one fires that the API does not list: {unknown.one_line}"
        yield Finding("schedules", "warn", message, unknown.hint or "a kubeconfig that may list scheduledworkflows")
    elif not orphans:
        yield Finding("schedules", "ok", "none fires that `rankline schedule` does not list")


def _runs(connection: Cluster) -> Iterator[Finding]:
    """Runs that wait for hours for a pod that cannot begin."""
    from pipelines.kubeflow.waiting import find_waiting

    waiting = find_waiting(connection)
    for each in waiting:
        what = f"{each.step or 'it'} has been pending for {each.seconds / 3600:.1f} hours"
        yield Finding(f"run {each.run}", "warn", f"{what}: {each.reason} (pipeline {each.pipeline})", each.remedy)
    if not waiting:
        yield Finding("runs", "ok", "none has been waiting for hours")


def stores(context: CheckContext) -> Iterator[Finding]:
    """The stores that the recipe names, as far as they are not on the cluster's volume."""
    if "://" in context.recipe.storage.resolved.repository:
        yield from repository(context)
    uri = context.recipe.promote.tracking_uri
    if uri and not uri.startswith("sqlite:"):
        yield from mlflow(context)
    yield from servers(context)


CHECKS: tuple[Check, ...] = (cluster, stores)

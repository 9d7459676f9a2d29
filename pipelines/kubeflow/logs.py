"""The logs of a run's pods, as the API server passes them on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.run_summary import kubectl_logs_command, step_of
from pipelines.steps import STEPS
from rankline.errors import AccessError, RanklineError, UsageError

_POD_HASH = re.compile(r"-(\d+)$")  # the last part of a pod's name and of its node's id


def pods_of(run: Any, step: str = "") -> list[tuple[str, str]]:
    """(step, pod) of each pod that did the work of a step, in the order of the steps."""
    tasks = list((run.run_details and run.run_details.task_details) or [])
    by_hash = {match[1]: task for task in tasks if (match := _hash_of(task))}
    pods = [
        (name, pod)
        for name in ([step] if step else STEPS)
        for task in reversed(tasks)
        if step_of(task.display_name or "") == name
        for pod in _pods_below(task, by_hash)
    ]
    return list(dict.fromkeys(pods))


def _pods_below(task: Any, by_hash: dict[str, Any]) -> Iterator[str]:
    """The pods of a task: its own, or those of the tasks below it that do its work."""
    below = [by_hash.get(match[1]) for child in task.child_tasks or [] if (match := _hash_of(child))]
    # the steps that follow in the graph hang below a task, too
    own = [
        each for each in below if each and (each.display_name or "").startswith(("executor", f"{task.display_name}("))
    ]
    if own:
        for each in reversed(own):
            yield from _pods_below(each, by_hash)
    elif task.pod_name:
        yield task.pod_name


def _hash_of(task: Any) -> re.Match[str] | None:
    return _POD_HASH.search(task.pod_name or task.task_id or "")


def read_log(cluster: Cluster, run: str, pod: str, *, missing_ok: bool) -> list[str]:
    """The lines of a pod's log; none with ``missing_ok`` where a pod that has just started has no log.

    Raises:
        RanklineError: the API server does not pass the log on; the error has the command for kubectl.
    """
    api = cluster.client._run_api.api_client
    try:
        response = api.call_api(
            "/apis/v1alpha1/runs/{run_id}/nodes/{node_id}/log", "GET", {"run_id": run, "node_id": pod}, [], {},
            auth_settings=["Bearer"], _preload_content=False, _return_http_data_only=True,
        )  # fmt: skip
        text: str = response.data.decode(errors="replace")
        if text.lstrip().startswith("<"):
            raise AccessError("a page in place of a log")
        return text.splitlines()
    except (AccessError, UsageError) as error:
        if missing_ok:
            return []
        raise RanklineError(
            "the API server does not pass on the log of this step",
            found=error.message + (f": {error.found}" if error.found else ""),
            where=pod,
            hint=kubectl_logs_command(cluster, run),
        ) from error

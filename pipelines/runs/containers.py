"""Steps in containers on this machine: Kubeflow's Docker runner with a container handler of our own.

Kubeflow's handler mounts only the pipeline's root, gives every step the same limits, reports success for a container
that disappears early, and leaves one behind when it is interrupted. Ours mounts the workspace at its own path, takes
each step's limits from the recipe, keeps a container until its exit code is read, and always removes it.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components import images
from pipelines.placement import Resources
from pipelines.quantities import parse_quantity
from pipelines.recipe import Recipe, step_settings
from pipelines.steps import STEPS, row_of_task
from rankline.errors import RanklineError, UsageError
from rankline.io import digest
from rankline.runtime import ledger

# labels of a step's container
RUN_LABEL, WORKSPACE_LABEL, RUNNER_LABEL = "rankline.run", "rankline.workspace", "rankline.runner"
CODE_LABEL = "rankline.code"  # label of an image: the digest of the code that it holds
# in every image
PACKAGES = ("rankline", "components", "pipelines", "feature_repo", "serving", "onboarding", "review", "cli")
# the environment variables that a step gets; the recipe's cluster.secrets name further ones
PASSED_ENVIRONMENT = ("OMP_NUM_THREADS", "MLFLOW_TRACKING_URI", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
OUT_OF_MEMORY = 137  # 128 + SIGKILL, by the kernel's out-of-memory killer


def code_digest(source_root: Path | None = None) -> str:
    """The digest of the code under ``source_root``, by default the code that runs, as images have it in a label."""
    source_root = source_root or Path(__file__).resolve().parents[2]
    return digest.json_digest(
        {
            path.relative_to(source_root).as_posix(): digest.file_digest(path)
            for package in PACKAGES
            for path in sorted((source_root / package).rglob("*.py"))
        }
    )


def image_of(recipe: Recipe, step: str) -> str:
    """The image that a step runs in: the recipe's, or the one that `rankline build` builds."""
    kind = row_of_task(step).image
    return getattr(recipe.cluster.images, kind) or str(getattr(images, kind.upper()))


@contextmanager
def engine() -> Iterator[Any]:
    """A client of this machine's Docker engine.

    Raises:
        RanklineError: none answers.
    """
    import docker

    try:
        client = docker.from_env()
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        raise RanklineError(
            "no Docker engine answers",
            expected="a running engine that this user may use (`docker info` succeeds)",
            found=" ".join(str(error).split())[:200],
            hint="install and start Docker Engine, join the `docker` group, or set DOCKER_HOST; "
            "`--runner local` needs none",
        ) from error
    try:
        yield client
    finally:
        client.close()


def require(recipe: Recipe, workspace: Path) -> None:
    """Require, before anything runs, a writable workspace and every step's image with the code that runs here.

    Raises:
        RanklineError: no engine answers.
        UsageError: an image is missing or holds other code, or the workspace belongs to another user.
    """
    if workspace.exists() and workspace.stat().st_uid != os.getuid():
        raise UsageError(
            "the workspace belongs to another user, and steps in containers may not write there",
            expected=f"a folder of uid {os.getuid()}",
            found=f"uid {workspace.stat().st_uid}",
            where=str(workspace),
            hint="choose another --workspace, or run as its owner",
        )
    require_current_code(recipe)


def require_current_code(recipe: Recipe) -> None:
    """Require the image of every step, with the code that runs here.

    Raises:
        RanklineError: no engine answers.
        UsageError: an image is missing or holds other code.
    """
    import docker

    expected = code_digest()
    with engine() as client:
        for step in STEPS:
            name = image_of(recipe, step)
            try:
                labels = client.images.get(name).labels
            except docker.errors.ImageNotFound as error:
                raise UsageError(
                    f"the image of {step} is not on this machine",
                    expected=name,
                    found="no such image",
                    hint="`rankline build all` builds the images, `docker pull` downloads one from your registry",
                ) from error
            if labels.get(CODE_LABEL) != expected:
                raise UsageError(
                    f"the image of {step} holds other code than this",
                    expected=f"code {expected[:12]}",
                    found=f"code {labels.get(CODE_LABEL, 'unknown')[:12]}",
                    where=name,
                    hint="`rankline build all` builds the images again; unchanged layers are reused",
                )


def libraries(recipe: Recipe) -> Callable[[str], Mapping[str, str]]:
    """A function that returns the library versions in the image of a step, which are part of its cache key."""

    @functools.cache
    def installed(image: str) -> Mapping[str, str]:
        script = (
            "import json; from rankline.runtime.step_cache import library_versions;"
            " print(json.dumps(dict(library_versions())))"
        )
        with engine() as client:
            output = client.containers.run(
                image, ["-c", script], entrypoint=["python"], remove=True, network_mode="none", stderr=False
            )
        versions: dict[str, str] = json.loads(output)
        return versions

    return lambda step: installed(image_of(recipe, step))


def remove(run: str) -> None:
    """Remove the containers that a run has left."""
    with engine() as client:
        _remove_labelled(client, f"{RUN_LABEL}={run}")


def remove_orphans(workspace: Path) -> None:
    """Remove the containers in this workspace whose runner was killed together with its watcher."""
    import psutil

    with engine() as client:
        for container in client.containers.list(all=True, filters={"label": f"{WORKSPACE_LABEL}={workspace}"}):
            if not psutil.pid_exists(int(container.labels.get(RUNNER_LABEL, 0))):
                _remove_container(container)


def _remove_labelled(client: Any, label: str) -> None:
    for container in client.containers.list(all=True, filters={"label": label}):
        _remove_container(container)


def _remove_container(container: Any) -> None:
    import docker

    try:
        container.remove(force=True)
    except docker.errors.APIError as error:  # it is gone or being removed already
        if error.status_code not in (404, 409):
            raise


@dataclass(frozen=True)
class ContainerContext:
    """What the containers of a run get of this machine: mounts, environment, user and limits."""

    recipe: Recipe
    workspace: Path
    run: Path  # the run's folder

    def create_arguments(self, step: str, engine_info: dict[str, Any]) -> dict[str, Any]:
        """The arguments with which a step's container is created; ``engine_info`` is that of `docker info`."""
        import docker

        size: Resources = getattr(self.recipe.cluster, row_of_task(step).size)
        allowed = min(float(parse_quantity(size.cpu)), engine_info["NCPU"])
        memory = int(parse_quantity(size.memory))
        security = engine_info.get("SecurityOptions") or []
        mode = ",z" if "name=selinux" in security else ""
        mounts = {str(self.workspace): {"bind": str(self.workspace), "mode": f"rw{mode}"}}
        mounts |= {path: {"bind": path, "mode": f"ro{mode}"} for path in self.external_paths()}
        gpus = size.gpus if "nvidia" in engine_info.get("Runtimes", {}) else 0
        return {
            "volumes": mounts,
            "environment": self.environment(),
            "user": self.user(rootless="name=rootless" in security),
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            # a recipe may name servers of this machine, which must be the same ones with every runner
            "network_mode": "host",
            "nano_cpus": int(allowed * 1e9),
            "mem_limit": memory,
            "memswap_limit": memory,
            "shm_size": min(memory // 2, 2**30),
            "device_requests": [docker.types.DeviceRequest(count=gpus, capabilities=[["gpu"]])] if gpus else [],
            "labels": {RUN_LABEL: self.run.name, WORKSPACE_LABEL: str(self.workspace), RUNNER_LABEL: str(os.getpid())},
            "init": True,
        }

    def user(self, *, rootless: bool) -> str:
        """The user that runs this, so that files belong to them; a rootless engine maps its own user to 0."""
        return "0:0" if rootless else f"{os.getuid()}:{os.getgid()}"

    def environment(self) -> dict[str, str]:
        """The environment variables of a step."""
        passed = [*PASSED_ENVIRONMENT, *(name.lower() for name in PASSED_ENVIRONMENT), *self.recipe.cluster.secrets]
        passed += [self.recipe.ingest.hash_users] if self.recipe.ingest.hash_users else []
        return {
            **{name: os.environ[name] for name in passed if name in os.environ},
            "RANKLINE_RUN_DIR": str(self.run),
            "HOME": "/tmp",
            "USER": "rankline",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONWARNINGS": "ignore",
        }

    def external_paths(self) -> list[str]:
        """Existing paths outside of the workspace that the recipe names; they are mounted read-only."""
        paths: dict[str, None] = {}
        waiting: list[Any] = [step_settings(self.recipe, str(self.workspace))]
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict):
                waiting += value.values()
            elif isinstance(value, list):
                waiting += value
            elif isinstance(value, str) and value.startswith("/"):
                path = Path(value)
                if path != Path("/") and path.exists() and not path.is_relative_to(self.workspace):
                    paths[str(path)] = None
        return list(paths)


def install_step_containers(context: ContainerContext) -> Any:
    """Make Kubeflow run each step in a container of ours; returns the runner for `kfp.local.init`."""
    from kfp import local
    from kfp.local import docker_task_handler

    # kfp 2.17.0, which is pinned, looks the handler up by this name when a step starts
    docker_task_handler.DockerTaskHandler = functools.partial(StepContainer, context)
    return local.DockerRunner()


class StepContainer:
    """The container of one step, with the interface of Kubeflow's task handlers."""

    def __init__(
        self,
        context: ContainerContext,
        *,
        image: str,
        full_command: list[str],
        pipeline_root: str,
        runner: Any,
        env_vars: dict[str, str] | None = None,
    ) -> None:
        self.context, self.image, self.command, self.env_vars = context, image, full_command, env_vars or {}
        self.step = full_command[full_command.index("--function_to_execute") + 1]

    def run(self) -> Any:
        """Run it to its end and return the status that Kubeflow expects."""
        from kfp.local.status import Status

        with engine() as client:
            arguments = self.context.create_arguments(self.step, client.info())
            arguments["environment"] = {**self.env_vars, **arguments["environment"]}
            container = client.containers.create(self.image, self.command, **arguments)
            try:
                container.start()
                for line in container.logs(stream=True, follow=True):
                    print(line.decode(errors="replace"), end="")
                code = container.wait()["StatusCode"]
                container.reload()
                if code and (container.attrs["State"]["OOMKilled"] or code == OUT_OF_MEMORY):
                    self.record_out_of_memory()
            finally:
                _remove_container(container)
        return Status.FAILURE if code else Status.SUCCESS

    def record_out_of_memory(self) -> None:
        """Write the ledger entry of a step that was killed and could not write it."""
        entry = ledger.read_entries(self.context.run).get(self.step)
        if entry is None or entry.status != "running":
            return
        size = row_of_task(self.step).size
        allowed = getattr(self.context.recipe.cluster, size).memory
        entry.status, entry.exit_code, entry.finished = "failed", 1, time.time()
        entry.error = str(
            RanklineError(
                "it was killed: it needed more memory than its container may have",
                expected=f"at most {allowed} (cluster.{size}.memory)",
                found="killed by the kernel",
                hint=f"--set cluster.{size}.memory=…, or settings that need less",
            )
        )
        ledger.write_entry(self.context.run, entry)

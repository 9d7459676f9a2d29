"""The placement of a recipe's steps on a cluster: images, resources, retries, timeouts, secrets and volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field, ValidationInfo, field_validator

from pipelines.quantities import CPU, MEMORY, cpu_text, memory_text, parse_quantity, portable_cpu, portable_memory
from pipelines.steps import PACKED_TASKS, row_of_task
from rankline.contracts import FrozenModel

if TYPE_CHECKING:
    from kfp.dsl import PipelineTask

BACKOFF_S = 30  # before the second attempt of a step; twice that before the third
WAIT_S = 3600  # that the pods of a run may wait for nodes, in all, beyond the time of its steps
MAX_S = 2**31 - 1  # Kubernetes' largest number of seconds


class Images(FrozenModel):
    """The images of the steps, pinned by digest: a tag can be moved, and a run could not be repeated."""

    data: str = Field("", description="Image of ingest, validate, featurize, decide, promote and materialize (…).")
    train: str = Field("", description="Image of finetune, distill and export (…@sha256:…).")
    evaluate: str = Field(
        "", description="Image of evaluate and catalogue: the one that serves, with Kubeflow (…@sha256:…)."
    )


class Resources(FrozenModel):
    """What one step may use, and what a node must have free for it."""

    cpu: str = Field("2", pattern=CPU, description="CPUs allowed.")
    cpu_request: str = Field(
        "", pattern=f"{CPU}|^$", description="CPUs that a node must have free; empty for a quarter of those allowed."
    )
    memory: str = Field("8Gi", pattern=MEMORY, description="Memory allowed; a step that needs more is killed.")
    memory_request: str = Field(
        "", pattern=f"{MEMORY}|^$", description="Memory that a node must have free; empty for all that is allowed."
    )
    gpus: int = Field(0, ge=0, description="GPUs requested.")
    nodes: int = Field(
        1, ge=1, description="Machines that train together (finetune alone); more than one needs Kubeflow Trainer."
    )
    gpu_type: str = Field("nvidia.com/gpu", description="Resource name of a GPU.")
    node_selector: dict[str, str] = Field({}, description="Labels that a node must have.")
    timeout_s: int = Field(3600, ge=60, description="How long a step may take, in seconds.")
    retries: int = Field(
        2,
        ge=0,
        description="Further attempts; with Kubeflow's stock configuration only where the pod is lost, not where the "
        "step fails (docs/faults.md).",
    )

    _cpu_text = field_validator("cpu", "cpu_request", mode="before")(cpu_text)
    _memory_text = field_validator("memory", "memory_request", mode="before")(memory_text)

    @field_validator("cpu_request", "memory_request")
    @classmethod
    def _check_request(cls, requested: str, info: ValidationInfo) -> str:
        limit = str(info.field_name).removesuffix("_request")
        if requested and limit in info.data and parse_quantity(requested) > parse_quantity(info.data[limit]):
            raise ValueError(f"at most {limit}, {info.data[limit]}")
        return requested

    @property
    def requests(self) -> dict[str, str]:
        """Resource -> the quantity that a node must have free."""
        quarter = f"{max(1, round(parse_quantity(self.cpu) * 250))}m"
        return {
            "cpu": portable_cpu(self.cpu_request or quarter),
            "memory": portable_memory(self.memory_request or self.memory),
        }


class ClusterConfig(FrozenModel):
    """Where and how a compiled flow runs."""

    runtime: str = Field(
        "torch-distributed", description="The runtime of Kubeflow Trainer for training on several nodes."
    )

    workspace: str = Field("/rankline", description="Where the shared volume is mounted: cache, ledger, repository.")
    volume: str = Field(
        "rankline",
        description="Persistent volume claim that is mounted there; empty, or with `storage.workspace`: scratch space "
        "of each pod.",
    )
    run_timeout_s: int = Field(
        0,
        ge=0,
        le=MAX_S,
        description="How long a run may take, in seconds, the time that pods wait for a node included; the cluster "
        "then ends it. 0 for an hour more than all attempts of its steps may take by their `timeout_s`.",
    )
    keep_s: int = Field(
        0,
        ge=0,
        le=MAX_S,
        description="How long the pods of a run and their logs stay after its end, in seconds; 0 for as long as the "
        "cluster is set up to keep them, an hour in Kubeflow's own configuration.",
    )
    secrets: dict[str, str] = Field(
        {}, description="Environment variable -> the `secret/key` that it is read from (MLflow, storage…)."
    )
    images: Images = Field(Images(), description="Images pinned by digest.")
    pack: bool = Field(
        False,
        description="Run resolve_inputs, ingest and validate in one pod, and decide and promote in another: the run is "
        "shorter.",
    )

    small: Resources = Field(
        Resources(cpu="1", memory="2Gi", timeout_s=900, retries=0),
        description="resolve_inputs, decide, summary and the tasks of the verdicts.",
    )
    data: Resources = Field(Resources(), description="ingest, validate, featurize, promote, materialize, publish.")
    train: Resources = Field(
        Resources(cpu="4", memory="16Gi", gpus=1, timeout_s=6 * 3600), description="finetune, distill."
    )
    serve: Resources = Field(Resources(cpu="4", memory="8Gi"), description="export, evaluate, catalogue.")

    @field_validator("secrets")
    @classmethod
    def _check_secrets(cls, secrets: dict[str, str]) -> dict[str, str]:
        for variable, secret in secrets.items():
            name, _, key = secret.partition("/")
            if not (variable and name and key):
                raise ValueError(f"{variable}={secret}: a secret is written name/key")
        return secrets


def place(task: PipelineTask, config: ClusterConfig, *, attempts: bool) -> PipelineTask:
    """Give a task its image, resources, timeout, volume and secrets; retries where ``attempts`` says so.

    Kubeflow's local runner ignores what a laptop does not have. It would retry, but on a laptop a failure is reported
    at once: the next run continues where this one stopped.
    """
    from kfp import kubernetes
    from kfp.dsl.structures import ResourceSpec

    step = task.component_spec.name.removeprefix("comp-") if task.component_spec else task.name
    spec = row_of_task(step)
    size = _size(config, step)
    container = task.container_spec  # set here: kfp's setters walk the whole call stack, a tenth of a second each
    if image := getattr(config.images, spec.image):
        container.image = image
    container.resources = ResourceSpec(
        cpu_request=size.requests["cpu"],
        cpu_limit=portable_cpu(size.cpu),
        memory_request=size.requests["memory"],
        memory_limit=portable_memory(size.memory),
        accelerator_type=size.gpu_type if size.gpus else None,
        accelerator_count=str(size.gpus) if size.gpus else None,
    )
    for label, value in size.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    kubernetes.set_timeout(task, size.timeout_s)
    kubernetes.set_security_context(task, run_as_non_root=True)  # the images name a numeric user
    if config.volume:
        kubernetes.mount_pvc(task, pvc_name=config.volume, mount_path=config.workspace)
    else:
        kubernetes.empty_dir_mount(task, volume_name="workspace", mount_path=config.workspace)
    for variable, secret in config.secrets.items():
        name, _, key = secret.partition("/")
        kubernetes.use_secret_as_env(task, secret_name=name, secret_key_to_env={key: variable})
    if attempts and size.retries:
        task.set_retry(num_retries=size.retries, backoff_duration=f"{BACKOFF_S}s", backoff_factor=2.0)
    return task.set_caching_options(False)


def run_timeout_s(config: ClusterConfig, steps: Sequence[str], *, is_packed: bool) -> int:
    """How long a run of these steps may take: what the recipe says, or what all attempts of them may, and an hour.

    Nothing else ends a run with a pod that no node takes: the time of a pod counts from its start on a node.
    """
    if config.run_timeout_s:
        return config.run_timeout_s
    packed = {step: task for task, parts in PACKED_TASKS.items() for step in parts} if is_packed else {}
    tasks = dict.fromkeys(packed.get(step, step) for step in steps)
    sizes = [_size(config, task) for task in tasks]
    total_s: int = sum(size.timeout_s * (size.retries + 1) + BACKOFF_S * (2**size.retries - 1) for size in sizes)
    return min(total_s + WAIT_S, MAX_S)


def _size(config: ClusterConfig, task: str) -> Resources:
    """What a task may use: several steps in one pod as much as the largest of them, and the time of all."""
    sizes: list[Resources] = [getattr(config, row_of_task(each).size) for each in PACKED_TASKS.get(task, (task,))]

    def largest(resource: str) -> dict[str, str]:
        limits = [getattr(size, resource) for size in sizes]
        requests = [size.requests[resource] for size in sizes]
        return {
            resource: max(limits, key=parse_quantity),
            f"{resource}_request": max(requests, key=parse_quantity),
        }

    values = {**largest("cpu"), **largest("memory"), "timeout_s": sum(size.timeout_s for size in sizes)}
    own: Resources = getattr(config, row_of_task(task).size)
    return own.model_copy(update=values)

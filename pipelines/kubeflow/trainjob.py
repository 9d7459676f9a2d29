"""finetune on several machines: a job for Kubeflow Trainer, as Kubeflow Pipelines gives a step one pod.

    python -m pipelines.kubeflow.trainjob --recipe NAME --features DIR --teacher DIR \\
        --set cluster.train.nodes=2 … > job.yaml
    kubectl apply -f job.yaml

The folders are on the volume that the steps share. The job leaves in the teacher's folder what the step finetune leaves
there, sealed, so `rankline step distill` accepts it (docs/training.md). It has not run on a cluster yet.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from components.finetune.config import FinetuneConfig
from components.finetune.launch import write_job
from pipelines.kubeflow.conformance import PINNED_IMAGE
from pipelines.quantities import portable_cpu, portable_memory
from pipelines.recipe import step_settings
from pipelines.recipes import Recipe, named
from rankline.errors import RanklineError, UsageError


def manifest(recipe: Recipe, *, name: str, job: PurePosixPath) -> dict[str, Any]:
    """The TrainJob that runs the job file ``job`` on the nodes and GPUs of the recipe's cluster section.

    Raises:
        UsageError: the training image is not pinned by digest, or there is no shared volume.
    """
    cluster, size = recipe.cluster, recipe.cluster.train
    if not PINNED_IMAGE.match(cluster.images.train):
        raise UsageError(
            "the train image is not pinned",
            expected="registry/name@sha256:…",
            found=cluster.images.train or "no image",
            hint="--set cluster.images.train=registry/name@sha256:…",
        )
    if not cluster.volume:
        raise UsageError(
            "training on several nodes needs a volume that all of them mount",
            expected="cluster.volume, a claim that many pods can read and write",
            found="none",
            hint="--set cluster.volume=rankline",
        )
    gpus = {size.gpu_type: str(size.gpus)} if size.gpus else {}
    resources = {
        "requests": {**size.requests, **gpus},
        "limits": {"cpu": portable_cpu(size.cpu), "memory": portable_memory(size.memory), **gpus},
    }
    secrets = [
        {"name": variable, "valueFrom": {"secretKeyRef": dict(zip(("name", "key"), secret.split("/", 1)))}}
        for variable, secret in cluster.secrets.items()
    ]
    pod: dict[str, Any] = {
        "volumes": [{"name": "workspace", "persistentVolumeClaim": {"claimName": cluster.volume}}],
        "containers": [{"name": "node", "volumeMounts": [{"name": "workspace", "mountPath": cluster.workspace}]}],
    }
    if size.node_selector:
        pod["nodeSelector"] = size.node_selector
    nodes = [{"name": "node", "template": {"spec": {"template": {"spec": pod}}}}]
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": name},
        "spec": {
            "activeDeadlineSeconds": size.timeout_s,
            "runtimeRef": {"name": cluster.runtime},
            "trainer": {
                "image": cluster.images.train,
                # torchrun reads nodes, processes and the first node's address from variables of the runtime (PET_…)
                "command": ["torchrun", "-m", "components.finetune.torchrun", str(job)],
                "numNodes": size.nodes,
                "numProcPerNode": size.gpus or recipe.finetune.processes or 1,
                "resourcesPerNode": resources,
                "env": [{"name": "TOKENIZERS_PARALLELISM", "value": "false"}, *secrets],
            },
            "runtimePatches": [
                {
                    "manager": "rankline.dev/trainjob",
                    "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": nodes}}},
                }
            ],
        },
    }  # fmt: skip


def prepare(recipe: Recipe, *, name: str, features: Path, teacher: Path) -> dict[str, Any]:
    """Write the job file beside the teacher's folder, and return the TrainJob that runs it."""
    config = FinetuneConfig(**step_settings(recipe, recipe.cluster.workspace)["finetune"])
    folder = teacher.parent / f"{teacher.name}.job"
    folder.mkdir(parents=True, exist_ok=True)
    job = folder / "job.json"
    write_job(
        job,
        config=config,
        result_folder=folder,
        seal=True,
        features=features,
        teacher=teacher,
        checkpoints=folder / "checkpoints",
        progress=folder / "progress.json",
    )
    return manifest(recipe, name=name, job=PurePosixPath(job.absolute()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the manifest of the job."""
    import yaml

    parser = argparse.ArgumentParser(prog="python -m pipelines.kubeflow.trainjob", description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--features", type=Path, required=True, help="output of featurize, on the shared volume")
    parser.add_argument(
        "--teacher", type=Path, required=True, help="output folder for the teacher, on the shared volume"
    )
    parser.add_argument("--name", default="rankline-finetune")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="SECTION.SETTING=VALUE")
    options = parser.parse_args(arguments)
    try:
        job = prepare(
            named(options.recipe, options.settings),
            name=options.name,
            features=options.features,
            teacher=options.teacher,
        )
    except RanklineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(yaml.safe_dump(job, sort_keys=False), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())

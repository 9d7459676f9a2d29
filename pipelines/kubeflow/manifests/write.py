"""Fills in the templates for a recipe and a namespace, and writes the folder that `kubectl apply -k` reads."""

from __future__ import annotations

import json
import os
import string
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipelines.kubeflow.conformance import PINNED_IMAGE
from pipelines.kubeflow.preflight.secrets import PLACEHOLDER
from pipelines.recipe import Recipe
from rankline.errors import UsageError

TEMPLATES = Path(__file__).with_name("templates")
APPLIED = ("service-account", "volume", "fetch", "serve", "mlflow")  # by `kubectl apply -k`, where they are written
BY_HAND = ("volume-owner", "rollback")


@dataclass(frozen=True)
class SetUp:
    """What the manifests are for."""

    recipe: Recipe
    recipe_name: str  # as --recipe names it
    namespace: str
    settings: tuple[str, ...] = ()  # those of the command line
    server: str = ""  # image of the server; empty for the one of evaluate, which has all that it needs

    @property
    def volume(self) -> str:
        """The claim of the workspace; empty where it is in a bucket."""
        return "" if self.bucket else self.recipe.cluster.volume

    @property
    def bucket(self) -> str:
        """URL of the workspace in a bucket; empty where it is on a volume."""
        return self.recipe.storage.workspace


def write_manifests(set_up: SetUp, folder: Path) -> list[str]:
    """Write the folder; returns the names of its files.

    Raises:
        UsageError: an image is not pinned, or a file is there with other content.
    """
    _check_images(set_up)
    contents = dict(_contents(set_up))
    changed = [
        name for name, text in contents.items() if (folder / name).exists() and (folder / name).read_text() != text
    ]
    if changed:
        raise UsageError(
            "a file is there with other content",
            expected="a new folder, or the same files",
            found=", ".join(changed),
            where=str(folder),
            hint="move it away, or write to another folder and compare them",
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        (folder / name).write_text(text)
    return list(contents)


def secret_manifests(recipe: Recipe, namespace: str, *, from_environment: bool) -> list[dict[str, Any]]:
    """The secrets that the recipe names: with placeholders, or with the values of the environment.

    Raises:
        UsageError: a variable is missing in the environment.
    """
    values: dict[str, dict[str, str]] = defaultdict(dict)
    missing = [variable for variable in recipe.cluster.secrets if not os.environ.get(variable)]
    if from_environment and missing:
        raise UsageError(
            "values of secrets are missing in the environment",
            expected=f"{', '.join(recipe.cluster.secrets)}, as in cluster.secrets",
            found=f"no {', '.join(missing)}",
        )
    for variable, secret in recipe.cluster.secrets.items():
        name, _, key = secret.partition("/")
        values[name][key] = os.environ[variable] if from_environment else PLACEHOLDER
    return [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "stringData": data}
        for name, data in sorted(values.items())
    ]


def _check_images(set_up: SetUp) -> None:
    images = {f"cluster.images.{name}": image for name, image in set_up.recipe.cluster.images.model_dump().items()}
    images |= {"--server": set_up.server} if set_up.server else {}
    for setting, image in images.items():
        if not PINNED_IMAGE.match(image):
            raise UsageError(
                f"the image of {setting} is not pinned",
                expected="registry/name@sha256:…",
                found=image or "no image",
                hint="`rankline build --push` prints the settings that pin the images",
            )


def _contents(set_up: SetUp) -> Iterator[tuple[str, str]]:
    """(name, text) of every file."""
    recipe, values = set_up.recipe, _values(set_up)
    needed = {
        "volume": bool(set_up.volume), "volume-owner": bool(set_up.volume), "fetch": bool(recipe.material),
        "mlflow": "sql" in values["tracking"].partition(":")[0],
    }  # fmt: skip
    written = [name for name in (*APPLIED, *BY_HAND) if needed.get(name, True)]
    for name in written:
        yield f"{name}.yaml", string.Template((TEMPLATES / f"{name}.yaml").read_text()).substitute(values)
    if recipe.cluster.secrets:
        secrets = secret_manifests(recipe, set_up.namespace, from_environment=False)
        text = "# Names and keys alone: `rankline cluster secrets` prints them with the values of the environment.\n"
        yield "secrets.example.yaml", text + yaml.safe_dump_all(secrets, sort_keys=False)
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "namespace": set_up.namespace,
        "resources": [f"{name}.yaml" for name in written if name in APPLIED],
    }  # fmt: skip
    yield "kustomization.yaml", yaml.safe_dump(kustomization, sort_keys=False)
    yield "on_cluster.py", _recipe_module(set_up)


def _values(set_up: SetUp) -> dict[str, str]:
    """Placeholder of the templates -> its text; lists are JSON, which YAML includes."""
    recipe, path = set_up.recipe, set_up.recipe.cluster.workspace
    workspace = set_up.bucket or path
    place = ["--workspace", workspace]
    if recipe.storage.repository:
        place += ["--repository", recipe.storage.repository]
    source = {"persistentVolumeClaim": {"claimName": set_up.volume}} if set_up.volume else {"emptyDir": {}}
    env = [
        {"name": variable, "valueFrom": {"secretKeyRef": dict(zip(("name", "key"), secret.split("/", 1)))}}
        for variable, secret in recipe.cluster.secrets.items()
    ]
    mount = {"name": "workspace", "mountPath": path}
    lists = {
        "env": env, "volumes": [{"name": "workspace", **source}], "mounts": [mount],
        "read_mounts": [{**mount, "readOnly": True} if set_up.volume else mount],
        "serve": ["--host", "0.0.0.0", *place], "rollback": ["--why", "rolled back by hand", *place],
    }  # fmt: skip
    return {
        "namespace": set_up.namespace,
        "volume": set_up.volume,
        "path": path,
        "data": recipe.cluster.images.data,
        "server": set_up.server or recipe.cluster.images.evaluate,
        "fetch": " && ".join(f"rankline fetch {name} -w {workspace}" for name in recipe.material),
        "tracking": recipe.promote.tracking_uri,
        **{name: json.dumps(value) for name, value in lists.items()},
    }


def _recipe_module(set_up: SetUp) -> str:
    """A module with the recipe and the settings that were given, so that a command line needs only its name."""
    lines = "".join(f"    {setting!r},\n" for setting in set_up.settings)
    return (
        f'"""The recipe {set_up.recipe_name} with the settings of namespace {set_up.namespace}."""\n\n'
        "from pipelines.recipes import Recipe, named\n\n"
        f"SETTINGS = [\n{lines}]\n\n\n"
        f'def recipe() -> Recipe:\n    """The recipe of this namespace."""\n'
        f"    return named({set_up.recipe_name!r}, SETTINGS)\n"
    )

"""Fills in the templates for a recipe and a namespace, and writes the folder that `kubectl apply -k` reads."""

from __future__ import annotations

import importlib.machinery
import json
import keyword
import os
import re
import shlex
import string
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipelines.kubeflow.conformance import PINNED_IMAGE
from pipelines.kubeflow.preflight.secrets import PLACEHOLDER
from pipelines.quantities import MEMORY, parse_quantity, portable_memory
from pipelines.recipe import Recipe
from rankline.contracts import FrozenModel
from rankline.errors import UsageError

TEMPLATES = Path(__file__).with_name("templates")
RECIPE_MODULE = "on_cluster"
APPLIED = ("service-account", "volume", "fetch", "serve", "mlflow")  # by `kubectl apply -k`, where they are written
BY_HAND = ("volume-owner", "rollback", "logs")


@dataclass(frozen=True)
class SetUp:
    """What the manifests are for."""

    recipe: Recipe
    recipe_name: str  # as --recipe names it
    namespace: str
    settings: tuple[str, ...] = ()  # those of the command line
    server: str = ""  # image of the server; empty for the one of evaluate, which has all that it needs
    source: str | None = None  # the recipe's data, and the file that says how to read it, where the recipe takes them
    map: str | None = None
    access_mode: str = "ReadWriteMany"  # of the claim
    size: str = "20Gi"
    name: str = "rankline"  # of the server, the account and the jobs; every recipe of a namespace has its own

    @property
    def volume(self) -> str:
        """The claim of the workspace; empty where it is in a bucket."""
        return "" if self.bucket else self.recipe.cluster.volume

    @property
    def bucket(self) -> str:
        """URL of the workspace in a bucket; empty where it is on a volume."""
        return self.recipe.storage.workspace


def write_manifests(set_up: SetUp, folder: Path, *, overwrite: bool = False) -> list[str]:
    """Write the folder; returns the names of its files.

    Raises:
        UsageError: an image is not pinned, a name or a size is none, the steps share nothing, or a file is there with
            other content and ``overwrite`` is false.
    """
    _check_images(set_up)
    _check_names(set_up)
    _check_storage(set_up)
    contents = dict(_contents(set_up))
    changed = [
        name for name, text in contents.items() if (folder / name).exists() and (folder / name).read_text() != text
    ]
    if changed and not overwrite:
        raise UsageError(
            "a file is there with other content",
            expected="a new folder, or the same files",
            found=", ".join(changed),
            where=str(folder),
            hint="--force overwrites what an earlier call wrote; or write to another folder and compare them",
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        (folder / name).write_text(text)
    return list(contents)


def recipe_reference(folder: Path) -> str:
    """What `--recipe` names the recipe of a folder by, in a command that is run where this process runs."""
    parts = folder.parts
    are_names = bool(parts) and all(part.isidentifier() and not keyword.iskeyword(part) for part in parts)
    if are_names and not _is_module_elsewhere(parts[0]):
        return f"{'.'.join(parts)}.{RECIPE_MODULE}:recipe"
    return f"{folder / RECIPE_MODULE}.py:recipe"


def _is_module_elsewhere(name: str) -> bool:
    """Whether Python has a module of this name that it would import instead of a folder in the current one."""
    if name in sys.builtin_module_names:
        return True
    here = os.getcwd()
    spec = importlib.machinery.PathFinder.find_spec(name, [each for each in sys.path if each not in ("", here)])
    return spec is not None and spec.origin is not None  # without one it is a folder as well


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


def _check_names(set_up: SetUp) -> None:
    """A namespace is a DNS label, a claim a subdomain, and the name of a service begins with a letter."""
    label, letters = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", "lower-case letters, digits and hyphens, no hyphen at either end"
    names = (  # of the last one, which jobs and their pods add to, there may be fewer characters
        ("--namespace", set_up.namespace, label, 63, letters),
        ("cluster.volume", set_up.volume or "none", rf"{label}(\.{label})*", 253, f"{letters}, in parts between dots"),
        ("--name", set_up.name, r"[a-z]([-a-z0-9]*[a-z0-9])?", 40, f"{letters}, a letter first"),
    )
    for setting, name, pattern, longest, expected in names:
        if not re.fullmatch(pattern, name) or len(name) > longest:
            raise UsageError(
                f"{setting} is no name that Kubernetes accepts",
                expected=f"at most {longest} characters: {expected}",
                found=repr(name),
            )


def _check_storage(set_up: SetUp) -> None:
    if not set_up.bucket and not set_up.volume and "://" not in (set_up.recipe.storage.repository or ""):
        raise UsageError(
            "the steps and the server share nothing",
            expected="a volume, or a workspace in a bucket",
            found="neither",
            hint="--set cluster.volume=NAME, or --set storage.workspace=s3://…",
        )
    if not re.fullmatch(MEMORY, set_up.size) or not parse_quantity(set_up.size):
        raise UsageError(
            "the size of the claim is none", expected="a quantity of Kubernetes, such as 20Gi", found=set_up.size
        )


def _contents(set_up: SetUp) -> Iterator[tuple[str, str]]:
    """(name, text) of every file."""
    recipe, values = set_up.recipe, _values(set_up)
    needed = {
        **dict.fromkeys(("volume", "volume-owner", "logs"), bool(set_up.volume)), "fetch": bool(recipe.material),
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
    yield from _recipe_files(set_up)


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
        "logs": ["last", "--workspace", workspace],
    }  # fmt: skip
    return {
        "namespace": set_up.namespace,
        "name": set_up.name,
        "mlflow": "mlflow" if set_up.name == SetUp.name else f"{set_up.name}-mlflow",
        "volume": set_up.volume,
        "access_mode": set_up.access_mode,
        "size": portable_memory(set_up.size),
        "path": path,
        "data": recipe.cluster.images.data,
        "server": set_up.server or recipe.cluster.images.evaluate,
        "fetch": " && ".join(shlex.join(["rankline", "fetch", name, "-w", workspace]) for name in recipe.material),
        "tracking": recipe.promote.tracking_uri,
        **{name: json.dumps(value) for name, value in lists.items()},
    }


def _recipe_files(set_up: SetUp) -> Iterator[tuple[str, str]]:
    """A module with the recipe and what was given with it, so that a command line needs only its name.

    Files that were given are copied beside it: the module means the same from any folder.
    """
    arguments, settings = [repr(_from_any_folder(set_up.recipe_name)), "SETTINGS"], []
    copies: Counter[str] = Counter()
    for setting in set_up.settings:
        section, _, value = setting.partition("=")
        is_file = value.startswith("@") and isinstance(getattr(set_up.recipe, section.strip(), None), FrozenModel)
        if not is_file:
            settings.append(repr(setting))
            continue
        copies[section] += 1
        number = f"-{copies[section]}" if copies[section] > 1 else ""
        name, text = _copied(f"{section.strip()}{number}", value[1:])
        yield name, text
        settings.append(f"f'{section.strip()}=@{{HERE}}/{name}'")
    if set_up.source is not None:
        arguments.append(f"source={_from_any_folder(set_up.source)!r}")
    if set_up.map is not None:
        name, text = _copied("map", set_up.map)
        yield name, text
        arguments.append(f"map=str(HERE / {name!r})")
    lines = "".join(f"    {setting},\n" for setting in settings)
    yield (
        f"{RECIPE_MODULE}.py",
        f'"""The recipe {set_up.recipe_name} with the settings of namespace {set_up.namespace}."""\n\n'
        "from pathlib import Path\n\n"
        "from pipelines.recipes import Recipe, named\n\n"
        "HERE = Path(__file__).resolve().parent\n"
        f"SETTINGS = [\n{lines}]\n\n\n"
        f'def recipe() -> Recipe:\n    """The recipe of this namespace."""\n'
        f"    return named({', '.join(arguments)})\n",
    )


def _from_any_folder(name: str) -> str:
    """A path with the folder that it is in; what names no file here, such as a URL or a built-in recipe, as it is."""
    path, colon, function = name.partition(":") if ".py:" in name else (name, "", "")
    return f"{Path(path).resolve()}{colon}{function}" if Path(path).exists() else name


def _copied(name: str, path: str) -> tuple[str, str]:
    """(name, text) of the copy of a file that has been read already."""
    file = Path(path).expanduser()
    return name + (file.suffix or ".toml"), file.read_text(encoding="utf-8")

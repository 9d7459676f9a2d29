"""The contents of an image, as its own interpreter and package manager report them, and what they must not include."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal

from pipelines.images.docker import DockerCommand, docker_output

Variant = Literal["cpu", "cuda"]
FORBIDDEN_PACKAGES = {
    "data": {"torch"},
    "train": set(),
    "serve": {"torch", "transformers", "kfp"},
    "evaluate": {"torch", "transformers"},
}
CUDA_LIBRARY = re.compile(r"^(nvidia-|triton$|cuda-)")
REQUIRED_CUDA_PACKAGE = "nvidia-cudnn-cu13"
TORCH_HINTS = {  # where a train image would get the wrong build of torch
    "cpu": "--variant cuda (about 6 GB; it trains on processors too, with cluster.train.gpus=0), or --torch-wheels "
    "with a folder of CPU wheels: docs/images.md says where to get them",
    "cuda": "--torch-wheels names a folder with the CUDA build of torch",
}
# prints the contents of an image as JSON, run by the image's own interpreter
INVENTORY_SCRIPT = r"""
import glob, importlib.metadata as m, json, platform, shutil, subprocess, sys
def row(d):
    meta = d.metadata
    text = meta.get("License-Expression") or meta.get("License") or ""
    return [meta["Name"], d.version, text if len(text) < 60 and "\n" not in text else ""]
paths = [*sys.path, *glob.glob(sys.base_prefix + "/lib/python3.*/site-packages")]
python = sorted({d.metadata["Name"].lower(): row(d) for d in m.distributions(path=paths)}.values())
debian = []
if shutil.which("dpkg-query"):
    form = "-f=${Package}\t${Version}\t${Architecture}\n"
    debian = [l.split("\t") for l in subprocess.check_output(["dpkg-query", "-W", form], text=True).splitlines()]
os_release = platform.freedesktop_os_release()
print(json.dumps({"interpreter": platform.python_version(), "python": python, "debian": debian,
                  "distribution": os_release.get("ID", ""), "release": os_release.get("VERSION_ID", "")}))
"""


@dataclass(frozen=True)
class Inventory:
    """What an image holds: (name, version, licence) of Python packages, (name, version, architecture) of Debian's."""

    interpreter: str
    python: list[list[str]]
    debian: list[list[str]]
    distribution: str = ""
    release: str = ""

    def names(self) -> set[str]:
        """Names of the Python packages, in one spelling."""
        return {re.sub(r"[-_.]+", "-", name).lower() for name, _, _ in self.python}

    def version(self, name: str) -> str:
        """The version of a Python package; empty where it is not held."""
        return next((version for each, version, _ in self.python if each.lower() == name), "")


def content_violations(kind: str, variant: Variant, inventory: Inventory) -> list[str]:
    """What an image holds and must not, or must hold and does not."""
    names = inventory.names()
    violations = [f"it holds {name}" for name in sorted(FORBIDDEN_PACKAGES[kind] & names)]
    libraries = sorted(name for name in names if CUDA_LIBRARY.match(name))
    if libraries and (variant == "cpu" or kind == "data"):
        violations.append(f"it holds CUDA libraries ({', '.join(libraries[:3])}…, {len(libraries)} in all)")
    if variant == "cuda" and kind != "data" and REQUIRED_CUDA_PACKAGE not in names:
        violations.append(f"it lacks {REQUIRED_CUDA_PACKAGE}")
    if variant == "cuda" and (version := inventory.version("torch")).endswith("+cpu"):
        violations.append(f"its torch {version} is a CPU build")
    return violations


def read_inventory(reference: str, *, tool: DockerCommand) -> Inventory:
    """The packages of an image."""
    output = docker_output(
        tool, "run", "--rm", "--network", "none", "--entrypoint", "python", reference, "-c", INVENTORY_SCRIPT
    )
    return Inventory(**json.loads(output))

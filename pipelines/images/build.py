"""Builds the images of deploy/Dockerfile with the docker command, and refuses those with the wrong contents."""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from components.images import TAG
from pipelines.images.contents import TORCH_HINTS, Inventory, Variant, content_violations, read_inventory
from pipelines.images.docker import CACHE_MOUNT, DockerCommand, docker_output, run_docker
from pipelines.runs.containers import CODE_LABEL, PACKAGES, code_digest
from pipelines.steps import Image
from rankline.errors import RanklineError, UsageError

KINDS = ("data", "train", "serve", "evaluate")  # evaluate extends serve, so it is built after it
PIPELINE_IMAGES: tuple[Image, ...] = get_args(Image)  # those that a compiled package names
SOURCE_ROOT = Path(__file__).resolve().parents[2]
CONTEXT_FILES = ("pyproject.toml", "constraints.lock", "README.md", "LICENSE", "deploy/contents.py", "deploy/gpu.sh")
BASE_LABEL = "rankline.base"  # label of an image: the id of its base on the machine that built it
PINNED_IMAGE = re.compile(r"@sha256:[0-9a-f]{64}$")


@dataclass(frozen=True)
class BuildOptions:
    """What is built, the same for every image of one call."""

    base: str
    base_id: str = ""  # the id of the base on this machine
    variant: Variant = "cpu"
    name: str = "rankline"  # what precedes /data, /train…: a registry's path, or a word
    tag: str = TAG
    network: str = ""
    torch_wheels: str = ""
    logs: Path = Path("build/images")

    def reference(self, kind: str) -> str:
        """The name of an image, such as rankline/serve:0.1.0."""
        return f"{self.name}/{kind}:{self.tag}{'-cuda' if self.variant == 'cuda' else ''}"


@dataclass
class BuiltImage:
    """One image that was built."""

    kind: str
    reference: str
    image_id: str
    size_bytes: int
    seconds: float
    inventory: Inventory
    labels: dict[str, str] = field(default_factory=dict)
    pushed: str = ""  # name@sha256:…, which only a registry assigns


def require_base(base: str, *, release: bool) -> str:
    """The base image, if it may be used.

    Raises:
        UsageError: none is named, or a release uses one that is not pinned.
    """
    if not base:
        raise UsageError(
            "the base image is not named",
            expected="--base python:3.11-slim@sha256:… (or RANKLINE_BASE)",
            found="nothing",
            hint="`docker pull python:3.11-slim` prints its digest; --base python:3.11-slim takes the tag as it is",
        )
    if release and not PINNED_IMAGE.search(base):
        raise UsageError(
            "a release stands on a pinned base image",
            expected="name@sha256: and 64 hexadecimal digits",
            found=base,
            hint="`docker image inspect --format '{{.RepoDigests}}' NAME` prints the digest of a pulled image",
        )
    return base


def resolve_base(base: str, *, tool: DockerCommand) -> tuple[str, str]:
    """(the base with the digest that its tag stands for now, its id on this machine).

    A base that is missing is pulled. Only a registry assigns a digest: an image that was built on this machine keeps
    its name, and only its id identifies it.

    Raises:
        RanklineError: it is missing and cannot be pulled.
    """
    if subprocess.run([tool.command, "image", "inspect", base], capture_output=True).returncode:
        pulled = subprocess.run([tool.command, "pull", "--quiet", base], capture_output=True, text=True)
        if pulled.returncode:
            raise RanklineError(
                "the base image is not on this machine and cannot be pulled",
                expected="an image on this machine or in a registry",
                found=(pulled.stderr.strip().splitlines() or ["nothing"])[-1],
                where=base,
                hint="check the spelling of --base, and whether its registry can be reached",
            )
    image_info = json.loads(docker_output(tool, "image", "inspect", base))[0]
    name = re.sub(r":[^:/]*$", "", base)
    digests = [each.partition("@")[2] for each in image_info["RepoDigests"] or () if each.startswith(f"{name}@")]
    return (base if PINNED_IMAGE.search(base) or not digests else f"{base}@{digests[0]}"), image_info["Id"]


def require_source(*, release: bool, source_root: Path = SOURCE_ROOT) -> Path:
    """The folder with the Dockerfile; for a release, one without uncommitted changes.

    Raises:
        UsageError: this installation has no Dockerfile, or there are uncommitted changes.
    """
    if not (source_root / "deploy" / "Dockerfile").is_file():
        raise UsageError(
            "images are built from a checkout of the project",
            expected="deploy/Dockerfile beside the code",
            found="an installation without it",
            where=str(source_root),
            hint="clone the project, `make setup`, and run `.venv/bin/rankline build` there",
        )
    changed = _git(source_root, "status", "--porcelain") if _git(source_root, "rev-parse", "HEAD") else "no repository"
    if release and changed:
        raise UsageError(
            "a release is built from a commit",
            expected="no changed and no untracked files",
            found=", ".join(line.strip() for line in changed.splitlines()[:5]),
            where=str(source_root),
            hint="commit or stash them",
        )
    return source_root


def build(
    kind: str,
    options: BuildOptions,
    *,
    tool: DockerCommand,
    say: Callable[[str], None],
    source_root: Path = SOURCE_ROOT,
) -> BuiltImage:
    """Build one image and check its contents; its log goes into ``options.logs``.

    Raises:
        RanklineError: the build failed (with the last lines of its log), or the image has the wrong contents.
    """
    started = time.monotonic()
    reference, log = options.reference(kind), options.logs / f"{kind}-{options.variant}.log"
    labels = labels_of(kind, options, source_root)
    with build_context(source_root, buildkit=tool.buildkit) as folder:
        command = [
            *(tool.command, "build", "-f", str(folder / "deploy" / "Dockerfile"), "--target", kind, "-t", reference),
            *(("--network", options.network) if options.network else ()),
            *(("--progress", "plain") if tool.buildkit else ()),
            *_flags("--build-arg", {
                "BASE": options.base,
                "VARIANT": options.variant,
                "GPUS": "all" if options.variant == "cuda" else "void",
                **({"TORCH_WHEELS": options.torch_wheels} if options.torch_wheels else {}),
            }),
            *_flags("--label", labels),
            str(folder),
        ]  # fmt: skip
        run_docker(command, log, kind, say=say, buildkit=tool.buildkit)
    image_info = json.loads(docker_output(tool, "image", "inspect", reference))[0]
    inventory = read_inventory(reference, tool=tool)
    if violations := content_violations(kind, options.variant, inventory):
        docker_output(tool, "image", "rm", reference)
        raise RanklineError(
            f"the {kind} image has the wrong contents, and was removed",
            expected=f"{kind} for {options.variant}",
            found="; ".join(violations),
            where="pyproject.toml, deploy/contents.py",
            hint=TORCH_HINTS[options.variant]
            if kind == "train"
            else "find what requires it: `pip show` in the image, under Required-by",
        )
    return BuiltImage(
        kind, reference, image_info["Id"], image_info["Size"], time.monotonic() - started, inventory, labels
    )


def labels_of(kind: str, options: BuildOptions, source_root: Path = SOURCE_ROOT) -> dict[str, str]:
    """The labels of an image: its origin, as the OCI names it, and its code."""
    oci = "org.opencontainers.image"
    revision = _git(source_root, "rev-parse", "HEAD") or "unknown"
    changed = bool(_git(source_root, "status", "--porcelain"))
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or _git(source_root, "log", "-1", "--format=%ct") or 0)
    name, _, pin = options.base.partition("@")
    return {
        f"{oci}.title": f"rankline-{kind}",
        f"{oci}.description": f"Rankline's {kind} image, {options.variant}",
        f"{oci}.licenses": "Apache-2.0",
        f"{oci}.version": options.tag,
        f"{oci}.revision": f"{revision}-changed" if changed else revision,
        f"{oci}.created": datetime.datetime.fromtimestamp(epoch, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        f"{oci}.base.name": name,
        **({f"{oci}.base.digest": pin} if pin else {}),
        **({BASE_LABEL: options.base_id} if options.base_id else {}),
        "rankline.variant": options.variant,
        CODE_LABEL: code_digest(source_root),
    }


@contextmanager
def build_context(source_root: Path, *, buildkit: bool) -> Iterator[Path]:
    """A folder with the files that a build needs; without BuildKit the Dockerfile has no cache mounts."""
    with tempfile.TemporaryDirectory(prefix="rankline-build-") as name:
        folder = Path(name)
        (folder / "deploy").mkdir()
        for file in CONTEXT_FILES:
            shutil.copy2(source_root / file, folder / file)
        for package in PACKAGES:
            shutil.copytree(source_root / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        text = (source_root / "deploy" / "Dockerfile").read_text()
        if not buildkit:
            text = without_cache_mounts(text)
        (folder / "deploy" / "Dockerfile").write_text(text)
        yield folder


def without_cache_mounts(dockerfile: str) -> str:
    """The Dockerfile for an engine without cache mounts, where pip keeps no cache."""
    return CACHE_MOUNT.sub("PIP_NO_CACHE_DIR=1 ", dockerfile)


def push(built: BuiltImage, *, tool: DockerCommand, say: Callable[[str], None], log: Path) -> None:
    """Push an image to its registry; ``built.pushed`` is then its name with the registry's digest.

    Raises:
        RanklineError: the registry refused it.
    """
    run_docker([tool.command, "push", built.reference], log, f"push {built.kind}", say=say, buildkit=tool.buildkit)
    name = built.reference.rpartition(":")[0]
    digests: list[str] = json.loads(
        docker_output(tool, "image", "inspect", "--format", "{{json .RepoDigests}}", built.reference)
    )
    built.pushed = next(each for each in digests if each.startswith(f"{name}@"))


def _flags(flag: str, values: dict[str, str]) -> list[str]:
    return [part for name, value in values.items() for part in (flag, f"{name}={value}")]


def _git(source_root: Path, *arguments: str) -> str:
    """The output of a git command; empty where there is no repository or no git."""
    try:
        done = subprocess.run(["git", "-C", str(source_root), *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""

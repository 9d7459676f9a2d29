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
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from components.images import TAG
from pipelines.runs.containers import CODE_LABEL, PACKAGES, code_digest
from rankline.errors import RanklineError, UsageError

Variant = Literal["cpu", "cuda"]
KINDS = ("data", "train", "serve", "evaluate")  # evaluate extends serve, so it is built after it
PIPELINE_IMAGES = ("data", "train", "evaluate")  # those that a compiled package names
SOURCE_ROOT = Path(__file__).resolve().parents[2]
CONTEXT_FILES = ("pyproject.toml", "constraints.lock", "README.md", "LICENSE", "deploy/contents.py", "deploy/gpu.sh")
BASE_LABEL = "rankline.base"  # label of an image: the id of its base on the machine that built it
PINNED_IMAGE = re.compile(r"@sha256:[0-9a-f]{64}$")
FORBIDDEN_PACKAGES = {
    "data": {"torch"},
    "train": set(),
    "serve": {"torch", "transformers", "kfp"},
    "evaluate": {"torch", "transformers"},
}
CUDA_LIBRARY = re.compile(r"^(nvidia-|triton$|cuda-)")
REQUIRED_CUDA_PACKAGE = "nvidia-cudnn-cu13"
BUILDX_SINCE = 23  # since this version of the docker command, BuildKit is a plugin (buildx)
# BuildKit names a step and later prints its progress unless it is cached; without BuildKit each step is named once
STEP_LINE = re.compile(r"^(?:#(?P<number>\d+) \[(?P<stage>[^\]]+)\]|Step (?P<step>\d+/\d+) :) (?P<what>[A-Z]+ .*)")
PROGRESS_LINE = re.compile(r"^#(?P<number>\d+) (?:\d+\.\d+ |DONE)")
CACHE_MOUNT = re.compile(r"--mount=type=cache,\S+ (?:\\\n\s*)?")
HINTS = (
    (
        "No space left on device",
        "`docker system df` shows what takes up space, `docker builder prune` removes old layers",
    ),
    (
        "no space left on device",
        "`docker system df` shows what takes up space, `docker builder prune` removes old layers",
    ),
    ("No matching distribution", "an index that carries the locked versions (`PIP_INDEX_URL` in the base image)"),
    ("needs Python 3.11", "--base with an image whose python3 is 3.11, 3.12 or 3.13"),
    ("libraries that ONNX Runtime's CUDA provider needs", "the `cuda` extra in pyproject.toml, and constraints.lock"),
    ("failed to resolve source metadata", "the spelling of --base, and whether its registry can be reached"),
    ("pull access denied", "the spelling of --base, and whether its registry can be reached"),
    ("failed to do request", "the network, and a mirror of the registry; --base names another image"),
    ("Cannot connect to the Docker daemon", "start the engine: `docker info` has to succeed"),
)
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
class DockerCommand:
    """The docker command, and whether it builds with BuildKit."""

    command: str
    buildkit: bool


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


def find_docker() -> DockerCommand:
    """The docker command of this machine, preferably one with BuildKit.

    Raises:
        RanklineError: there is none, or its engine does not answer.
    """
    paths = [Path(folder) / "docker" for folder in os.get_exec_path()]
    commands = [str(path) for path in paths if os.access(path, os.X_OK)]
    if not commands:
        raise RanklineError(
            "there is no docker command",
            expected="Docker Engine 20.10 or newer",
            found="no `docker` on the PATH",
            hint="install Docker Engine (Debian and Ubuntu: the package docker.io), then `docker info`",
        )
    info = subprocess.run([commands[0], "info", "--format", "{{.ServerVersion}}"], capture_output=True, text=True)
    if info.returncode or not info.stdout.strip():
        raise RanklineError(
            "no Docker engine answers",
            expected="`docker info` to succeed",
            found=(info.stderr.strip().splitlines() or ["nothing"])[-1],
            hint="start the engine (`systemctl start docker`), join the `docker` group, or set DOCKER_HOST",
        )
    with_buildkit = next((command for command in commands if _has_buildkit(command)), None)
    return DockerCommand(with_buildkit or commands[0], buildkit=with_buildkit is not None)


def _has_buildkit(command: str) -> bool:
    version = subprocess.run([command, "--version"], capture_output=True, text=True).stdout
    major = re.search(r"version (\d+)\.", version)
    if major and int(major[1]) < BUILDX_SINCE:
        return True
    return subprocess.run([command, "buildx", "version"], capture_output=True).returncode == 0


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
    image_info = json.loads(_docker_output(tool, "image", "inspect", base))[0]
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
        _run_docker(command, log, kind, say=say, buildkit=tool.buildkit)
    image_info = json.loads(_docker_output(tool, "image", "inspect", reference))[0]
    inventory = read_inventory(reference, tool=tool)
    if violations := content_violations(kind, options.variant, inventory):
        _docker_output(tool, "image", "rm", reference)
        raise RanklineError(
            f"the {kind} image has the wrong contents, and was removed",
            expected=f"{kind} for {options.variant}",
            found="; ".join(violations),
            where="pyproject.toml, deploy/contents.py",
            hint="--torch-wheels names a folder with the build of torch that the variant needs"
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
    output = _docker_output(
        tool, "run", "--rm", "--network", "none", "--entrypoint", "python", reference, "-c", INVENTORY_SCRIPT
    )
    return Inventory(**json.loads(output))


def push(built: BuiltImage, *, tool: DockerCommand, say: Callable[[str], None], log: Path) -> None:
    """Push an image to its registry; ``built.pushed`` is then its name with the registry's digest.

    Raises:
        RanklineError: the registry refused it.
    """
    _run_docker([tool.command, "push", built.reference], log, f"push {built.kind}", say=say, buildkit=tool.buildkit)
    name = built.reference.rpartition(":")[0]
    digests: list[str] = json.loads(
        _docker_output(tool, "image", "inspect", "--format", "{{json .RepoDigests}}", built.reference)
    )
    built.pushed = next(each for each in digests if each.startswith(f"{name}@"))


def _flags(flag: str, values: dict[str, str]) -> list[str]:
    return [part for name, value in values.items() for part in (flag, f"{name}={value}")]


def _run_docker(command: Sequence[str], log: Path, title: str, *, say: Callable[[str], None], buildkit: bool) -> None:
    """Run a docker command and report its steps; everything that it prints goes to the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    last: deque[str] = deque(maxlen=12)
    pending_steps: dict[str, str] = {}
    environment = {**os.environ, "DOCKER_BUILDKIT": "1" if buildkit else "0"}
    with (
        log.open("w") as stream,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                stream.write(line)
                if line.strip():
                    last.append(line.rstrip())
                if step := STEP_LINE.match(line):
                    what = " ".join(CACHE_MOUNT.sub("", step["what"]).split())
                    sentence = f"  {title} [{step['stage'] or step['step']}] {what}"[:110]
                    if step["number"]:
                        pending_steps[step["number"]] = sentence
                    else:
                        say(sentence)
                elif (progress := PROGRESS_LINE.match(line)) and progress["number"] in pending_steps:
                    say(pending_steps.pop(progress["number"]))
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        text = log.read_text(errors="replace")
        raise RanklineError(
            f"{title}: docker refused",
            expected="exit code 0",
            found=f"exit code {process.returncode}; the last lines:\n" + "\n".join(f"    {line}" for line in last),
            where=str(log),
            hint=next((hint for sign, hint in HINTS if sign in text), "read the log"),
        )


def _docker_output(tool: DockerCommand, *arguments: str) -> str:
    done = subprocess.run([tool.command, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RanklineError(
            f"`docker {arguments[0]}` failed",
            found=(done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1],
            where=arguments[-1] if len(arguments[-1]) < 100 else arguments[0],
            hint="`docker info` shows whether the engine is well",
        )
    return done.stdout


def _git(source_root: Path, *arguments: str) -> str:
    """The output of a git command; empty where there is no repository or no git."""
    try:
        done = subprocess.run(["git", "-C", str(source_root), *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""

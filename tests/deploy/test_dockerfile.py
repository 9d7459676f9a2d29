"""deploy/: what can be said of the Dockerfile without building it, and what each image is told to install."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pipelines.images import build, contents
from pipelines.steps import STEPS

HOUSE = Path(__file__).resolve().parents[2]
DEPLOY = HOUSE / "deploy"
TEXT = (DEPLOY / "Dockerfile").read_text()
FOREVER = {"build-essential", "gcc", "g++", "cmake", "git", "curl"}  # what no final image needs
VARIANTS = ("cpu", "cuda")


def stages(text: str = TEXT) -> dict[str, tuple[str, list[str]]]:
    """Stage -> (what it stands on, its instructions, continued lines joined)."""
    matches: dict[str, tuple[str, list[str]]] = {}
    name = ""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if opened := re.match(r"FROM (\S+) AS (\S+)$", line):
            name = opened[2]
            matches[name] = (opened[1], [])
        elif name and line and not line.startswith("#"):
            matches[name][1].append(line)
    return matches


def whole(stage: str) -> list[str]:
    """The instructions of a stage with those it stands on."""
    on, own = stages()[stage]
    return [*(whole(on) if on in stages() else []), *own]


def requirements(image: str, variant: str) -> set[str]:
    """Names of the packages that an image asks for, as the build itself reads them."""
    done = subprocess.run(
        [sys.executable, DEPLOY / "contents.py", image, variant, HOUSE / "pyproject.toml"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {re.split(r"[\[<>=]", line)[0] for line in done.stdout.split()}


def lint(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("hadolint"), "--no-color", path], capture_output=True, text=True
    )


def test_hadolint_finds_nothing() -> None:
    done = lint(DEPLOY / "Dockerfile")
    assert done.returncode == 0, done.stdout


def test_hadolint_would_find_something(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"{TEXT}\nFROM debian:latest\nRUN cd /tmp && sudo pip install torch\n")
    done = lint(tmp_path / "Dockerfile")
    assert done.returncode != 0
    assert "DL3007" in done.stdout  # latest


def test_there_is_a_target_for_every_image() -> None:
    assert set(build.KINDS) <= set(stages())
    assert {spec.image for spec in STEPS.values()} == set(build.PIPELINE_IMAGES) < set(build.KINDS)


def test_every_stage_stands_on_the_base_that_the_builder_names() -> None:
    assert {on for on, _ in stages().values()} - set(stages()) == {"${BASE}"}
    assert "ARG BASE\n" in TEXT  # no default: nobody builds on bytes that nobody chose


@pytest.mark.parametrize("kind", build.KINDS)
def test_an_image_ends_as_a_user_without_rights(kind: str) -> None:
    users = [line for line in whole(kind) if line.startswith("USER ")]
    assert users[-1] == "USER 10001:10001"
    assert not [line for line in whole(kind)[whole(kind).index(users[-1]) :] if line.startswith("RUN")]


@pytest.mark.parametrize("kind", build.KINDS)
def test_libraries_come_before_code_and_from_the_lock(kind: str) -> None:
    own = whole(kind)
    installs = [number for number, line in enumerate(own) if "pip --python" in line]
    code = [number for number, line in enumerate(own) if "--from=code" in line]
    assert installs
    assert len(code) == 1
    assert max(installs) < code[0]
    assert not FOREVER & set(" ".join(own).split())


@pytest.mark.parametrize("kind", ["code", *build.KINDS])
def test_pip_has_the_lock_before_it_installs_or_builds(kind: str) -> None:
    """Of what is built with, too: versions for that come from one setting in older pips, from another in newer ones."""
    own = whole(kind)
    (result,) = [line for line in own if "PIP_CONSTRAINT=" in line]
    assert result.startswith("ENV ")
    assert {"PIP_CONSTRAINT=/opt/venv/constraints.lock", "PIP_BUILD_CONSTRAINT=/opt/venv/constraints.lock"} <= {
        *result.split()
    }
    lock = own.index("COPY constraints.lock /opt/venv/constraints.lock")
    assert own.index(result) < lock < min(number for number, line in enumerate(own) if "pip --python" in line)
    assert "--no-build-isolation" not in "".join(own)


def test_what_builds_our_package_is_in_the_lock() -> None:
    requested = tomllib.loads((HOUSE / "pyproject.toml").read_text())["build-system"]["requires"]
    assert requested
    locked = dict(line.split("==") for line in (HOUSE / "constraints.lock").read_text().split())
    for requirement in map(Requirement, requested):
        assert requirement.specifier.contains(locked[requirement.name])


def test_serve_can_be_asked_whether_it_is_well_and_the_others_are_started_by_kubeflow() -> None:
    for kind in build.KINDS:
        instructions = {line.split()[0] for line in whole(kind)}
        assert ({"HEALTHCHECK", "ENTRYPOINT"} <= instructions) == (kind == "serve"), kind


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", build.KINDS)
def test_an_image_is_reported_nothing_that_it_must_not_hold(kind: str, variant: str) -> None:
    requested = requirements(kind, variant)
    assert "pydantic" in requested
    assert not requested & contents.FORBIDDEN_PACKAGES[kind]
    assert ("kfp" in requested) == (kind != "serve")
    assert ("torch" in requested) == (kind == "train")
    assert ("nvidia-cublas" in requested) == (variant == "cuda" and kind != "data")
    assert "onnxruntime" not in requested  # it and onnxruntime-gpu own one folder


@pytest.mark.parametrize("kind", build.KINDS)
def test_an_image_has_a_driver_for_every_shared_place(kind: str) -> None:
    """The bucket is for all of them; databases and Redis are not for training."""
    requested = requirements(kind, "cpu")
    assert "s3fs" in requested
    assert ({"psycopg", "redis"} <= requested) == (kind != "train")


def test_evaluate_has_all_that_serves() -> None:
    for variant in VARIANTS:
        assert requirements("serve", variant) < requirements("evaluate", variant)


def test_every_pinned_library_is_in_the_lock() -> None:
    locked = {line.split("==")[0] for line in (HOUSE / "constraints.lock").read_text().split()}
    for kind in build.KINDS:
        assert {name.lower() for name in requirements(kind, "cpu")} <= locked


def test_what_a_build_by_hand_sees_is_what_the_command_sends() -> None:
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().split("\n")
    retained = {line[1:] for line in ignore if line.startswith("!")}
    assert retained == {*build.CONTEXT_FILES, *build.PACKAGES}


def test_every_package_of_ours_is_sent() -> None:
    matches = tomllib.loads((HOUSE / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    there = {name.rstrip("*") for name in matches if (HOUSE / name.rstrip("*")).is_dir()}
    assert there == set(build.PACKAGES)


# deploy/gpu.sh, on a folder made up to look like the library's


@pytest.fixture
def library(tmp_path: Path) -> Path:
    capi = tmp_path / "onnxruntime" / "capi"
    capi.mkdir(parents=True)
    (capi.parent / "__init__.py").touch()
    for name in ("cuda", "tensorrt", "shared"):
        (capi / f"libonnxruntime_providers_{name}.so").write_text(name)
    (tmp_path / "python").symlink_to(sys.executable)
    return tmp_path


def gpu(variant: str, library: Path) -> subprocess.CompletedProcess[str]:
    result = {**os.environ, "PYTHONPATH": str(library), "PATH": f"{library}:{os.environ['PATH']}"}
    return subprocess.run(["sh", DEPLOY / "gpu.sh", variant], capture_output=True, text=True, env=result)


def test_a_cpu_image_leaves_the_gpu_providers_out(library: Path) -> None:
    assert gpu("cpu", library).returncode == 0
    left = [path.name for path in (library / "onnxruntime" / "capi").iterdir()]
    assert left == ["libonnxruntime_providers_shared.so"]


def test_a_variant_nobody_knows_stops_the_build(library: Path) -> None:
    done = gpu("tpu", library)
    assert done.returncode == 2
    assert "VARIANT is cpu or cuda, not 'tpu'" in done.stderr


@pytest.mark.skipif(shutil.which("dash") is None, reason="there is no dash here")
def test_dash_parses_the_shell_script() -> None:
    subprocess.run(["dash", "-n", DEPLOY / "gpu.sh"], check=True)

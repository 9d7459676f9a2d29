"""`rankline new`: the repository passes its own tests, compiles, and is well formed."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from cli.project import new
from cli.project.checks.libraries import extras
from rankline.errors import UsageError
from tests.cli.in_process import rankline, refused
from tests.pipelines.golden import PINNED

SETTINGS = [part for setting in PINNED for part in ("--set", setting)]


def within(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True)


def workflow(folder: Path) -> list[str]:
    """The commands of its CI, in order."""
    config = yaml.safe_load((folder / ".github" / "workflows" / "ci.yml").read_text())
    assert config["env"] == {"RANKLINE": "${{ vars.RANKLINE }}"}
    return [step["run"] for step in config["jobs"]["test"]["steps"] if "run" in step]


@pytest.mark.slow  # a test session in a test
def test_it_passes_its_own_tests_and_compiles(tmp_path: Path) -> None:
    folder = tmp_path / "my-shop"
    done = rankline("new", folder)
    assert done.returncode == 0, done.stderr
    assert "make test" in done.stdout
    done = within(folder, "pytest", "-q")
    assert (done.returncode, "4 passed, 1 deselected" in done.stdout) == (0, True), done.stdout
    done = rankline("compile", "--recipe", "recipes.my_shop:my_shop", "-o", "flow.yaml", *SETTINGS, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "name: rankline-my-shop" in (folder / "flow.yaml").read_text()
    # its tests notice a recipe that loses a gate
    (folder / "recipes" / "gates.py").write_text('GATES = ("decide.must_beat=[]",)\n')
    done = within(folder, "pytest", "-q")
    assert done.returncode == 1
    assert "test_nothing_is_promoted_that_popularity_beats" in done.stdout


@pytest.mark.parametrize("name", ["x", "shop", "a-rather-long-name-for-a-recipe-2"])
def test_it_is_well_formed_with_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "made"
    written = new.create_repository(folder, name=name)
    assert f"recipes/{name.replace('-', '_')}.py" in written
    assert {".gitignore", ".github/CODEOWNERS", "pyproject.toml", "data/sample/shop.inter"} <= set(written)
    for command in (("ruff", "check", "."), ("ruff", "format", "--check", ".")):
        done = within(folder, *command)
        assert done.returncode == 0, done.stdout + done.stderr
    for path in written:
        assert "@@" not in (folder / path).read_text(), path
    for path in (".pre-commit-config.yaml", ".github/workflows/ci.yml"):
        assert yaml.safe_load((folder / path).read_text())
    hooks = yaml.safe_load((folder / ".pre-commit-config.yaml").read_text())["repos"]
    assert [each["repo"] for each in hooks] == ["local"]
    targets = {command.split()[1] for command in workflow(folder) if command.startswith("make ")}
    assert targets == {"setup", "test", "test-slow"}
    assert targets <= {line.split(":")[0] for line in (folder / "Makefile").read_text().splitlines() if "##" in line}


def test_it_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    assert "the folder exists and is not empty" in refused("new", tmp_path, "--name", "shop", code=2)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    with pytest.raises(UsageError, match="a file"):
        new.create_repository(tmp_path / "mine", name="shop")
    (tmp_path / "empty").mkdir()
    assert new.create_repository(tmp_path / "empty", name="shop")


def test_its_ci_installs_from_the_variable_and_asks_for_it(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    new.create_repository(folder, name="shop")
    first = workflow(folder)[0].split()
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "python").symlink_to(sys.executable)

    def run_ci(rankline: str, *options: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "RANKLINE": rankline}  # empty if CI does not set it
        return subprocess.run([*first, *options], cwd=folder, capture_output=True, text=True, env=environment)

    assert (run_ci("").returncode, "RANKLINE is not set" in run_ci("").stderr) == (2, True)
    assert not (folder / ".venv" / ".ready").exists()
    url = "git+https://example.org/team/rankline@0123abc"
    for given, requested in ((url, url), ("../rankline", f"file://{tmp_path}/rankline")):
        lines = [line for line in run_ci(given, "--dry-run").stdout.splitlines() if "pip install" in line]
        assert [line.count("-c constraints.txt") for line in lines] == [1, 1]
        assert f"'rankline[{','.join(extras())}] @ {requested}'" in lines[0]
    versions = dict(line.split("==") for line in (folder / "constraints.txt").read_text().splitlines())
    assert versions["pydantic"] == metadata.version("pydantic")
    assert "rankline" not in versions
    assert not [version for version in versions.values() if "+" in version]


def test_names_that_its_own_module_uses_are_taken(tmp_path: Path) -> None:
    new.create_repository(tmp_path / "x", name="x")
    tree = ast.parse((tmp_path / "x" / "recipes" / "x.py").read_text())
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    assert "smoke" in used
    assert {name for name in used if new.NAME_PATTERN.match(name)} - {
        "source"
    } <= new.RESERVED_NAMES  # source is its own variable


def test_a_folder_without_a_name_is_refused(tmp_path: Path) -> None:
    done = rankline("new", "", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("the folder has no name")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["Shop", "2shop", "a b", "gates", "class", "", "pipelines", "recipes", "tests", "feature-repo", "smoke"]
)
def test_a_name_that_a_recipe_cannot_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a recipe"):
        new.create_repository(tmp_path / "made", name=name)
    assert list(tmp_path.iterdir()) == []


def test_the_template_is_packaged() -> None:
    """Every file of it is part of the package data."""
    import tomllib

    root = Path(new.__file__).parents[2]
    data = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["cli.project"]
    taken = {path for pattern in data for path in (root / "cli" / "project").glob(pattern)}
    assert taken == {path for path in new.TEMPLATE.rglob("*") if path.is_file()}
    assert len(taken) > 10


def test_it_asks_for_what_a_run_needs(tmp_path: Path) -> None:
    import tomllib

    new.create_repository(tmp_path / "shop", name="shop")
    (requirement,) = tomllib.loads((tmp_path / "shop" / "pyproject.toml").read_text())["project"]["dependencies"]
    ours = tomllib.loads((Path(new.__file__).parents[2] / "pyproject.toml").read_text())["project"]
    named = requirement.split("[")[1].split("]")[0].split(",")
    assert set(named) <= set(ours["optional-dependencies"])
    extras, waiting = ours["optional-dependencies"], list(named)
    for name in waiting:  # an extra may name others
        waiting += [part for each in extras[name] if "[" in each for part in each[:-1].split("[")[1].split(",")
                    if each.startswith("rankline") and part not in waiting]  # fmt: skip
    needed = " ".join([*ours["dependencies"], *(each for name in waiting for each in extras[name])])
    for library in ("kfp==", "torch==", "feast", "onnxruntime-gpu", "mlflow", "fastapi"):
        assert library in needed, library


@pytest.mark.slow
def test_what_its_ci_runs_passes(tmp_path: Path) -> None:
    """Its commands, in an environment with the libraries of this one; Rankline comes from a commit."""
    root = Path(new.__file__).parents[2]
    commit = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    if not commit:
        pytest.skip("this is no checkout of a repository")
    folder = tmp_path / "shop"
    new.create_repository(folder, name="shop")
    subprocess.run([sys.executable, "-m", "venv", folder / ".venv"], check=True)
    (site,) = (folder / ".venv").glob("lib/python3.*/site-packages")
    (site / "here.pth").write_text(f"{Path(yaml.__file__).parents[1]}\n")
    for tool in ("ruff", "pre-commit", "trailing-whitespace-fixer", "end-of-file-fixer", "check-added-large-files"):
        (folder / ".venv" / "bin" / tool).symlink_to(Path(sys.executable).with_name(tool))
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run(["git", "add", "-A"], cwd=folder, check=True)
    environment = {**os.environ, "RANKLINE": f"git+file://localhost{root}@{commit}"}
    environment.pop("PYTHONPATH", None)
    for command in workflow(folder)[:-1]:  # the last one has a test of its own
        done = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert list(site.glob("rankline-*.dist-info/direct_url.json"))


@pytest.mark.slow
def test_its_slow_test_runs_the_pipeline(tmp_path: Path) -> None:
    new.create_repository(tmp_path / "shop", name="shop")
    done = within(tmp_path / "shop", "pytest", "-q", "-m", "slow")
    assert (done.returncode, "1 passed" in done.stdout) == (0, True), done.stdout

"""Files and modules that pages, comments and docstrings name are there."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = "rankline|components|pipelines|onboarding|feature_repo|serving|cli|deploy|benchmarks|docs|tests"
_PATH = re.compile(rf"(?<![\w./<>{{}}-])((?:{FOLDERS})/[\w./-]*\.(?:py|md|json|yaml|html|sh))(?![\w/])")
_MODULE = re.compile(r"python -m ((?:components|pipelines|benchmarks|docs|serving|tests)[\w.]*)")
SUFFIXES = (".py", ".md", ".toml", ".yml")
# the first two name pages of the site, the last what was there once
LEFT_OUT = {"docs/tools/site.py", "tests/docs/test_site.py", "CHANGELOG.md"}


def named_paths(text: str) -> set[str]:
    modules = {f"{name.rstrip('.').replace('.', '/')}" for name in _MODULE.findall(text)}
    return {*_PATH.findall(text)} | modules


def exists(path: str) -> bool:
    return any((ROOT / each).exists() for each in (path, f"{path}.py", f"{path}/__main__.py"))


def files() -> list[Path]:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return [ROOT / name for name in tracked if name.endswith(SUFFIXES) and name not in LEFT_OUT]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the list of files comes from git")
def test_every_named_file_is_there() -> None:
    paths = {path: named_paths(path.read_text()) for path in files() if path.is_file() and path != Path(__file__)}
    assert sum(map(len, paths.values())) > 50
    missing = [
        f"{path.relative_to(ROOT)}: {name}" for path, names in paths.items() for name in names if not exists(name)
    ]
    assert missing == []


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("see rankline/nowhere.py", {"rankline/nowhere.py"}),
        ("`python -m benchmarks.nothing --x`", {"benchmarks/nothing"}),
        ("(pipelines/runs/plan.py)", {"pipelines/runs/plan.py"}),
        ("/mnt/rankline/x.py and {root}/docs/x.md", set()),
    ],
)
def test_what_counts_as_a_name(text: str, names: set[str]) -> None:
    assert named_paths(text) == names

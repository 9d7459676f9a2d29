"""Files, folders, modules and tests that pages, comments and docstrings name are there."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = "rankline|components|pipelines|onboarding|feature_repo|serving|cli|deploy|benchmarks|docs|tests"
_PATH = re.compile(rf"(?<![\w./<>{{}}-])((?:{FOLDERS})/[\w./-]*\.(?:py|md|json|yaml|html|sh))(?![\w/])")
_FOLDER = re.compile(rf"(?<![\w./<>{{}}-])((?:{FOLDERS})/(?:[\w.-]+/)*)(?![\w.*<{{…-])")
_TEST = re.compile(r"\btest_\w+")
_TEST_DEFINITION = re.compile(r"^\s*(?:async )?def (test_\w+)", re.MULTILINE)
_MODULE = re.compile(r"python -m ((?:components|pipelines|benchmarks|docs|serving|tests)[\w.]*)")
SUFFIXES = (".py", ".md", ".toml", ".yml")
# the first two name pages of the site, the last what was there once
LEFT_OUT = {"docs/tools/site.py", "tests/docs/test_site.py", "CHANGELOG.md"}


def named_paths(text: str) -> set[str]:
    modules = {f"{name.rstrip('.').replace('.', '/')}" for name in _MODULE.findall(text)}
    return {*_PATH.findall(text)} | modules


def named_folders(text: str) -> set[str]:
    return {*_FOLDER.findall(text)}


def unknown_tests(text: str, known: set[str]) -> set[str]:
    return {name for name in _TEST.findall(text) if name not in known}


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


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the list of files comes from git")
def test_every_folder_that_a_page_names_is_there() -> None:
    folders = {path: named_folders(path.read_text()) for path in files() if path.suffix == ".md" and path.is_file()}
    assert sum(map(len, folders.values())) > 20
    missing = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, names in folders.items()
        for name in names
        if not (ROOT / name).is_dir()
    ]
    assert missing == []


def test_every_test_that_a_page_names_is_there() -> None:
    modules = [*(ROOT / "tests").rglob("test_*.py")]
    known = {module.stem for module in modules} | {"test_until"}  # test_until: a setting of featurize
    for module in modules:
        known |= {*_TEST_DEFINITION.findall(module.read_text())}
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert any(_TEST.search(page.read_text()) for page in pages)
    unknown = [f"{page.relative_to(ROOT)}: {name}" for page in pages for name in unknown_tests(page.read_text(), known)]
    assert unknown == []


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("`cli/checks/` has one file per check", {"cli/checks/"}),
        ("see rankline/model/catalogue/ and cli/", {"rankline/model/catalogue/", "cli/"}),
        ("components/*/README.md, `components/<step>/`, /mnt/cli/, cli/main.py", set()),
    ],
)
def test_what_counts_as_a_folder(text: str, names: set[str]) -> None:
    assert named_folders(text) == names


def test_a_test_that_is_not_there_is_found() -> None:
    text = "`test_old_name`*, and `test_files.py::test_new_name`"
    assert unknown_tests(text, {"test_files", "test_new_name"}) == {"test_old_name"}


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

"""The pre-commit hooks: they pass on all files, download nothing, and refuse what they should."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / ".pre-commit-config.yaml"
HOOKS = yaml.safe_load(CONFIG.read_text())["repos"]
BIN = Path(sys.executable).parent


def run(folder: Path, scratch: Path, *, skip: str = "") -> subprocess.CompletedProcess[str]:
    """All hooks on all files of a repository, in the environment that runs this test."""
    config = scratch / "hooks.yaml"
    config.write_text(CONFIG.read_text().replace(".venv/bin/", f"{BIN}/"))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        "PRE_COMMIT_HOME": str(scratch / "pre-commit"),
        "PYTHONPATH": str(ROOT),
        "SKIP": skip,
    }
    command = [sys.executable, "-m", "pre_commit", "run", "--all-files", "--color", "never", "-c", str(config)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)


def test_every_hook_is_a_command_of_the_environment() -> None:
    assert [repo["repo"] for repo in HOOKS] == ["local"]
    assert len(HOOKS[0]["hooks"]) > 10
    for hook in HOOKS[0]["hooks"]:
        assert hook["language"] == "system"
        assert (BIN / hook["entry"].split()[0].removeprefix(".venv/bin/")).exists(), hook["entry"]


@pytest.mark.slow  # `make hooks` does the same
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git repository: hooks check the files that git tracks")
def test_the_hooks_pass_on_all_files(tmp_path: Path) -> None:
    # `make test` itself runs ruff and mypy, and ruff would change files here
    done = run(ROOT, tmp_path, skip="ruff,ruff-format,mypy")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.integration
def test_the_hooks_refuse_what_they_should(tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "a.md").write_text("trailing  \n")
    (folder / "b.md").write_text("no newline at the end")
    (folder / "c.yaml").write_text("a: [\n")
    (folder / "d.toml").write_text("a = \n")
    (folder / "e.txt").write_text("-----BEGIN RSA " + "PRIVATE KEY-----\n")
    (folder / "f.bin").write_bytes(b"\0" * 600_000)
    (folder / "g.py").write_text("import os\n")
    (folder / "h.py").write_text("x = {  'a':1 }\n")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run(["git", "add", "-A"], cwd=folder, check=True)
    done = run(folder, tmp_path, skip="mypy,reference,golden,merge-conflict")
    failed = {line.split()[3] for line in done.stdout.splitlines() if line.startswith("- hook id:")}
    assert failed == {
        "ruff", "ruff-format", "trailing-whitespace", "end-of-file", "yaml", "toml", "large-files", "private-key",
    }, done.stdout  # fmt: skip

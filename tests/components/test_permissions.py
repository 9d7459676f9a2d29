"""Nobody else may write what a step writes, however its process was started."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STEP = """
import json, os, sys
from types import SimpleNamespace
from pathlib import Path
os.umask(int(sys.argv[1], 8))
from components.ingest.component import ingest
from components.summary.component import summary
from pipelines.recipe import run_parameters, step_settings
from pipelines.recipes import named
from rankline.io.files import locked
recipe = named("smoke", sys.argv[3:])
settings = step_settings(recipe, "ws")
run = run_parameters(recipe, "ws") | {"schedule": {"name": "nightly", "cron": "0 0 0 * * *"}}
ingest.python_func(
    settings["ingest"], run, "r1", "digest", SimpleNamespace(path=sys.argv[2]), scheduled_at="2026-11-30T00:00:00Z"
)
summary.python_func(settings["summary"], run, "r1", SimpleNamespace(state="SUCCEEDED", error_message=""))
with locked(Path("ws/lock")):
    pass
"""


def modes(tmp_path: Path, umask: str, *settings: str) -> tuple[set[int], set[int]]:
    """The permissions of the files and of the folders that ingest and summary leave when started with a umask."""
    from pipelines.assets import packaged

    packaged.fetch("smoke", tmp_path / "data")
    source = f"ingest.source={tmp_path / 'data' / 'material' / 'smoke'}"
    command = [sys.executable, "-c", STEP, umask, str(tmp_path / "out" / "raw"), source, *settings]
    subprocess.run(command, check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    paths = [path for folder in ("ws", "out") for path in (tmp_path / folder).rglob("*")]
    assert {"trigger.json", "ingest.json", "summary.json", "ingest.log", "entry.json"} <= {path.name for path in paths}
    return (
        {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_file()},
        {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_dir()},
    )


@pytest.mark.integration
@pytest.mark.parametrize(
    ("umask", "settings", "expected"),
    [
        ("000", [], ({0o600}, {0o700})),  # as Argo's executor starts it
        ("020", [], ({0o600}, {0o700})),
        ("022", [], ({0o644}, {0o755})),  # chosen by a user
        ("002", [], ({0o664}, {0o775})),
        ("000", ["storage.group_shared=true"], ({0o660}, {0o770})),
        ("022", ["storage.group_shared=true"], ({0o660}, {0o770})),
    ],
)
def test_a_step_keeps_its_files_to_itself(
    tmp_path: Path, umask: str, settings: list[str], expected: tuple[set[int], set[int]]
) -> None:
    assert modes(tmp_path, umask, *settings) == expected

"""Run a compiled package as a cluster does: each step is a process with an empty workspace folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.pipelines import from_yaml

ROOT = Path(__file__).resolve().parents[2]
WORKSPACE = "/workspace-of-a-pod"  # of the package, which no process ever sees
PYTHON = """#!{python}
import os, sys, tempfile
folder = tempfile.mkdtemp(dir={pods!r})
os.execv({python!r}, [{python!r}, *(each.replace({workspace!r}, folder) for each in sys.argv[1:])])
"""


class Pods:
    """The pods of a cluster without a shared volume; ``bucket`` is where Kubeflow keeps what steps pass on."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bucket, self._python = folder / "pods", folder / "kubeflow", folder / "pod-python"
        self.folder.mkdir(parents=True)
        self._python.write_text(PYTHON.format(python=sys.executable, pods=str(self.folder), workspace=WORKSPACE))
        self._python.chmod(0o755)

    def start(self, package: Path) -> subprocess.Popen[str]:
        """Start a run of a package, with Kubeflow's own local runner."""
        return subprocess.Popen(
            [sys.executable, "-m", "tests.pipelines.pods", str(package), str(self.bucket), str(self._python)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )

    def run(self, package: Path, *, timeout_s: float = 600) -> str:
        """Run a package to its end; returns what it printed."""
        process = self.start(package)
        output = process.communicate(timeout=timeout_s)[0]
        assert process.returncode == 0, output[-6000:]
        return output


if __name__ == "__main__":
    sys.executable = sys.argv[3]  # the runner starts steps with it
    sys.exit(from_yaml.main())

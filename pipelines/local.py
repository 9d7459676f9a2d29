"""The process in which Kubeflow's local runner executes a flow: `python -m pipelines.local RECIPE WORKSPACE`.

It lives no longer than whoever started it: when its standard input closes, it ends with all its steps.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path


def main() -> int:
    """Run the recipe in the given file; 0 where every step that ran has succeeded."""
    from kfp import local
    from pydantic import TypeAdapter

    from pipelines.recipes import Recipe
    from pipelines.training import training

    threading.Thread(target=_end_with_parent, daemon=True).start()
    recipe_file, workspace = Path(sys.argv[1]), Path(sys.argv[2])
    recipe = TypeAdapter(Recipe).validate_python(json.loads(recipe_file.read_text()))
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(recipe_file.parent / "artifacts"),
        raise_on_error=True,
    )
    training(recipe, workspace=str(workspace))()
    return 0


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing is ever written there: this returns when the other end is closed
    os.killpg(0, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())

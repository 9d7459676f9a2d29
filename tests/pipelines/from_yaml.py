"""Run a compiled package as it is, with Kubeflow's own local runner: `python from_yaml.py PACKAGE ROOT`.

Nothing of pipelines/training.py is imported: the tasks, their order, their branches and what they are told come out of
the package alone, as they do on a cluster.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> int:
    """0 where every task that ran has succeeded."""
    from kfp import components, local

    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[2], raise_on_error=True)
    components.load_component_from_file(str(Path(sys.argv[1])))()
    assert "pipelines.training" not in sys.modules
    return 0


if __name__ == "__main__":
    sys.exit(main())

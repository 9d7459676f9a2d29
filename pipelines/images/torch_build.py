"""The build of torch that pip would install into the train image: for processors, or with CUDA's libraries."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.images.contents import CUDA_LIBRARY, TORCH_HINTS
from rankline.errors import RanklineError

if TYPE_CHECKING:
    from pipelines.images.build import BuildOptions
    from pipelines.images.docker import DockerCommand

TIMEOUT_S = 120.0  # pip before 23.3 downloads the whole wheel to read its metadata: then the build itself finds out


def require_cpu_torch(
    options: BuildOptions, *, tool: DockerCommand, say: Callable[[str], None], source_root: Path
) -> None:
    """Refuse, before anything is built, a CPU train image that pip would give the CUDA build of torch.

    Nothing happens where pip's index does not answer in time: the finished image is checked as well.

    Raises:
        RanklineError: the index and ``options.torch_wheels`` have only the CUDA build.
    """
    say("  train [cpu] which build of torch does pip's index have?")
    network = ("--network", options.network) if options.network else ()
    limited = ("--entrypoint", "timeout", options.base, str(int(TIMEOUT_S)))  # ends the container, not only its client
    python = (tool.command, "run", "--rm", *network, *limited, "python3")
    report = pip_report(python, locked_torch(source_root), options.torch_wheels)
    libraries = cuda_requirements(report) if report else []
    if report and libraries:
        raise RanklineError(
            "the train image for CPUs would hold CUDA libraries",
            expected=f"a CPU build of torch {report['metadata']['version']} in pip's index or --torch-wheels",
            found=f"a build that requires {', '.join(libraries[:3])}… ({len(libraries)} CUDA libraries)",
            where=report["download_info"]["url"],
            hint=TORCH_HINTS["cpu"],
        )


def locked_torch(source_root: Path) -> str:
    """The requirement of the lock, `torch==…`."""
    match = re.search(r"^torch==\S+$", (source_root / "constraints.lock").read_text(), re.MULTILINE)
    assert match is not None
    return match[0]


def pip_report(python: Sequence[str], requirement: str, wheels: str) -> dict[str, Any] | None:
    """What pip of this ``python`` would install, as its report describes it; None if it does not tell in time."""
    command = [
        *python, "-m", "pip", "install", "--dry-run", "--quiet", "--no-deps", "--ignore-installed",
        "--break-system-packages", "--report", "-", *(("--find-links", wheels) if wheels else ()), requirement,
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S + 30)
        report: dict[str, Any] = json.loads(done.stdout)["install"][0]
    except (subprocess.TimeoutExpired, ValueError, LookupError):
        return None
    return report


def cuda_requirements(report: dict[str, Any]) -> list[str]:
    """The CUDA libraries that a distribution requires on this platform."""
    from packaging.requirements import Requirement

    required = [Requirement(line) for line in report["metadata"].get("requires_dist", ())]
    installed = {each.name for each in required if each.marker is None or each.marker.evaluate({"extra": ""})}
    return sorted(name for name in installed if CUDA_LIBRARY.match(name))

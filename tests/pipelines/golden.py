"""One compiled package per flow, committed beside this file: a change of a flow shows as a diff.

`python -m tests.pipelines.golden` (or `make golden`) renews them.
"""

from __future__ import annotations

import typing
from pathlib import Path

from pipelines.recipes import Recipe, load_for_display
from pipelines.runs.runner import Flow

FOLDER = Path(__file__).with_name("golden")
FLOWS: tuple[Flow, ...] = typing.get_args(Flow)
# Digests of no real image. Packages are compiled for pinned images only.
PINNED = tuple(
    f"cluster.images.{name}=registry.example/rankline-python-{name}@sha256:{digit * 64}"
    for name, digit in (("data", "a"), ("train", "b"), ("evaluate", "c"))
)


def pinned(recipe: str, *settings: str) -> Recipe:
    """A recipe with pinned images, as a package needs them."""
    return load_for_display(recipe, [*PINNED, *settings])


def path(flow: str) -> Path:
    """The golden package of a flow of the smoke recipe."""
    return FOLDER / f"{flow}.yaml"


if __name__ == "__main__":
    from pipelines.package import compile_flow

    for each in FLOWS:
        print(compile_flow(pinned("smoke"), path(each), flow=each))

"""The compiled flow of each recipe, kept beside this file: a change of the flow shows as a diff.

`python -m tests.pipelines.golden` (or `make golden`) writes them anew.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.recipes import RECIPES, Recipe, load_for_display

FOLDER = Path(__file__).with_name("golden")
# digests of no real image: what is compared is the flow, and a package has to be pinned
PINNED = tuple(
    f"cluster.images.{name}=registry.example/rankline-python-{name}@sha256:{digit * 64}"
    for name, digit in (("data", "a"), ("train", "b"), ("evaluate", "c"))
)


def pinned(recipe: str, *settings: str) -> Recipe:
    """A recipe whose images are pinned, as a package's have to be."""
    return load_for_display(recipe, [*PINNED, *settings])


def path(recipe: str, flow: str = "") -> Path:
    """Where the package of a recipe is kept; that of a smaller ``flow`` in a folder of its name."""
    return FOLDER / flow / f"{recipe}.yaml"


if __name__ == "__main__":
    from pipelines.package import compile_flow

    for each in RECIPES:
        print(compile_flow(pinned(each), path(each)))
    for flow in ("refresh", "features"):
        print(compile_flow(pinned("smoke"), path("smoke", flow), flow=flow))

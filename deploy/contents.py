"""The requirements of an image, by its extras in pyproject.toml; standard library only.

    python contents.py IMAGE VARIANT pyproject.toml

prints one requirement per line. Kubeflow runs steps in data, train and evaluate, so those hold kfp; serve does not.
"""

import re
import sys
import tomllib
from typing import Any

# Each image holds the drivers of every storage that its steps may use (docs/storage.md): nothing is installed later.
EXTRAS = {
    "data": ("data", "component", "s3", "postgres", "redis"),
    "train": ("train", "component", "s3"),
    "serve": ("serve", "s3", "postgres", "redis"),
    "evaluate": ("evaluate", "component", "s3", "postgres", "redis"),
}
VARIANTS = {"cpu": (), "cuda": ("cuda",)}
WITHOUT_GPU = ("data",)  # the same in every variant


def requirements(image: str, variant: str, project: dict[str, Any]) -> list[str]:
    """The requirements of an image, with our own extras expanded, each once."""
    optional, own_extra = project["optional-dependencies"], re.compile(rf"{project['name']}\[(.+)\]$")
    collected: dict[str, None] = dict.fromkeys(project["dependencies"])
    queue = [*EXTRAS[image], *(() if image in WITHOUT_GPU else VARIANTS[variant])]
    while queue:
        for line in optional[queue.pop(0)]:
            if inner := own_extra.match(line):
                queue += [extra.strip() for extra in inner[1].split(",")]
            else:
                collected[line] = None
    return list(collected)


if __name__ == "__main__":
    with open(sys.argv[3], "rb") as stream:
        print("\n".join(requirements(sys.argv[1], sys.argv[2], tomllib.load(stream)["project"])))

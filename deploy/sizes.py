"""The largest distributions of an image, by what is installed here from the same lock; needs only `packaging`.

    python deploy/sizes.py IMAGE [COUNT]

prints megabytes and names: the code, its bytecode (pip compiles it), and the tests that packages ship.
"""

import importlib.metadata
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

sys.path.insert(0, str(Path(__file__).parent))
from contents import requirements


def distributions(lines: list[str]) -> dict[str, importlib.metadata.Distribution]:
    """Name -> every installed distribution that the requirements lead to."""
    collected: dict[str, importlib.metadata.Distribution] = {}
    queue, seen = [(Requirement(line), "") for line in lines], set[str]()
    while queue:
        requirement, extra = queue.pop()
        if str(requirement) + extra in seen or not _applies(requirement, extra):
            continue
        seen.add(str(requirement) + extra)
        try:
            distribution = importlib.metadata.distribution(requirement.name)
        except importlib.metadata.PackageNotFoundError:  # of another platform
            continue
        collected[canonicalize_name(requirement.name)] = distribution
        needed = [Requirement(line) for line in distribution.requires or ()]
        queue += [(each, extra) for each in needed for extra in ("", *requirement.extras)]
    return collected


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def sizes(distribution: importlib.metadata.Distribution) -> tuple[int, int, int]:
    """Bytes of a distribution's files, those of them that are bytecode, and those that are in folders of tests."""
    total = bytecode = tests = 0
    for file in distribution.files or ():
        path = Path(str(distribution.locate_file(file)))
        size = path.stat().st_size if path.is_file() else 0
        total += size
        bytecode += size if path.suffix == ".pyc" else 0
        tests += size if {"tests", "test"} & set(file.parts) else 0
    return total, bytecode, tests


if __name__ == "__main__":
    image, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 12
    project = tomllib.loads(Path(__file__).with_name("..").joinpath("pyproject.toml").read_text())["project"]
    rows = sorted(((*sizes(each), name) for name, each in distributions(requirements(image, "cpu", project)).items()))
    for total, _, _, name in rows[::-1][:count]:
        print(f"{total / 1e6:6.0f} MB  {name}")
    totals = [sum(row[column] for row in rows) / 1e6 for column in range(3)]
    print(
        "{:6.0f} MB  {} distributions, {:.0f} MB of it bytecode, {:.0f} MB tests".format(
            totals[0], len(rows), *totals[1:]
        )
    )

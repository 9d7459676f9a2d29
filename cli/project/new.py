"""A repository for a team's own recipes, from a template: `rankline new DIR`."""

from __future__ import annotations

import keyword
import re
import string
import tempfile
from pathlib import Path
from typing import Annotated

import typer

HELP = """Make a small repository for recipes of your own: one recipe, its tests, its CI, a sample of data.

Example: rankline new shop, then cd shop && make test"""

TEMPLATE = Path(__file__).with_name("template")
SUFFIX = ".tmpl"  # so that nothing takes the template's files for what they will be
NAME_PATTERN = re.compile(r"^[a-z][a-z0-9-]*$")
# what a recipe's function and its module would hide: names that the template itself uses, and folders beside it
RESERVED_NAMES = {"gates", "change", "smoke", "os", "str"} | {"recipes", "tests", "data"}
RESERVED_NAMES |= {"rankline", "components", "pipelines", "feature_repo", "serving", "onboarding", "review", "cli"}


class TemplateText(string.Template):
    """A file of the template; `@@name` stands for a value, since make and shells have their own `$`."""

    delimiter = "@@"


def new(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Folder to make; its name is the recipe's.")],
    name: Annotated[str, typer.Option(help="Name of the recipe, if it is not the folder's.")] = "",
) -> None:
    """See HELP."""
    from rankline.errors import UsageError

    if not directory:
        raise UsageError("the folder has no name", expected="DIR", found="''", hint="rankline new shop")
    folder = Path(directory)
    written = create_repository(folder, name=name or folder.resolve().name)
    typer.echo("\n".join(f"  {path}" for path in written))
    typer.echo(f"made {folder}. Next:\n  cd {folder} && git init && git add -A")
    typer.echo("  make setup RANKLINE=…  # README.md says from where\n  make test")


def create_repository(folder: Path, *, name: str) -> list[str]:
    """Write the repository; the paths of what was written. It appears whole or not at all.

    Raises:
        UsageError: the folder holds something, or the name cannot be a recipe's.
    """
    from importlib import metadata

    from cli.project.checks.libraries import extras
    from pipelines.assets.synthetic_shop import write_shop
    from rankline.errors import UsageError

    module = name.replace("-", "_")
    if not NAME_PATTERN.match(name) or keyword.iskeyword(module) or module in RESERVED_NAMES:
        raise UsageError(
            f"{name!r} cannot name a recipe",
            expected="small letters, digits and hyphens, a letter first; and no name that is taken: "
            + ", ".join(sorted(RESERVED_NAMES)),
            found=name,
            hint="--name shop",
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            "there is something here already",
            expected="a folder that is empty, or not there yet",
            found=", ".join(sorted(path.name for path in folder.iterdir())[:3]) if folder.is_dir() else "a file",
            where=str(folder),
            hint="give another DIR",
        )
    values = {
        "name": name,
        "module": module,
        "variable": f"{module.upper()}_DATA",
        "extras": ",".join(extras()),
        "version": metadata.version("rankline"),
    }
    target = folder.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        tree = Path(scratch) / "tree"
        for source in sorted(TEMPLATE.rglob(f"*{SUFFIX}")):
            path = tree / target_path(source.relative_to(TEMPLATE).as_posix(), values)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(TemplateText(source.read_text()).substitute(values))
        sample = tree / "data" / "sample"
        sample.mkdir(parents=True)
        write_shop(sample)
        (tree / "constraints.txt").write_text("".join(f"{line}\n" for line in installed_constraints()))
        written = sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file())
        tree.rename(target)  # an empty folder that is there gives way
    return written


def installed_constraints() -> list[str]:
    """What is installed here, as pip's constraints; a build for one device (+cpu) is that version."""
    from importlib import metadata

    versions = {each.name.lower(): each.version.partition("+")[0] for each in metadata.distributions() if each.name}
    return [f"{name}=={version}" for name, version in sorted(versions.items()) if name != "rankline"]


def target_path(path: str, values: dict[str, str]) -> str:
    """Where a file of the template goes: `dot-x.tmpl` is `.x`."""
    parts = path.removesuffix(SUFFIX).split("/")
    return TemplateText("/".join(re.sub(r"^dot-", ".", part) for part in parts)).substitute(values)

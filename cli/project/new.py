"""Create a repository for a team's own recipes from a template."""

from __future__ import annotations

import keyword
import re
import string
from pathlib import Path
from typing import Annotated

import typer

TEMPLATE = Path(__file__).with_name("template")
SUFFIX = ".tmpl"  # keeps tools from taking the template's files for Python, YAML or make files
NAME_PATTERN = re.compile(r"^[a-z][a-z0-9-]*$")
# names that a recipe's function or module would hide: those the template uses, and folders beside it
RESERVED_NAMES = {"gates", "change", "smoke", "os", "str"} | {"recipes", "tests", "data"}
RESERVED_NAMES |= {"rankline", "components", "pipelines", "feature_repo", "serving", "onboarding", "review", "cli"}


class TemplateText(string.Template):
    """A file of the template; `@@name` stands for a value, since make and shells use `$` themselves."""

    delimiter = "@@"


def new(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Folder to create; the recipe gets its name.")],
    name: Annotated[str, typer.Option(help="Name of the recipe, if it differs from the folder's.")] = "",
) -> None:
    """Create a small repository for your own recipes: one recipe, its tests, its CI, sample data.

    Example: rankline new shop, then cd shop && make test
    """
    from rankline.errors import UsageError

    if not directory:
        raise UsageError("the folder has no name", expected="DIR", found="''", hint="rankline new shop")
    folder = Path(directory)
    written = create_repository(folder, name=name or folder.resolve().name)
    typer.echo("\n".join(f"  {path}" for path in written))
    typer.echo(f"created {folder}. Next:\n  cd {folder} && git init && git add -A")
    typer.echo("  make setup RANKLINE=…  # README.md explains the value\n  make test")


def create_repository(folder: Path, *, name: str) -> list[str]:
    """Write the repository, all of it or nothing; returns the paths of its files.

    Raises:
        UsageError: the folder is not empty, or a recipe cannot have this name.
    """
    from pipelines.assets.synthetic_shop import write_shop
    from rankline.io.files import replacing

    _check_name(name)
    _check_empty(folder)
    with replacing(folder.resolve()) as tree:
        _write_template(tree, name)
        sample = tree / "data" / "sample"
        sample.mkdir(parents=True)
        write_shop(sample)
        (tree / "constraints.txt").write_text("".join(f"{line}\n" for line in installed_constraints()))
        return sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file())


def _check_name(name: str) -> None:
    from rankline.errors import UsageError

    module = name.replace("-", "_")
    if not NAME_PATTERN.match(name) or keyword.iskeyword(module) or module in RESERVED_NAMES:
        raise UsageError(
            f"{name!r} cannot name a recipe",
            expected="lower-case letters, digits and hyphens, starting with a letter; none of the reserved names "
            + ", ".join(sorted(RESERVED_NAMES)),
            found=name,
            hint="--name shop",
        )


def _check_empty(folder: Path) -> None:
    from rankline.errors import UsageError

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            "the folder exists and is not empty",
            expected="a folder that is empty or does not exist",
            found=", ".join(sorted(path.name for path in folder.iterdir())[:3]) if folder.is_dir() else "a file",
            where=str(folder),
            hint="use another DIR",
        )


def _write_template(tree: Path, name: str) -> None:
    """Write the files of the template with the values of this recipe."""
    from importlib import metadata

    from cli.project.checks.libraries import extras

    module = name.replace("-", "_")
    values = {
        "name": name,
        "module": module,
        "variable": f"{module.upper()}_DATA",
        "extras": ",".join(extras()),
        "version": metadata.version("rankline"),
    }
    for source in sorted(TEMPLATE.rglob(f"*{SUFFIX}")):
        path = tree / _target_path(source.relative_to(TEMPLATE).as_posix(), values)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TemplateText(source.read_text()).substitute(values))


def installed_constraints() -> list[str]:
    """The installed libraries as pip's constraints; a build for one device (+cpu) counts as that version."""
    from importlib import metadata

    versions = {each.name.lower(): each.version.partition("+")[0] for each in metadata.distributions() if each.name}
    return [f"{name}=={version}" for name, version in sorted(versions.items()) if name != "rankline"]


def _target_path(path: str, values: dict[str, str]) -> str:
    """Where a file of the template is written: `dot-x.tmpl` is `.x`."""
    parts = path.removesuffix(SUFFIX).split("/")
    return TemplateText("/".join(re.sub(r"^dot-", ".", part) for part in parts)).substitute(values)

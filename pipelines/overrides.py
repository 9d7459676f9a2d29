"""What changes a recipe: `--recipe module:function`, `--set section.setting=value`, and files that map a source."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.util
import inspect
import json
import operator
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pydantic import TypeAdapter, ValidationError

from components.ingest.config import IngestConfig
from components.ingest.readers.tables import READERS
from pipelines.declared_features import refuse_undeclared
from pipelines.recipe import Recipe, as_dict
from rankline.errors import SettingError, UsageError
from rankline.io.sources import File

Factory = Callable[..., Recipe]
_OPTIONS = {"path": "--source", "map": "--map"}  # parameter of a factory -> option of the commands
# settings that are open mappings, such as decide.floors: they take keys of their own
_OPEN_MAPPINGS = ("floors", "ceilings", "slice_drops", "labels", "scales", "node_selector", "secrets", "gpus")

_METRIC_MAPPINGS = ("floors", "ceilings")


# -- a recipe by name ------------------------------------------------------------------------------------------


def load_recipe(name: str, factories: Mapping[str, Factory], *, source: str | None, map: str | None) -> Recipe:
    """The recipe that the factory of this name (or `module:function`) returns.

    Raises:
        UsageError: there is no such recipe, or it needs data, or takes none.
    """
    if name not in factories and ":" not in name:
        raise UsageError(
            f"there is no recipe named {name!r}",
            expected="one of " + ", ".join(factories) + ", or module:function",
            hint=_closest(name, list(factories)) or "`rankline recipes` lists them",
        )
    taking_data = [each for each, factory in factories.items() if "path" in inspect.signature(factory).parameters]
    arguments = {key: value for key, value in (("path", source), ("map", map)) if value is not None}
    if name in factories:
        return _call(name, factories[name], arguments, taking_data)
    return _import(name, arguments, taking_data)


def requires_source(factory: Factory) -> bool:
    """Whether a factory cannot be called without the place of the data."""
    path = inspect.signature(factory).parameters.get("path")
    return path is not None and path.default is inspect.Parameter.empty


def _call(name: str, factory: Factory, arguments: Mapping[str, str], taking_data: list[str]) -> Recipe:
    accepted = inspect.signature(factory).parameters
    if extra := [key for key in arguments if key not in accepted]:
        raise UsageError(
            f"recipe {name} takes no {_OPTIONS[extra[0]]}",
            expected="a recipe for your own data: " + ", ".join(taking_data),
            found=arguments[extra[0]],
            hint="set ingest.source and ingest.columns instead, or write a recipe of your own",
        )
    if requires_source(factory) and "path" not in arguments:
        raise UsageError(
            f"recipe {name} needs data",
            expected="--source PATH",
            found="none",
            hint=f"rankline run --recipe {name} --source /data/mine; `rankline init` examines data and writes a recipe",
        )
    return factory(**arguments)


def _import(name: str, arguments: Mapping[str, str], taking_data: list[str]) -> Recipe:
    """The recipe of a module of the user's, which may lie in the current folder."""
    module, _, function = name.rpartition(":")
    if "" not in sys.path:
        sys.path.append("")
    try:
        recipe = _call(name, getattr(_load_module(module), function), arguments, taking_data)
        if not isinstance(recipe, Recipe):
            raise TypeError(f"it returned {type(recipe).__name__}")
    except UsageError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise UsageError(
            f"recipe {name} cannot be loaded",
            expected="module:function, importable from here, or FILE.py:function, that returns a Recipe",
            found=f"{type(error).__name__}: {' '.join(str(error).split())}",
            hint="check the spelling, or set PYTHONPATH to the folder of the module",
        ) from error
    return recipe


def _load_module(name: str) -> Any:
    """The module of this name, or of a file, whose folder need not be one that Python imports from."""
    if not name.endswith(".py"):
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(str(Path(name).resolve()), name)
    assert spec is not None
    assert spec.loader is not None  # as every source file has
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where dataclasses look it up
    spec.loader.exec_module(module)
    return module


# -- single settings -------------------------------------------------------------------------------------------


def change(recipe: Recipe, settings: Sequence[str], *, name: str = "") -> Recipe:
    """The recipe with single settings changed, each given as ``section.setting=value``; the value is JSON or text.

    ``section=@file`` takes the settings of a section from a TOML or JSON file, such as a policy for ``decide``;
    ``@file`` those of all the sections that are tables in it.
    ``name`` is what the recipe was loaded by, for messages.

    Raises:
        UsageError: there is no such setting, the value does not fit, or a feature is not declared.
    """
    values, texts = as_dict(recipe), dict[tuple[str, ...], str]()
    for setting in settings:
        if setting.startswith("@"):
            for section, of_section in _sections(setting[1:], values).items():
                values[section] |= of_section
            continue
        path, equals, text = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting} has no value", expected="section.setting=value", found=setting)
        if text.startswith("@") and isinstance(values.get(path.strip()), dict):
            values[path.strip()] |= read_settings(text[1:], section=path.strip())
            continue
        _set_value(values, path.strip(), _parse(text), setting)
        texts[tuple(path.strip().split("."))] = text
    try:
        changed = _validated(values, texts)
    except ValidationError as error:
        problem = first_problem(error)
        raise UsageError(
            f"the recipe refuses {'.'.join(problem.path)}",
            expected=problem.expected,
            found=problem.value,
            hint=problem.hint or f"`rankline recipes show {name or 'NAME'}` lists every setting with its bounds",
        ) from error
    refuse_undeclared(changed)
    return changed


def _validated(values: dict[str, Any], texts: Mapping[tuple[str, ...], str]) -> Recipe:
    """The recipe of these values; a number for a setting that is a text stands for its text, as given in ``texts``."""
    try:
        return TypeAdapter(Recipe).validate_python(values)
    except ValidationError as error:
        numbers = {
            tuple(map(str, each["loc"]))
            for each in error.errors()
            if each["type"] == "string_type" and isinstance(each["input"], int | float)
        }
        if not numbers & texts.keys():
            raise
        for path in numbers & texts.keys():
            functools.reduce(operator.getitem, path[:-1], values)[path[-1]] = texts[path]
        return TypeAdapter(Recipe).validate_python(values)


def _set_value(values: dict[str, Any], path: str, value: Any, setting: str) -> None:
    *sections, key = path.split(".")
    for mapping in set(_METRIC_MAPPINGS).intersection(sections):  # a metric such as click.ece is one key
        first = sections.index(mapping) + 1
        sections, key = sections[:first], ".".join([*sections[first:], key])
    section_values: Any = values
    for depth, section in enumerate(sections):
        if not isinstance(section_values, dict) or section not in section_values:
            _refuse(".".join([*sections[:depth], section]), list(section_values), setting)
        section_values = section_values[section]
    is_open = bool(sections) and sections[-1] in _OPEN_MAPPINGS
    if not isinstance(section_values, dict) or (key not in section_values and not is_open):
        _refuse(path, list(section_values) if isinstance(section_values, dict) else [], setting)
    section_values[key] = value


def _refuse(path: str, known: list[str], setting: str) -> NoReturn:
    raise UsageError(
        f"the recipe has no setting {path!r}",
        expected="one of " + ", ".join(known),
        found=setting,
        hint=_closest(path.split(".")[-1], known) or "`rankline recipes show NAME` lists every setting",
    )


def _closest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@dataclass(frozen=True)
class Problem:
    """A setting that a model refuses: where it is, what is expected, what is there."""

    path: tuple[str, ...]
    expected: str
    value: str
    hint: str = ""


def first_problem(error: ValidationError) -> Problem:
    """The first setting that a model refuses."""
    first = error.errors()[0]
    path = tuple(str(part) for part in first["loc"])
    expected, cause = first["msg"].removeprefix("Value error, "), first.get("ctx", {}).get("error")
    if isinstance(cause, SettingError):
        return Problem((*path, *cause.setting.split(".")), expected, cause.found, cause.hint)
    is_of_several = first["type"] == "value_error" and isinstance(first["input"], dict)  # the reason names them
    return Problem(path, expected, "" if is_of_several else repr(first["input"]))


def _in_file(path: Sequence[str]) -> str:
    """A setting as a file has it: `[labels.purchase] after`."""
    *sections, key = path or ("these settings together",)
    return f"[{'.'.join(sections)}] {key}" if sections else key


# -- mapping files ---------------------------------------------------------------------------------------------


def ingest_config(path: str, map: str, *, tables: dict[str, str], columns: dict[str, Any], **more: Any) -> IngestConfig:
    """Ingest's settings for the user's own data: the recipe's defaults, and a mapping file that overrides them.

    A ``path`` that names a file stands for its folder, and the file for the events; without a table of items, the
    items are those that the events name.

    Raises:
        UsageError: the file cannot be read, or holds a value that does not fit.
    """
    values = {"format": "tables", "tables": tables, **more, **(_read_mapping(map) if map else {}), "source": path}
    values["columns"] = {**columns, **values.get("columns", {})}
    folder, slash, file = path.rpartition("/")
    is_file = "." in file and File(file).kind in READERS and not Path(path).expanduser().is_dir()
    if values["format"] == "tables" and is_file:
        values["tables"] = {**(values["tables"] if map else {}), "events": file}
        values |= {"source": folder or slash or ".", "items_from_events": "items" not in values["tables"]}
    try:
        return IngestConfig(**values)
    except ValidationError as error:
        problem = first_problem(error)
        raise UsageError(
            f"the map refuses {_in_file(problem.path)}",
            expected=problem.expected,
            found=problem.value,
            where=map,
            hint=problem.hint or "`rankline recipes show interactions ingest` lists every setting of a source",
        ) from error


def _sections(path: str, values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Section -> its settings in a file of several sections."""
    sections = read_settings(path, section="settings")
    for name, of_section in sections.items():
        if not isinstance(values.get(name), dict) or not isinstance(of_section, dict):
            known = [each for each, value in values.items() if isinstance(value, dict)]
            _refuse(name, known, f"@{path}")
    return sections


def read_settings(path: str, *, section: str) -> dict[str, Any]:
    """The settings of a section in a TOML or JSON file.

    Raises:
        UsageError: it cannot be read, or holds no settings.
    """
    try:
        mapping = _parse_file(Path(path).expanduser())
        if not isinstance(mapping, dict):
            raise ValueError(f"a {type(mapping).__name__}")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the file of {section} cannot be read",
            expected=f"a TOML or JSON file with settings of {section}",
            found=" ".join(str(error).split()),
            where=path,
            hint="docs/gates.md has an example of a policy file",
        ) from error
    return mapping


def _parse_file(file: Path) -> Any:
    text = file.read_text(encoding="utf-8")
    return json.loads(text) if file.suffix == ".json" else tomllib.loads(text)


def _read_mapping(path: str) -> dict[str, Any]:
    """The settings of ingest (tables, columns, files…) in a TOML or JSON file."""
    file = Path(path).expanduser()
    try:
        mapping = _parse_file(file)
    except (OSError, ValueError) as error:
        raise UsageError(
            "the map of the source cannot be read",
            expected="a TOML or JSON file with sections such as [tables] and [columns]",
            found=" ".join(str(error).split()),
            where=str(file),
            hint="`rankline init` writes one",
        ) from error
    return dict(mapping)

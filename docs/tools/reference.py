"""Generate docs/reference.md from the code: ``make reference`` writes it, ``--check`` compares.

The page has the help of every command, every setting of a recipe, the artifacts of the steps, the server's routes, exit
codes, errors and environment variables.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import json
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docs" / "reference.md"
HELP_WIDTH = 88

EXIT_CODES = {
    0: "success: promoted, already serving, or waiting for review",
    1: "a step or a command failed; the next run continues from there",
    2: "wrong usage: a misspelt command, recipe or setting",
    3: "a gate refused the model; the run itself succeeded and says which gate",
    4: "stale: another model came to serve while this one was compared; run it again",
    130: "interrupted",
}

# every variable that the code reads; the page is not written if one is missing here
ENVIRONMENT = {
    "RANKLINE_BASE": "Base image of `rankline build`, instead of `--base`.",
    "RANKLINE_FEATURES": "For Feast's own command line in `feature_repo/`: the folder of the feature sources.",
    "RANKLINE_ID_KEY": (
        "The key that hashes the ids of users, where `ingest.hash_users` names this variable. `openssl rand -hex 32` "
        "makes one."
    ),
    "RANKLINE_IMAGE_DATA": "Image of the steps without torch, when a pipeline is compiled or run.",
    "RANKLINE_IMAGE_EVALUATE": "Image of evaluate, which starts the server, when a pipeline is compiled or run.",
    "RANKLINE_IMAGE_SERVE": "Image of the server.",
    "RANKLINE_IMAGE_TRAIN": "Image of the steps that train, when a pipeline is compiled or run.",
    "RANKLINE_KFP_AUTH": "How to sign in to a Kubeflow cluster, instead of `--auth`.",
    "RANKLINE_KFP_ZONE": "Time zone in which the cluster's controller fires schedules, instead of `--cluster-zone`.",
    "RANKLINE_KFP_CA": "File with the certificate authority of the cluster, instead of `--ca`.",
    "RANKLINE_KFP_COOKIE": "The session cookie for `--auth cookie`, as NAME=VALUE.",
    "RANKLINE_KFP_HOST": "URL of Kubeflow Pipelines, instead of `--host`.",
    "RANKLINE_KFP_NAMESPACE": "Namespace of your profile on the cluster, instead of `--namespace`.",
    "RANKLINE_KFP_PASSWORD": "The password for `--auth dex`.",
    "RANKLINE_KFP_TOKEN": "The service account token for `--auth token`.",
    "RANKLINE_KFP_TOKEN_FILE": "File that holds the token, read again for each request.",
    "RANKLINE_KFP_USER": "The user for `--auth dex`.",
    "RANKLINE_OIDC_SECRET": "The console's client secret at the OpenID Connect issuer, for `review serve --auth oidc`.",
    "RANKLINE_REPOSITORY": "Model registry, instead of `--repository`.",
    "RANKLINE_REVIEW_KEY": (
        "The key that signs the console's sessions; by default a new one at each start. At least 32 "
        "bytes: `openssl rand -hex 32` makes one."
    ),
    "RANKLINE_RUN_DIR": "Folder of the run's ledger; the runner sets it for its steps.",
    "RANKLINE_SHARED": "Folder with data sets of your own, from which the recipe `retail` reads `data/online-retail`.",
    "RANKLINE_THREADS": "Threads that a step has chosen for itself and its child processes; set by the step.",
    "RANKLINE_URL": "URL of the server, instead of `--url`.",
    "RANKLINE_WORKSPACE": "Workspace, instead of `--workspace`.",
}
_VARIABLE = re.compile(r"RANKLINE_[A-Z0-9_]*[A-Z0-9]")
_CODE_FOLDERS = ("rankline", "components", "pipelines", "feature_repo", "serving", "onboarding", "review", "cli")


def document() -> str:
    """The page as the code is now."""
    parts = (
        ["# Reference", "", "Generated from the code by `make reference`; a test compares it with the code."],
        commands(),
        settings_section(),
        artifacts(),
        routes(),
        exit_codes(),
        errors(),
        environment(),
    )
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def commands() -> list[str]:
    """The help of every command, under the titles that `rankline --help` has."""
    import typer

    from cli.main import app, commands_by_title

    group: Any = typer.main.get_command(app)
    context = _context(group, "rankline", None)
    lines = ["## Commands", *_help_section(group, context)]
    for title, titled in commands_by_title(group).items():
        lines += ["", f"## Commands: {title.lower()}"]
        for name, command in titled.items():
            for each, inner in _with_subcommands(command, _context(command, name, context)):
                lines += _help_section(each, inner)
    return lines


def _context(command: Any, name: str, parent: Any) -> Any:
    return command.context_class(
        command, info_name=name, parent=parent, terminal_width=HELP_WIDTH, max_content_width=HELP_WIDTH,
        **command.context_settings,
    )  # fmt: skip


def _help_section(command: Any, context: Any) -> list[str]:
    help_text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    return ["", f"### {context.command_path}", "", "```text", help_text, "```"]


def _with_subcommands(command: Any, context: Any) -> Iterator[tuple[Any, Any]]:
    """(command, context) of a command and of every one below it."""
    yield command, context
    for name, inner in getattr(command, "commands", {}).items():
        if not inner.hidden:
            yield from _with_subcommands(inner, _context(inner, name, context))


def settings_section() -> list[str]:
    """Every setting of every section: type and bounds, default, description."""
    import dataclasses

    from pipelines.recipes import Recipe

    kinds = typing.get_type_hints(Recipe)
    lines = [
        "## Settings",
        "",
        "`--set section.setting=value` changes one; `rankline recipes show NAME` shows the values of a recipe.",
    ]
    plain_fields = [field for field in dataclasses.fields(Recipe) if not hasattr(kinds[field.name], "model_fields")]
    lines += ["", "### recipe", "", "Settings of the recipe itself, without a section.", "", *_SETTINGS_HEAD]
    for each in plain_fields:
        sentence = getattr(each.default, "description", None) or ""
        lines.append(f"| `{each.name}` | `{_type_name(kinds[each.name])}` | | {sentence} |")
    for field in dataclasses.fields(Recipe):
        if field in plain_fields:
            continue
        kind = kinds[field.name]
        sentence = " ".join((kind.__doc__ or "").split())
        lines += ["", f"### {field.name}", "", sentence, "", *_SETTINGS_HEAD]
        for name, info, default in _settings(field.name, kind):
            shown = "(required)" if default is _REQUIRED else f"`{_default_text(default)}`"
            lines.append(f"| `{name}` | {_cell(_type(info))} | {_cell(shown)} | {_cell(info.description or '')} |")
    return lines


_SETTINGS_HEAD = ("| setting | type | default | |", "| --- | --- | --- | --- |")
_REQUIRED = object()


def _settings(prefix: str, kind: Any, given: Any = None) -> Iterator[tuple[str, Any, Any]]:
    """(dotted name, field, default) of each setting; a nested section has the defaults it is used with."""
    for name, info in kind.model_fields.items():
        if given is not None:
            default = getattr(given, name)
        else:
            default = _REQUIRED if info.is_required() else info.get_default(call_default_factory=True)
        if hasattr(info.annotation, "model_fields"):
            yield from _settings(f"{prefix}.{name}", info.annotation, None if default is _REQUIRED else default)
        else:
            yield f"{prefix}.{name}", info, default


def _default_text(value: Any) -> str:
    """A default as `--set` takes it."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, default=str, ensure_ascii=False)


_BOUNDS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}", "min_length": "length ≥ {}", "pattern": "matches {}"}


def _type(info: Any) -> str:
    """The type of a setting with its bounds, such as `int, ≥ 1`."""
    parts = [f"`{_type_name(info.annotation)}`"]
    for bound in info.metadata:
        for name, text in _BOUNDS.items():
            if (limit := getattr(bound, name, None)) is not None:
                parts.append(text.format(f"`{limit}`" if name == "pattern" else limit))
    return ", ".join(parts)


def _type_name(kind: Any) -> str:
    """A type as it is written."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return " or ".join(json.dumps(each) for each in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_type_name, inner))
    if origin is typing.Annotated:
        return _type_name(inner[0])
    if origin is not None:
        return f"{origin.__name__}[{', '.join('…' if each is Ellipsis else _type_name(each) for each in inner)}]"
    return "null" if kind is type(None) else getattr(kind, "__name__", str(kind))


def artifacts() -> list[str]:
    """What the steps exchange: folders, the columns of tables, the fields of a bundle's manifest."""
    from pipelines.steps import STANDALONE_STEPS
    from rankline.contracts import TABLES, Manifest
    from rankline.runtime.steps import component_folder

    lines = ["## Artifacts", "", "Each artifact is a folder with a `files.json` of its digests (path -> sha256).", ""]
    lines += ["| step | reads | writes |", "| --- | --- | --- |"]
    for step, spec in STANDALONE_STEPS.items():
        lines.append(
            f"| {step} | {_code_list(spec.inputs) or 'the source'} "
            f"| {_code_list(spec.outputs) or 'the model registry'} |"
        )
    for component in dict.fromkeys(map(component_folder, STANDALONE_STEPS)):
        text = ast.get_docstring(ast.parse((ROOT / "components" / component / "step.py").read_text())) or ""
        lines += ["", f"### Files of {component}", "", "```text", text, "```"]
    lines += ["", "### Tables of `raw` and `clean`", "", "| table | column | type | |", "| --- | --- | --- | --- |"]
    for table, schema in TABLES.items():
        lines += [
            f"| {table} | `{column.name}` | {column.type} | {'' if column.nullable else 'required'} |"
            for column in schema
        ]
    lines += ["", "### manifest.json of a bundle", "", "| field | type | |", "| --- | --- | --- |"]
    for name, info in Manifest.model_fields.items():
        lines.append(f"| `{name}` | {_cell(f'`{_type_name(info.annotation)}`')} | {_cell(info.description or '')} |")
    return lines


def routes() -> list[str]:
    """The server's routes, from its OpenAPI file."""
    openapi = json.loads((ROOT / "serving" / "openapi.json").read_text())
    schemas = openapi["components"]["schemas"]
    lines = ["## HTTP routes", "", "`serving/openapi.json` describes the whole interface."]
    for path, methods in openapi["paths"].items():
        for method, route in methods.items():
            codes = ", ".join(route["responses"])
            lines += ["", f"### {method.upper()} {path}", "", f"{route.get('description', '')} Answers {codes}."]
            body = route.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            if "$ref" in body:
                lines += ["", *_fields(schemas[_last_part(body["$ref"])])]
    for name, schema in schemas.items():
        if name in ("FrozenState", "History") and "properties" in schema:
            lines += ["", f"### {name}", "", schema.get("description", ""), "", *_fields(schema)]
    return lines


def _fields(schema: dict[str, Any]) -> list[str]:
    lines = ["| field | type | default | |", "| --- | --- | --- | --- |"]
    for name, field in schema["properties"].items():
        default = "(required)" if name in schema.get("required", ()) else f"`{_default_text(field.get('default'))}`"
        lines.append(f"| `{name}` | {_cell(_json_type(field))} | {_cell(default)} | {field.get('description', '')} |")
    return lines


def _json_type(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(map(_json_type, field["anyOf"]))
    if "$ref" in field:
        return _last_part(field["$ref"])
    kind = str(field.get("type", "any"))
    kind = f"{kind} of {_json_type(field['items'])}" if kind == "array" and field.get("items") else kind
    low, high = field.get("minimum"), field.get("maximum")
    return f"{kind}, {low if low is not None else '…':g} to {high:g}" if high is not None else kind


def _last_part(reference: str) -> str:
    return reference.rsplit("/", 1)[-1]


def exit_codes() -> list[str]:
    """The exit codes of commands."""
    from rankline.runtime.outcomes import EXIT_INTERRUPTED

    known = {value for name, value in vars(importlib.import_module("rankline.errors")).items() if name[:5] == "EXIT_"}
    codes = {str(code) for code in known | {EXIT_INTERRUPTED}}
    _require_complete("exit code", codes, {str(code) for code in EXIT_CODES})
    lines = ["## Exit codes", "", "| code | |", "| --- | --- |"]
    return lines + [f"| {code} | {sentence} |" for code, sentence in EXIT_CODES.items()]


def errors() -> list[str]:
    """Every error of the tree in rankline/errors.py."""
    from rankline.errors import RanklineError

    def below(kind: type[RanklineError]) -> Iterator[type[RanklineError]]:
        yield kind
        for each in kind.__subclasses__():
            if each.__module__ == "rankline.errors":
                yield from below(each)

    lines = [
        "## Errors",
        "",
        "Each message says what was expected, what was found, where, and what to try.",
        "",
        "| error | is a | exit code | |",
        "| --- | --- | --- | --- |",
    ]
    for kind in below(RanklineError):
        base = kind.__bases__[0].__name__
        lines.append(
            f"| `{kind.__name__}` | {'' if base == 'Exception' else f'`{base}`'} | {kind.exit_code} "
            f"| {_cell((kind.__doc__ or '').splitlines()[0])} |"
        )
    return lines


def environment() -> list[str]:
    """Every environment variable that the code reads."""
    names = {
        name
        for folder in _CODE_FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        if path != Path(__file__).resolve()
        for name in _VARIABLE.findall(path.read_text())
    }
    _require_complete("environment variable", names, set(ENVIRONMENT))
    lines = ["## Environment variables", "", "| variable | |", "| --- | --- |"]
    return lines + [f"| `{name}` | {ENVIRONMENT[name]} |" for name in sorted(names)]


def _require_complete(what: str, in_code: set[str], documented: set[str]) -> None:
    """Check that the page documents exactly what there is."""
    from rankline.errors import IntegrityError

    if in_code != documented:
        raise IntegrityError(
            f"the reference does not document each {what}",
            expected=", ".join(sorted(in_code)),
            found=f"missing: {', '.join(sorted(in_code - documented)) or 'none'}; "
            f"gone: {', '.join(sorted(documented - in_code)) or 'none'}",
            where="docs/tools/reference.py",
            hint="describe it there, then run `make reference`",
        )


def _code_list(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _cell(text: str) -> str:
    """A text that stays within its table cell."""
    return " ".join(text.split()).replace("|", "\\|")


def page_diff(page: str) -> str:
    """A short diff of a page against the code; empty if there is no difference."""
    changed = difflib.unified_diff(page.splitlines(), document().splitlines(), "docs/reference.md", "the code", n=0)
    return "\n".join(list(changed)[:40])


def main() -> int:
    """Write the page, or, with `--check`, print how it differs and return 1."""
    if sys.argv[1:] == ["--check"]:
        diff = page_diff(FILE.read_text() if FILE.is_file() else "")
        if diff:
            print(f"{diff}\ndocs/reference.md does not match the code; run: make reference", file=sys.stderr)
        return 1 if diff else 0
    FILE.write_text(document())
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Python and the libraries: what this version of Rankline asks for against what is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from cli.project.checks import Check, CheckContext, Finding

LOCK = Path(__file__).resolve().parents[3] / "constraints.lock"
EXTRAS = ("data", "train", "serve", "evaluate", "flow")  # what the steps need, as far as this version has it


def python(context: CheckContext) -> Iterator[Finding]:
    """The interpreter against what the package asks for."""
    import platform

    from packaging.specifiers import SpecifierSet

    required, version = metadata.metadata("rankline")["Requires-Python"] or "", platform.python_version()
    if SpecifierSet(required).contains(version):
        yield Finding("python", "ok", f"{version} (asked for: {required})")
    else:
        yield Finding("python", "fail", f"{version}, and {required} is asked for", "make setup PYTHON=python3.11")


def requirements(context: CheckContext) -> Iterator[Finding]:
    """Every library of the package and of the extras that are installed, within the range it is asked for in."""
    from packaging.requirements import Requirement

    declared = [Requirement(line) for line in metadata.requires("rankline") or ()]
    for extra in ("", *extras()):
        in_extra = [each for each in declared if _is_in_extra(each, extra)]
        versions = {each.name: installed(each.name) for each in in_extra}
        missing = [name for name, version in versions.items() if version is None]
        out_of_range = [
            f"{each.name} {versions[each.name]} (asked for: {each.specifier})"
            for each in in_extra
            if (version := versions[each.name]) and not each.specifier.contains(version, prereleases=True)
        ]
        name = f"rankline[{extra}]" if extra else "rankline"
        hint = f"pip install -c constraints.lock '{name}'"
        if out_of_range:
            yield Finding(name, "fail", "; ".join(out_of_range), hint)
        if missing and (not extra or len(missing) < len(in_extra)):
            yield Finding(name, "fail" if not extra else "warn", f"not installed: {', '.join(missing)}", hint)
        elif missing:
            yield Finding(name, "warn", "not installed: its steps cannot run here", hint)
        elif not out_of_range:
            yield Finding(name, "ok", f"{len(in_extra)} libraries, each within its range")


def extras() -> list[str]:
    """The extras of this version that the steps of a run need together."""
    provided = metadata.metadata("rankline").get_all("Provides-Extra") or []
    return [extra for extra in EXTRAS if extra in provided]


def _is_in_extra(requirement: object, extra: str) -> bool:
    """Whether a requirement is one of this extra (of no extra: empty)."""
    marker = getattr(requirement, "marker", None)
    match = re.search(r"extra == ['\"]([\w-]+)['\"]", str(marker)) if marker else None
    return (match[1] if match else "") == extra


def installed(name: str) -> str | None:
    """The version of a library that would be imported; none where there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def lock(context: CheckContext) -> Iterator[Finding]:
    """Libraries that are not of the locked version: they may work, and nobody has tried."""
    if not LOCK.is_file():
        return
    locked = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)$", LOCK.read_text(), re.MULTILINE))
    versions = {name: version for name in locked if (version := installed(name))}
    # a build of one version for one device (+cpu, +cu128) is that version
    mismatched = [
        f"{name} {versions[name]} (locked: {locked[name]})"
        for name in versions
        if versions[name].split("+")[0] != locked[name]
    ]
    if mismatched:
        summary = "; ".join(mismatched[:5]) + (f" and {len(mismatched) - 5} more" if len(mismatched) > 5 else "")
        yield Finding("lock", "warn", summary, "make setup, or pip install -c constraints.lock '.[dev]'")
    else:
        yield Finding("lock", "ok", f"{len(versions)} libraries of constraints.lock, each in its version")


def onnxruntime(context: CheckContext) -> Iterator[Finding]:
    """Exactly one build of ONNX Runtime: two own one folder, and either may overwrite the other's half."""
    builds = {name: version for name in ("onnxruntime", "onnxruntime-gpu") if (version := installed(name))}
    summary = " and ".join(f"{name} {version}" for name, version in builds.items())
    if len(builds) > 1:
        hint = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install -c constraints.lock onnxruntime-gpu"
        yield Finding("onnxruntime", "fail", f"{summary} own one folder", hint)
    elif builds:
        import onnxruntime as ort

        imported_version = getattr(ort, "__version__", "nothing")
        if imported_version in builds.values():
            yield Finding("onnxruntime", "ok", summary)
        else:
            hint = "pip install --force-reinstall --no-deps -c constraints.lock onnxruntime-gpu"
            yield Finding("onnxruntime", "fail", f"{summary} is written down, {imported_version} is what imports", hint)


CHECKS: tuple[Check, ...] = (python, requirements, lock, onnxruntime)

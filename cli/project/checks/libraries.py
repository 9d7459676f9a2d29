"""Python and the libraries: what this version of Rankline requires against what is installed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from cli.project.checks.model import Check, CheckContext, Finding

if TYPE_CHECKING:
    from packaging.requirements import Requirement

LOCK = Path(__file__).resolve().parents[3] / "constraints.lock"
EXTRAS = ("data", "train", "serve", "evaluate", "flow")  # what the steps of a run need together


def python(context: CheckContext) -> Iterator[Finding]:
    """The interpreter has a version that the package supports."""
    import platform

    from packaging.specifiers import SpecifierSet

    required, version = metadata.metadata("rankline")["Requires-Python"] or "", platform.python_version()
    if SpecifierSet(required).contains(version):
        yield Finding("python", "ok", f"{version} (required: {required})")
    else:
        yield Finding("python", "fail", f"{version}, but {required} is required", "make setup PYTHON=python3.11")


def requirements(context: CheckContext) -> Iterator[Finding]:
    """Every library of the package and of its installed extras is in the required range."""
    from packaging.requirements import Requirement

    declared = [Requirement(line) for line in metadata.requires("rankline") or ()]
    for extra in ("", *extras()):
        yield from _extra_findings(extra, [each for each in declared if _is_in_extra(each, extra)])


def _extra_findings(extra: str, declared: list[Requirement]) -> Iterator[Finding]:
    versions = {each.name: installed(each.name) for each in declared}
    missing = [name for name, version in versions.items() if version is None]
    out_of_range = [
        f"{each.name} {version} (required: {each.specifier})"
        for each in declared
        if (version := versions[each.name]) and not each.specifier.contains(version, prereleases=True)
    ]
    name = f"rankline[{extra}]" if extra else "rankline"
    hint = f"pip install -c constraints.lock '{name}'"
    if out_of_range:
        yield Finding(name, "fail", "; ".join(out_of_range), hint)
    if missing and (not extra or len(missing) < len(declared)):
        yield Finding(name, "warn" if extra else "fail", f"not installed: {', '.join(missing)}", hint)
    elif missing:
        yield Finding(name, "warn", "not installed: its steps cannot run here", hint)
    elif not out_of_range:
        yield Finding(name, "ok", f"{len(declared)} libraries, each in its required range")


def extras() -> list[str]:
    """The extras that the steps of a run need together, as far as this version has them."""
    provided = metadata.metadata("rankline").get_all("Provides-Extra") or []
    return [extra for extra in EXTRAS if extra in provided]


def _is_in_extra(requirement: Requirement, extra: str) -> bool:
    """Whether a requirement belongs to this extra; with an empty one, whether it belongs to none."""
    if requirement.marker is None:
        return extra == ""
    without_extra = requirement.marker.evaluate({"extra": ""})
    return without_extra if extra == "" else not without_extra and requirement.marker.evaluate({"extra": extra})


def installed(name: str) -> str | None:
    """The installed version of a library; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def lock(context: CheckContext) -> Iterator[Finding]:
    """Every installed library has the locked version; others may work, but are not tested."""
    if not LOCK.is_file():
        return
    locked = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)$", LOCK.read_text(), re.MULTILINE))
    versions = {name: version for name in locked if (version := installed(name))}
    # a build for one device (+cpu, +cu128) counts as that version
    mismatched = [
        f"{name} {version} (locked: {locked[name]})"
        for name, version in versions.items()
        if version.split("+")[0] != locked[name]
    ]
    if mismatched:
        summary = "; ".join(mismatched[:5]) + (f" and {len(mismatched) - 5} more" if len(mismatched) > 5 else "")
        yield Finding("lock", "warn", summary, "make setup, or pip install -c constraints.lock '.[dev]'")
    else:
        yield Finding("lock", "ok", f"{len(versions)} libraries have the version of constraints.lock")


def onnxruntime(context: CheckContext) -> Iterator[Finding]:
    """Exactly one build of ONNX Runtime is installed, since two overwrite each other's files."""
    builds = {name: version for name in ("onnxruntime", "onnxruntime-gpu") if (version := installed(name))}
    summary = " and ".join(f"{name} {version}" for name, version in builds.items())
    if len(builds) > 1:
        hint = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install -c constraints.lock onnxruntime-gpu"
        yield Finding("onnxruntime", "fail", f"{summary} share one folder", hint)
    elif builds:
        from rankline.runtime.lazy_imports import import_onnxruntime

        imported_version = getattr(import_onnxruntime(), "__version__", "nothing")
        if imported_version in builds.values():
            yield Finding("onnxruntime", "ok", summary)
        else:
            hint = "pip install --force-reinstall --no-deps -c constraints.lock onnxruntime-gpu"
            yield Finding("onnxruntime", "fail", f"{summary} is recorded, but {imported_version} is imported", hint)


CHECKS: tuple[Check, ...] = (python, requirements, lock, onnxruntime)

"""Python and the libraries: what this version of Rankline asks for against what is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from cli.project.checks import Check, Finding, Patient

LOCK = Path(__file__).resolve().parents[3] / "constraints.lock"
EXTRAS = ("data", "train", "serve", "evaluate", "flow")  # what the steps need, as far as this version has it


def python(patient: Patient) -> Iterator[Finding]:
    """The interpreter against what the package asks for."""
    import platform

    from packaging.specifiers import SpecifierSet

    asked, here = metadata.metadata("rankline")["Requires-Python"] or "", platform.python_version()
    if SpecifierSet(asked).contains(here):
        yield Finding("python", "ok", f"{here} (asked for: {asked})")
    else:
        yield Finding("python", "fail", f"{here}, and {asked} is asked for", "make setup PYTHON=python3.11")


def requirements(patient: Patient) -> Iterator[Finding]:
    """Every library of the package and of the extras that are installed, within the range it is asked for in."""
    from packaging.requirements import Requirement

    asked = [Requirement(line) for line in metadata.requires("rankline") or ()]
    for extra in ("", *extras()):
        mine = [each for each in asked if _belongs(each, extra)]
        versions = {each.name: installed(each.name) for each in mine}
        missing = [name for name, version in versions.items() if version is None]
        wrong = [
            f"{each.name} {versions[each.name]} (asked for: {each.specifier})"
            for each in mine
            if (version := versions[each.name]) and not each.specifier.contains(version, prereleases=True)
        ]
        name = f"rankline[{extra}]" if extra else "rankline"
        hint = f"pip install -c constraints.lock '{name}'"
        if wrong:
            yield Finding(name, "fail", "; ".join(wrong), hint)
        if missing and (not extra or len(missing) < len(mine)):
            yield Finding(name, "fail" if not extra else "warn", f"not installed: {', '.join(missing)}", hint)
        elif missing:
            yield Finding(name, "warn", "not installed: its steps cannot run here", hint)
        elif not wrong:
            yield Finding(name, "ok", f"{len(mine)} libraries, each within its range")


def extras() -> list[str]:
    """The extras of this version that the steps of a run need together."""
    provided = metadata.metadata("rankline").get_all("Provides-Extra") or []
    return [extra for extra in EXTRAS if extra in provided]


def _belongs(requirement: object, extra: str) -> bool:
    """Whether a requirement is one of this extra (of no extra: empty)."""
    marker = getattr(requirement, "marker", None)
    named = re.search(r"extra == ['\"]([\w-]+)['\"]", str(marker)) if marker else None
    return (named[1] if named else "") == extra


def installed(name: str) -> str | None:
    """The version of a library that would be imported; none where there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def lock(patient: Patient) -> Iterator[Finding]:
    """Libraries that are not of the locked version: they may work, and nobody has tried."""
    if not LOCK.is_file():
        return
    locked = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)$", LOCK.read_text(), re.MULTILINE))
    here = {name: version for name in locked if (version := installed(name))}
    # a build of one version for one device (+cpu, +cu128) is that version
    other = [
        f"{name} {here[name]} (locked: {locked[name]})" for name in here if here[name].split("+")[0] != locked[name]
    ]
    if other:
        told = "; ".join(other[:5]) + (f" and {len(other) - 5} more" if len(other) > 5 else "")
        yield Finding("lock", "warn", told, "make setup, or pip install -c constraints.lock '.[dev]'")
    else:
        yield Finding("lock", "ok", f"{len(here)} libraries of constraints.lock, each in its version")


def onnxruntime(patient: Patient) -> Iterator[Finding]:
    """Exactly one build of ONNX Runtime: two own one folder, and either may overwrite the other's half."""
    builds = {name: version for name in ("onnxruntime", "onnxruntime-gpu") if (version := installed(name))}
    told = " and ".join(f"{name} {version}" for name, version in builds.items())
    if len(builds) > 1:
        hint = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install -c constraints.lock onnxruntime-gpu"
        yield Finding("onnxruntime", "fail", f"{told} own one folder", hint)
    elif builds:
        import onnxruntime as ort

        said = getattr(ort, "__version__", "nothing")
        if said in builds.values():
            yield Finding("onnxruntime", "ok", told)
        else:
            hint = "pip install --force-reinstall --no-deps -c constraints.lock onnxruntime-gpu"
            yield Finding("onnxruntime", "fail", f"{told} is written down, {said} is what imports", hint)


CHECKS: tuple[Check, ...] = (python, requirements, lock, onnxruntime)

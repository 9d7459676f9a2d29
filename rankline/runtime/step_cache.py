"""Whether work has been done before: its key, where it is kept, whether the copy is whole, and why it is done anew.

The door acts on it (rankline/runtime/run_step.py) and the plan foretells it (pipelines/runs/plan.py). Both ask here, so what is
foretold is what happens.

    <workspace>/cache/<step>/<key>/entry.json   what was kept: its key, result, the digests of its files, its run
    <workspace>/cache/<step>/<key>/<output>/…   the files
    <workspace>/cache/<step>/latest.json        which entry was kept last: what a changed step is compared with
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rankline.contracts import replace_in_strings
from rankline.errors import IntegrityError
from rankline.io import digest
from rankline.runtime import code_digest, ledger
from rankline.runtime.steps import component_folder

# work done with other versions of these is done again
LIBRARIES = (
    "PyStemmer", "bm25s", "duckdb", "faiss-cpu", "feast", "great-expectations", "numpy", "onnx", "onnxruntime-gpu",
    "onnxscript", "pandas", "peft", "pyarrow", "regex", "scipy", "tokenizers", "torch", "transformers",
)  # fmt: skip
DIGESTS_FILE = "files.json"  # in every artifact folder: relative path -> sha256 of its other files
ALWAYS_RUNS = "it always runs"
NEVER_RAN = "it has not run in this workspace before"
WINDOW_SETTINGS = ("window_start", "window_end")  # the settings that say which part of the data a run is about
_STALE_PARTIAL_S = 86_400


class _Unknown:
    """Stands in a key for what is not known before the run."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Any = _Unknown()


def cache_key(
    step: str,
    config: BaseModel,
    workspace: Path,
    *,
    inputs: Mapping[str, Any],
    lineage: Mapping[str, Any],
    code: tuple[str, ...] = (),
    libraries: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """All that decides what a step makes; two works of one key are one work.

    ``inputs`` are the digests of what it reads, ``code`` modules of ours it uses beside its own step's, ``lineage``
    whatever else counts, ``libraries`` the versions it works with where these are not this process's own.
    """
    return {
        "config": _portable_settings(config, workspace),
        "code": code_digest.of_code(f"components.{component_folder(step)}.step", *code),
        "inputs": dict(inputs),
        "lineage": dict(lineage),
        "libraries": dict(library_versions() if libraries is None else libraries),
    }


def _portable_settings(config: BaseModel, workspace: Path) -> dict[str, Any]:
    """A step's settings wherever the workspace lies: one that was moved keeps what it holds."""
    settings: dict[str, Any] = replace_in_strings(config.model_dump(mode="json"), str(workspace), "{workspace}")
    return settings


@functools.cache
def library_versions() -> Mapping[str, str]:
    """The versions of the libraries that shape artifacts; an image need not hold all of them."""
    installed = {}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed


def matches(actual: Any, expected: Any) -> bool:
    """Whether ``found`` is ``wanted`` as far as that is known."""
    if expected is UNKNOWN:
        return True
    if isinstance(expected, Mapping):
        return (
            isinstance(actual, Mapping)
            and actual.keys() == expected.keys()
            and all(matches(actual[name], value) for name, value in expected.items())
        )
    return bool(actual == expected)


# -- artifacts -------------------------------------------------------------------------------------------------


def write_digests(path: Path) -> None:
    """Write down what an artifact's files are."""
    if path.is_dir():
        ledger.write_json(path / DIGESTS_FILE, digest.file_digests(path))


def declared_digest(path: Path) -> str:
    """The digest an artifact claims for itself."""
    digests_file = path / DIGESTS_FILE if path.is_dir() else None
    return (
        digest.json_digest(json.loads(digests_file.read_text()))
        if digests_file and digests_file.is_file()
        else digest.tree_digest(path)
    )


def link_or_copy(source: Path, target: Path) -> None:
    """An artifact under a second name: the same files, or copies where the file system knows no such thing."""
    if source.is_file():
        _link_file(source, target)
        return
    target.mkdir(parents=True, exist_ok=True)
    for path in source.rglob("*"):
        if path.is_file():
            _link_file(path, target / path.relative_to(source))


def _link_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


# -- kept work -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CacheEntry:
    """Finished work of a step, as it is kept."""

    folder: Path
    key: dict[str, Any]
    result: dict[str, Any]
    files: dict[str, dict[str, str]]  # output -> relative path -> sha256
    run: str  # the run that did it

    @property
    def why(self) -> str:
        """Why it is taken."""
        return f"unchanged since run {self.run}"

    def declared_digest(self, output: str) -> str:
        """The digest that this output will claim where it is laid (see `promised`), without reading its files."""
        files = self.files[output]
        return digest.json_digest({name: sha256 for name, sha256 in files.items() if name != DIGESTS_FILE})

    def find_damage(self, outputs: Iterable[str]) -> str:
        """What is wrong with the copy, found by reading all of it; empty where nothing is."""
        try:
            for name in outputs:
                source = self.folder / name
                if source.is_file():
                    digest.verify(source.parent, {name: next(iter(self.files[name].values()))}, hint="")
                else:
                    digest.verify(source, self.files[name], hint="")
        except (IntegrityError, OSError, KeyError, StopIteration) as error:
            return f"the kept copy was damaged ({str(error).splitlines()[0]})"
        return ""


def parse_cache_entry(value: Any, folder: Path) -> CacheEntry | None:
    """What an entry.json says, if every word of it is the one that was written."""
    try:
        entry = {name: each for name, each in value.items() if name != "seal"}
        return CacheEntry(folder=folder, **entry) if value["seal"] == _entry_digest(entry) else None
    except (KeyError, TypeError, AttributeError):
        return None


class StepCache:
    """What a workspace keeps of one step's finished work."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def at(self, name: str) -> CacheEntry | None:
        """The entry of this name (the digest of its key), if it is whole."""
        folder = self.folder / name
        try:
            return parse_cache_entry(json.loads((folder / "entry.json").read_text()), folder)
        except (OSError, ValueError):
            return None

    def find(self, key: dict[str, Any], *, ignore_lineage: bool = False) -> CacheEntry | None:
        """The work of this key; with ``any_lineage`` one that was done under another lineage is as good."""
        exact = self.at(digest.json_digest(key))
        if exact is not None or not ignore_lineage:
            return exact
        return next(self.matching({**key, "lineage": UNKNOWN}), None)

    def matching(self, key: dict[str, Any]) -> Iterator[CacheEntry]:
        """Every work whose key is this one as far as it is known, the last one first."""
        for folder in sorted(self.folder.glob("[!.]*/"), key=lambda each: -each.stat().st_mtime):
            entry = self.at(folder.name)
            if entry is not None and matches(entry.key, key):
                yield entry

    def latest(self) -> CacheEntry | None:
        """The work that was kept last."""
        try:
            return self.at(json.loads((self.folder / "latest.json").read_text())["name"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def why(self, key: dict[str, Any]) -> str:
        """What of a key is different from the last time this step ran, as far as it is known."""
        latest = self.latest()
        if latest is None:
            return NEVER_RAN
        return "; ".join(key_changes(latest.key, key)) or "its kept copy is gone"

    def put(self, key: dict[str, Any], outputs: dict[str, Path], result: dict[str, Any], run_id: str) -> None:
        """Keep finished work under its key; the rename makes it visible whole or not at all."""
        name = digest.json_digest(key)
        partial, final = self.folder / f".{name}.{uuid.uuid4().hex}", self.folder / name
        files = {}
        self._remove_stale_partials()
        try:
            for output, path in outputs.items():
                link_or_copy(path, partial / output)
                files[output] = digest.file_digests(path)
            entry = {"key": key, "result": result, "files": files, "run": run_id}
            ledger.write_json(partial / "entry.json", {**entry, "seal": _entry_digest(entry)})
            if self.at(name) is None:
                shutil.rmtree(final, ignore_errors=True)
            with contextlib.suppress(OSError):  # another run has just kept the same work
                os.replace(partial, final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        ledger.write_json(self.folder / "latest.json", {"name": name})

    def _remove_stale_partials(self) -> None:
        """Remove what runs that were killed more than a day ago left half-kept."""
        for partial in self.folder.glob(".*.*"):
            with contextlib.suppress(OSError):
                if time.time() - partial.stat().st_mtime > _STALE_PARTIAL_S:
                    shutil.rmtree(partial, ignore_errors=True)


def _entry_digest(entry: dict[str, Any]) -> str:
    """The digest of an entry as it is read back from its file."""
    return digest.json_digest(json.loads(json.dumps(entry, default=str)))


def _setting_changes(name: str, before: Any, after: Any) -> list[str]:
    """Each setting under a name that is another one, by its whole name, and its two values."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        both = ((key, before.get(key), after.get(key)) for key in {**before, **after})
        return [
            change
            for key, old, new in both
            if not matches(old, new)
            for change in _setting_changes(f"{name}.{key}", old, new)
        ]
    old, new = ("''" if value == "" else value for value in (before, after))
    return [f"{name}: {old} -> {new}"]


def key_changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is different between two keys, in words; what is not known yet is passed over."""

    def changed_names(part: str) -> list[str]:
        old, new = before.get(part, {}), now[part]
        return [name for name in {**old, **new} if not matches(old.get(name), new.get(name))]

    def setting_changes(name: str) -> list[str]:
        return _setting_changes(name, before["config"].get(name), now["config"].get(name))

    settings = changed_names("config")
    window = [change for name in WINDOW_SETTINGS if name in settings for change in setting_changes(name)]
    reasons = [f"new data window ({', '.join(window)})"] if window else []
    reasons += [change for name in settings if name not in WINDOW_SETTINGS for change in setting_changes(name)]
    reasons += [f"its input {name} changed" for name in changed_names("inputs")]
    reasons += [f"{name} changed" for part in ("lineage", "libraries") for name in changed_names(part)]
    if before["code"] != now["code"]:
        reasons.append("code changed")
    return reasons

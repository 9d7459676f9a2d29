"""The workspace's cache of finished steps: cache keys, entries, and why a key has no entry.

run_step uses it to reuse results, and `rankline run --plan` to predict that (pipelines/runs/plan.py).

    <workspace>/cache/<step>/<key>/entry.json   the key, the result, the digests of the files, the run
    <workspace>/cache/<step>/<key>/<output>/…   the files
    <workspace>/cache/<step>/latest.json        the newest entry, which a changed step is compared with
"""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rankline.contracts import replace_in_strings
from rankline.errors import IntegrityError
from rankline.io import digest, files
from rankline.io.artifacts import DIGESTS_FILE, link_or_copy
from rankline.runtime import code_digest
from rankline.runtime.steps import component_folder

# a step runs again when the version of one of these changes
LIBRARIES = (
    "PyStemmer", "bm25s", "duckdb", "faiss-cpu", "feast", "great-expectations", "numpy", "onnx", "onnxruntime-gpu",
    "onnxscript", "pandas", "peft", "pyarrow", "regex", "scipy", "tokenizers", "torch", "transformers",
)  # fmt: skip
ALWAYS_RUNS = "it always runs"
NEVER_RAN = "it has not run in this workspace before"
WINDOW_SETTINGS = ("window_start", "window_end")


class _Unknown:
    """Stands in a key for a part that is not known before the run."""

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
    """Everything that decides the outcome of a step.

    Args:
        inputs: input -> digest of its artifact.
        lineage: what decides the outcome besides settings, inputs, code and libraries: a source's digest, the champion.
        code: modules of Rankline that the step uses besides its own.
        libraries: library -> version where the step runs; by default those of this process.
    """
    return {
        "config": _portable_settings(config, workspace),
        "code": code_digest.of_code(f"components.{component_folder(step)}.step", *code),
        "inputs": dict(inputs),
        "lineage": dict(lineage),
        "libraries": dict(library_versions() if libraries is None else libraries),
    }


def _portable_settings(config: BaseModel, workspace: Path) -> dict[str, Any]:
    """A step's settings without the path of the workspace, so that a moved workspace keeps its cache."""
    settings: dict[str, Any] = replace_in_strings(config.model_dump(mode="json"), str(workspace), "{workspace}")
    return settings


@functools.cache
def library_versions() -> Mapping[str, str]:
    """The installed ones of `LIBRARIES`, with their versions."""
    installed = {}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed


def matches(actual: Any, expected: Any) -> bool:
    """Whether ``actual`` equals ``expected``, apart from unknown parts."""
    if expected is UNKNOWN:
        return True
    if isinstance(expected, Mapping):
        return (
            isinstance(actual, Mapping)
            and actual.keys() == expected.keys()
            and all(matches(actual[name], value) for name, value in expected.items())
        )
    return bool(actual == expected)


@dataclass(frozen=True)
class CacheEntry:
    """A finished step in the cache."""

    folder: Path
    key: dict[str, Any]
    result: dict[str, Any]
    files: dict[str, dict[str, str]]  # output -> relative path -> sha256
    run: str  # the run that executed the step

    @property
    def reason(self) -> str:
        """Why the entry is reused."""
        return f"unchanged since run {self.run}"

    def declared_digest(self, output: str) -> str:
        """The digest of an output by its own list of files (see rankline/io/artifacts.py)."""
        return digest.json_digest({name: sha256 for name, sha256 in self.files[output].items() if name != DIGESTS_FILE})

    def find_damage(self, outputs: Iterable[str]) -> str:
        """What is wrong with the files of the entry, by reading all of them; empty if they are whole."""
        try:
            for name in outputs:
                source = self.folder / name
                if source.is_file():
                    digest.verify(source.parent, {name: next(iter(self.files[name].values()))}, hint="")
                else:
                    digest.verify(source, self.files[name], hint="")
        except (IntegrityError, OSError, KeyError, StopIteration) as error:
            return f"the cache entry was damaged ({files.first_line(error)})"
        return ""


def parse_cache_entry(value: Any, folder: Path) -> CacheEntry | None:
    """The entry in a parsed entry.json; None unless it matches its checksum."""
    try:
        entry = {name: each for name, each in value.items() if name != "seal"}
        return CacheEntry(folder=folder, **entry) if value["seal"] == _entry_digest(entry) else None
    except (KeyError, TypeError, AttributeError):
        return None


class StepCache:
    """The cache of one step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, name: str) -> CacheEntry | None:
        """The entry of this name (the digest of its key); None where it is missing or damaged."""
        folder = self.folder / name
        return parse_cache_entry(files.read_json_object(folder / "entry.json"), folder)

    def find(self, key: dict[str, Any], *, ignore_lineage: bool = False) -> CacheEntry | None:
        """The entry of a key; with ``ignore_lineage`` one of any lineage, if there is none of this."""
        exact = self.get(digest.json_digest(key))
        if exact is not None or not ignore_lineage:
            return exact
        return next(self.matching({**key, "lineage": UNKNOWN}), None)

    def matching(self, key: dict[str, Any]) -> Iterator[CacheEntry]:
        """Every entry whose key matches the known parts of this one, newest first."""
        for folder in sorted(self.folder.glob("[!.]*/"), key=lambda each: -each.stat().st_mtime):
            entry = self.get(folder.name)
            if entry is not None and matches(entry.key, key):
                yield entry

    def latest(self) -> CacheEntry | None:
        """The newest entry."""
        name = files.read_json_object(self.folder / "latest.json").get("name")
        return self.get(name) if isinstance(name, str) else None

    def explain_miss(
        self, key: dict[str, Any], *, remote_latest: Callable[[], CacheEntry | None] = lambda: None
    ) -> str:
        """The known differences between a key and the one of the newest entry, here or else in a remote cache."""
        latest = self.latest() or remote_latest()
        if latest is None:
            return NEVER_RAN
        return "; ".join(key_changes(latest.key, key)) or "its cache entry is missing"

    @contextlib.contextmanager
    def adding(
        self, key: dict[str, Any], outputs: Mapping[str, Path], result: dict[str, Any], run_id: str
    ) -> Iterator[CacheEntry]:
        """A finished step, added when the block ends without an error, unless another run has added the same."""
        name = digest.json_digest(key)
        files.remove_stale_partials(self.folder)
        partial = files.partial_path(self.folder / name)
        try:
            for output, path in outputs.items():
                link_or_copy(path, partial / output)
            digests = {output: digest.file_digests(path) for output, path in outputs.items()}
            entry: dict[str, Any] = {"key": key, "result": result, "files": digests, "run": run_id}
            files.write_json(partial / "entry.json", {**entry, "seal": _entry_digest(entry)})
            yield CacheEntry(folder=partial, **entry)
            if self.get(name) is None:
                shutil.rmtree(self.folder / name, ignore_errors=True)
            files.publish_folder(partial, self.folder / name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        files.write_json(self.folder / "latest.json", {"name": name})


def _entry_digest(entry: dict[str, Any]) -> str:
    """The checksum of an entry as it is read back from its file."""
    return digest.json_digest(json.loads(json.dumps(entry, default=str)))


def _setting_changes(name: str, before: Any, after: Any) -> list[str]:
    """Each changed setting under a name: its dotted name, its old and its new value."""
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
    """The differences between two keys, in words; unknown parts are left out."""

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

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

from rankline.contracts import replaced
from rankline.errors import IntegrityError
from rankline.io import digest
from rankline.runtime import code_digest, ledger

# work done with other versions of these is done again
LIBRARIES = (
    "PyStemmer", "bm25s", "duckdb", "faiss-cpu", "feast", "great-expectations", "numpy", "onnx", "onnxruntime-gpu",
    "onnxscript", "pandas", "peft", "pyarrow", "regex", "scipy", "tokenizers", "torch", "transformers",
)  # fmt: skip
SUMS = "files.json"  # in every artifact folder: relative path -> sha256 of its other files
ALWAYS = "it always runs"
NEVER = "it has not run in this workspace before"
WINDOW = ("window_start", "window_end")  # the settings that say which part of the data a run is about
_STALE_PARTIAL_S = 86_400


class _Unknown:
    """Stands in a key for what is not known before the run."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Any = _Unknown()


def key_of(
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
        "config": _told(config, workspace),
        "code": code_digest.of_code(f"components.{room_of(step)}.step", *code),
        "inputs": dict(inputs),
        "lineage": dict(lineage),
        "libraries": dict(versions() if libraries is None else libraries),
    }


def room_of(step: str) -> str:
    """The folder a step lives in: `decide` shares a room with `promote`, `publish` with `catalogue`."""
    return {"decide": "promote", "publish": "catalogue"}.get(step, step)


def _told(config: BaseModel, workspace: Path) -> dict[str, Any]:
    """A step's settings wherever the workspace lies: one that was moved keeps what it holds."""
    told: dict[str, Any] = replaced(config.model_dump(mode="json"), str(workspace), "{workspace}")
    return told


@functools.cache
def versions() -> Mapping[str, str]:
    """The versions of the libraries that shape artifacts; an image need not hold all of them."""
    found = {}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def fits(found: Any, wanted: Any) -> bool:
    """Whether ``found`` is ``wanted`` as far as that is known."""
    if wanted is UNKNOWN:
        return True
    if isinstance(wanted, Mapping):
        return (
            isinstance(found, Mapping)
            and found.keys() == wanted.keys()
            and all(fits(found[name], value) for name, value in wanted.items())
        )
    return bool(found == wanted)


# -- artifacts -------------------------------------------------------------------------------------------------


def seal(path: Path) -> None:
    """Write down what an artifact's files are."""
    if path.is_dir():
        ledger.write_json(path / SUMS, digest.of_files(path))


def promised(path: Path) -> str:
    """The digest an artifact claims for itself."""
    sums = path / SUMS if path.is_dir() else None
    return digest.of_value(json.loads(sums.read_text())) if sums and sums.is_file() else digest.of_tree(path)


def lay(source: Path, target: Path) -> None:
    """An artifact under a second name: the same files, or copies where the file system knows no such thing."""
    if source.is_file():
        _link(source, target)
        return
    target.mkdir(parents=True, exist_ok=True)
    for path in source.rglob("*"):
        if path.is_file():
            _link(path, target / path.relative_to(source))


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


# -- kept work -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
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

    def promises(self, output: str) -> str:
        """The digest that this output will claim where it is laid (see `promised`), without reading its files."""
        files = self.files[output]
        return digest.of_value({name: sha256 for name, sha256 in files.items() if name != SUMS})

    def damage(self, outputs: Iterable[str]) -> str:
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


def kept_of(value: Any, folder: Path) -> Kept | None:
    """What an entry.json says, if every word of it is the one that was written."""
    try:
        entry = {name: each for name, each in value.items() if name != "seal"}
        return Kept(folder=folder, **entry) if value["seal"] == _seal_of(entry) else None
    except (KeyError, TypeError, AttributeError):
        return None


class Store:
    """What a workspace keeps of one step's finished work."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def at(self, name: str) -> Kept | None:
        """The entry of this name (the digest of its key), if it is whole."""
        folder = self.folder / name
        try:
            return kept_of(json.loads((folder / "entry.json").read_text()), folder)
        except (OSError, ValueError):
            return None

    def find(self, key: dict[str, Any], *, any_lineage: bool = False) -> Kept | None:
        """The work of this key; with ``any_lineage`` one that was done under another lineage is as good."""
        exact = self.at(digest.of_value(key))
        if exact is not None or not any_lineage:
            return exact
        return next(self.like({**key, "lineage": UNKNOWN}), None)

    def like(self, key: dict[str, Any]) -> Iterator[Kept]:
        """Every work whose key is this one as far as it is known, the last one first."""
        for folder in sorted(self.folder.glob("[!.]*/"), key=lambda each: -each.stat().st_mtime):
            entry = self.at(folder.name)
            if entry is not None and fits(entry.key, key):
                yield entry

    def latest(self) -> Kept | None:
        """The work that was kept last."""
        try:
            return self.at(json.loads((self.folder / "latest.json").read_text())["name"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def why(self, key: dict[str, Any]) -> str:
        """What of a key is different from the last time this step ran, as far as it is known."""
        latest = self.latest()
        if latest is None:
            return NEVER
        return "; ".join(changes(latest.key, key)) or "its kept copy is gone"

    def keep(self, key: dict[str, Any], outputs: dict[str, Path], result: dict[str, Any], run_id: str) -> None:
        """Keep finished work under its key; the rename makes it visible whole or not at all."""
        name = digest.of_value(key)
        partial, final = self.folder / f".{name}.{uuid.uuid4().hex}", self.folder / name
        files = {}
        self._sweep()
        try:
            for output, path in outputs.items():
                lay(path, partial / output)
                files[output] = digest.of_files(path)
            entry = {"key": key, "result": result, "files": files, "run": run_id}
            ledger.write_json(partial / "entry.json", {**entry, "seal": _seal_of(entry)})
            if self.at(name) is None:
                shutil.rmtree(final, ignore_errors=True)
            with contextlib.suppress(OSError):  # another run has just kept the same work
                os.replace(partial, final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        ledger.write_json(self.folder / "latest.json", {"name": name})

    def _sweep(self) -> None:
        """Remove what runs that were killed more than a day ago left half-kept."""
        for partial in self.folder.glob(".*.*"):
            with contextlib.suppress(OSError):
                if time.time() - partial.stat().st_mtime > _STALE_PARTIAL_S:
                    shutil.rmtree(partial, ignore_errors=True)


def _seal_of(entry: dict[str, Any]) -> str:
    """The digest of an entry as it is read back from its file."""
    return digest.of_value(json.loads(json.dumps(entry, default=str)))


def _turned(name: str, then: Any, here: Any) -> list[str]:
    """Each setting under a name that is another one, by its whole name, and its two values."""
    if isinstance(then, Mapping) and isinstance(here, Mapping):
        both = ((key, then.get(key), here.get(key)) for key in {**then, **here})
        return [told for key, old, new in both if not fits(old, new) for told in _turned(f"{name}.{key}", old, new)]
    old, new = ("''" if value == "" else value for value in (then, here))
    return [f"{name}: {old} -> {new}"]


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is different between two keys, in words; what is not known yet is passed over."""

    def differing(part: str) -> list[str]:
        then, here = before.get(part, {}), now[part]
        return [name for name in {**then, **here} if not fits(then.get(name), here.get(name))]

    def turned(name: str) -> list[str]:
        return _turned(name, before["config"].get(name), now["config"].get(name))

    knobs = differing("config")
    window = [told for name in WINDOW if name in knobs for told in turned(name)]
    found = [f"new data window ({', '.join(window)})"] if window else []
    found += [told for name in knobs if name not in WINDOW for told in turned(name)]
    found += [f"its input {name} changed" for name in differing("inputs")]
    found += [f"{name} changed" for part in ("lineage", "libraries") for name in differing(part)]
    if before["code"] != now["code"]:
        found.append("code changed")
    return found

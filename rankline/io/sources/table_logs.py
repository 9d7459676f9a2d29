"""Folders of Delta, Iceberg and Hudi, whose log says which of their files are the table.

Deleted rows stay in files that the log has removed, so these folders are never read by listing their files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from rankline.errors import SourceError

Partitions = Mapping[str, str | None]
_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint(?:\.(\d{10})\.(\d{10}))?\.parquet")
READABLE_FEATURES = {
    "appendOnly", "invariants", "checkConstraints", "generatedColumns", "changeDataFeed", "identityColumns",
    "timestampNtz", "domainMetadata", "rowTracking", "clustering", "vacuumProtocolCheck", "inCommitTimestamp",
    "columnMapping", "deletionVectors", "typeWidening", "typeWidening-preview", "v2Checkpoint",
}  # fmt: skip


def table_roots(paths: Iterable[str]) -> dict[str, str]:
    """Folder -> its table format, of all folders that the paths of their logs lie in."""
    roots: dict[str, str] = {}
    for path in paths:
        for pattern, kind in (
            (r"(.*?)/?_delta_log/[^/]+", "Delta"),
            (r"(.*?)/?metadata/[^/]+\.metadata\.json", "Iceberg"),
            (r"(.*?)/?\.hoodie/.+", "Hudi"),
        ):
            if match := re.fullmatch(pattern, path):
                roots.setdefault(match[1], kind)
    return roots


def live_files(fs: Any, root: str, paths: list[str], *, is_folder: bool, where: str) -> dict[str, Partitions]:
    """Those of some files that belong to tables, with the columns that a log gives them.

    ``root`` is above all of them; if it ``is_folder``, they are all the files below it.

    Raises:
        SourceError: a log cannot be read, or is of a format that is not supported.
    """
    folders = {path.rpartition("/")[0] for path in paths}
    folders |= {parent for folder in list(folders) for parent in _parents(folder, root)}
    live: dict[str, Partitions] = {path: {} for path in paths}
    for folder in sorted(folders, key=len):
        kind = _table_format(fs, folder)
        if kind and kind != "Delta":
            raise _unsupported(kind, where or folder)
        if kind:
            files = _delta_files(fs, folder)
            below = f"{folder}/"
            if is_folder and folder == root.rstrip("/") and (gone := sorted(set(files) - set(paths))):
                raise _damaged(folder, f"no file {gone[0].removeprefix(below)}, which the log names")
            live = {
                path: files.get(path, each)
                for path, each in live.items()
                if not path.startswith(below) or path in files
            }
    return live


def _parents(folder: str, root: str) -> Iterable[str]:
    """The folders above a folder: up to the root, and two above it, since a pattern may begin inside of a table."""
    above = 0
    while "/" in folder and above < 2:
        folder = folder.rpartition("/")[0]
        above += not folder.startswith(root.rstrip("/")) and "=" not in folder.rpartition("/")[2]
        yield folder


def _table_format(fs: Any, folder: str) -> str:
    if fs.isdir(f"{folder}/_delta_log"):
        return "Delta"
    if fs.isdir(f"{folder}/.hoodie"):
        return "Hudi"
    if fs.isdir(f"{folder}/metadata") and fs.glob(f"{folder}/metadata/*.metadata.json"):
        return "Iceberg"
    return ""


def _delta_files(fs: Any, folder: str) -> dict[str, Partitions]:
    """Path -> columns by partition, of the files of a Delta table in its latest version."""
    files: dict[str, Partitions] = {}
    for action in _delta_actions(fs, folder):
        if protocol := action.get("protocol"):
            _check_protocol(protocol, folder)
        if metadata := action.get("metaData"):
            mapping = dict(metadata.get("configuration") or {}).get("delta.columnMapping.mode", "none")
            if mapping != "none":
                raise _unsupported("Delta", folder, "renamed columns (column mapping)")
        if removed := action.get("remove"):
            files.pop(_full_path(fs, folder, removed["path"]), None)
        if added := action.get("add"):
            if added.get("deletionVector"):
                raise _unsupported("Delta", folder, "deletion vectors")
            files[_full_path(fs, folder, added["path"])] = dict(added.get("partitionValues") or {})
    return files


def _delta_actions(fs: Any, folder: str) -> Iterable[dict[str, Any]]:
    """The actions of a log: those of the last checkpoint, then those of each later commit."""
    import pyarrow.parquet as pq

    names = sorted(path.rpartition("/")[2] for path in fs.ls(f"{folder}/_delta_log", detail=False))
    commits = {int(match[1]): name for name in names if (match := _COMMIT.fullmatch(name))}
    checkpoints: dict[int, list[str]] = {}
    for name in names:
        if match := _CHECKPOINT.fullmatch(name):
            checkpoints.setdefault(int(match[1]), []).append(name)
    complete = [
        version
        for version, parts in checkpoints.items()
        if len(parts) == int(parts[0].split(".")[3] if parts[0].count(".") > 2 else 1)
    ]
    start = max(complete, default=-1)
    later = [version for version in commits if version > start]
    if sorted(later) != list(range(start + 1, start + 1 + len(later))) or (start < 0 and not later):
        raise _damaged(folder, f"commits {', '.join(map(str, sorted(later)[:5])) or 'none'} after version {start}")
    try:
        for name in checkpoints.get(start, ()):
            with fs.open(f"{folder}/_delta_log/{name}", "rb") as stream:
                columns = ["protocol", "metaData", "add", "remove"]
                table = pq.read_table(stream)
                rows = table.select([name for name in columns if name in table.column_names]).to_pylist()
            yield from ({key: value for key, value in row.items() if value} for row in rows)
        for version in sorted(later):
            with fs.open(f"{folder}/_delta_log/{commits[version]}", "rb") as stream:
                actions = [json.loads(line) for line in stream.read().splitlines() if line.strip()]
            if not all(isinstance(action, dict) for action in actions):
                raise ValueError("a line that is no object")
            yield from actions
    except (ValueError, KeyError, AttributeError) as error:  # Arrow's errors are ValueErrors
        raise _damaged(folder, " ".join(str(error).split())[:200]) from error


def _check_protocol(protocol: Mapping[str, Any], folder: str) -> None:
    unknown = sorted(set(protocol.get("readerFeatures") or ()) - READABLE_FEATURES)
    if unknown or int(protocol.get("minReaderVersion") or 1) > 3:
        raise _unsupported("Delta", folder, ", ".join(unknown) or f"reader version {protocol['minReaderVersion']}")


def _full_path(fs: Any, folder: str, path: str) -> str:
    path = unquote(path)
    return str(fs._strip_protocol(path)) if re.match(r"[a-z0-9+]+:/|/", path) else f"{folder}/{path}"


def _damaged(folder: str, detail: str) -> SourceError:
    return SourceError(
        "the log of a Delta table is not complete",
        expected="a checkpoint or the first commit, every commit after it, and every file that they name",
        found=detail,
        where=folder,
        hint="copy the whole folder again, with _delta_log",
    )


def _unsupported(kind: str, where: str, what: str = "") -> SourceError:
    scan = {"Delta": "delta_scan", "Iceberg": "iceberg_scan"}.get(kind)
    export = f"in DuckDB: COPY (SELECT * FROM {scan}('PATH')) TO 'events.parquet'" if scan else "with Spark, as Parquet"
    return SourceError(
        f"{'an' if kind == 'Iceberg' else 'a'} {kind} table {f'with {what} ' * bool(what)}cannot be read",
        expected="plain files, or a Delta table without renamed columns and deletion vectors",
        found=f"a folder whose files are the table only together with its log ({kind})",
        where=where,
        hint=f"export its current version ({export}) and name that; its files alone may hold rows that were deleted",
    )

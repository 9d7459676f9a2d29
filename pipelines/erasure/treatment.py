"""What becomes of a file that holds the id of an erased user, by its place in the workspace.

Files that others name by their digest cannot be written anew. An entry of the cache is removed and computed again. Of
evidence the files that name users are removed, and the reports stay. What is named by no digest is written anew.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pipelines.assets import packaged
from pipelines.erasure import rewriting
from pipelines.erasure.ids import UserIds
from pipelines.erasure.places import OURS, Place
from pipelines.erasure.sources import Examined
from rankline.registry.erased_evidence import DIGESTS, NOTE

# kept on purpose; mentioned in free text, which is left as it is; stays: it cannot be removed
Action = Literal["removed", "rewritten", "kept", "mentioned", "stays"]
MENTIONED = "in free text, which is left as it is: check it"
SPILL = ".spill-"  # of DuckDB (rankline/io/sql.py)


@dataclass(frozen=True)
class Treated:
    """What was done, or would be, with a file or the folder that it belongs to."""

    place: str
    path: str
    action: Action
    why: str


def treat(place: Place, file: str, ids: UserIds, examined: Examined | None, *, dry_run: bool) -> Treated:
    """Remove or rewrite a file that holds an id; ``examined`` is what a source holds."""
    parts = place.in_workspace(file).split("/")
    offset = len(parts) - len(file.split("/"))  # a place may stand for a part of a workspace

    def remove(depth: int, why: str) -> Treated:
        path = "/".join(file.split("/")[: max(depth - offset, 1)])
        if not dry_run:
            place.remove(path)
        return Treated(place.url, path, "removed", why)

    if spill := [depth for depth, part in enumerate(parts, 1) if part.startswith(SPILL)]:
        return remove(spill[0], "what a step that was killed has left")
    match parts[0]:
        case "cache" if len(parts) > 3:
            return remove(3, "a finished step, which the next run computes again")
        case "checkpoints" if len(parts) > 3:
            return remove(3, "checkpoints of unfinished work")
        case "fetched" if len(parts) > 2:
            return remove(2, "a copy of a bundle")
        case "runs" if len(parts) > 6 and parts[2] == "artifacts":
            return remove(6, "the output of a step")
        case "repository" if parts[1] == "evidence":
            return _treat_evidence(place, file, ids, dry_run=dry_run)
        case "repository" if parts[1] in ("bundles", "weights", "catalogues"):
            return Treated(place.url, file, "stays", "it belongs to a model: train another one, and remove this one")
        case "material" if _is_verified(parts):
            return Treated(place.url, file, "kept", "a public data set with a digest: ingest leaves the user out")
    if examined is not None:
        return _treat_source(place, file, examined, dry_run=dry_run)
    new = rewriting.redacted(place.read(file), ids, name=parts[-1])
    if new is None:
        return Treated(place.url, file, "stays", "a user cannot be removed from such a file")
    if not dry_run:
        place.write(file, new)
    return Treated(place.url, file, "rewritten", "its words")


def _treat_source(place: Place, file: str, examined: Examined, *, dry_run: bool) -> Treated:
    """Take the rows of users out of a source; what cannot be taken out is reported."""
    has_rows = examined.remaining != place.read(file)
    if has_rows and not dry_run:
        place.write(file, examined.remaining)
    if examined.fault:
        return Treated(place.url, file, "stays", examined.fault)
    if not has_rows:
        return Treated(place.url, file, "mentioned", MENTIONED)
    return Treated(
        place.url, file, "rewritten", f"its rows; mentioned {MENTIONED}" if examined.mentioned else "its rows"
    )


def is_source(place: Place, file: str) -> bool:
    """Whether a file is of a source, or of what is materialized from one: it consists of rows."""
    part = place.in_workspace(file).split("/")[0]
    return part in ("material", "online") or part not in OURS


def _treat_evidence(place: Place, file: str, ids: UserIds, *, dry_run: bool) -> Treated:
    """Redact a report, remove a table of requests, and note beside it which files are no longer those of the digest."""
    folder, _, name = file.partition("evidence/")[2].partition("/")
    new = rewriting.redacted(place.read(file), ids, name=name)
    if not dry_run:
        note = f"{file.partition('evidence/')[0]}evidence/{folder}/{NOTE}"
        changes = json.loads(place.read(note) or b"{}")
        was = hashlib.sha256(place.read(file)).hexdigest()
        changes[DIGESTS] = {name: was, **changes.get(DIGESTS, {})}  # the first one is that of the stored file
        changes[name] = "removed" if new is None else "redacted"
        changes["at"] = datetime.now(UTC).isoformat(timespec="seconds")
        place.write(note, (json.dumps(changes, indent=2) + "\n").encode())
        if new is None:
            place.remove(file)
        else:
            place.write(file, new)
    return Treated(place.url, file, "removed" if new is None else "rewritten", "evidence: the reports stay")


def _is_verified(parts: list[str]) -> bool:
    """Whether a file in material/ is of a packaged asset, whose digests every run verifies."""
    folders = (
        folder.split("/") for folder, asset in packaged.ASSETS.values() if isinstance(asset, packaged.PackagedAsset)
    )
    return any(parts[1 : 1 + len(folder)] == folder for folder in folders)

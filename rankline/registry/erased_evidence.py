"""Evidence whose files name no erased users any more: a note beside them says which digest each one had."""

from __future__ import annotations

from pathlib import Path

from rankline.io import digest
from rankline.io.files import read_json_object

NOTE = "erased.json"  # in a folder of evidence: what was removed of it
DIGESTS = "digests"  # in the note: file -> the sha256 that it had before


def evidence_digest(folder: Path, *, complete: tuple[str, ...]) -> str:
    """The digest of a folder of evidence as it was stored, if nothing but what its note names has changed.

    No note excuses a change of the files that are ``complete``.
    """
    files = digest.file_digests(folder)
    if files.pop(NOTE, ""):
        noted = read_json_object(folder / NOTE).get(DIGESTS)
        files |= {name: was for name, was in (noted if isinstance(noted, dict) else {}).items() if name not in complete}
    return digest.json_digest(files)

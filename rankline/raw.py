"""The raw data a run begins with: where its files are, and one digest for what they hold.

`look` needs the digest before anything is read, `ingest` needs the files; both ask here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rankline import digest
from rankline.errors import SourceError

Files = dict[str, Path]  # table ("events", "items", "users") -> its file


def files(source: str, *, format: str, name: str | None = None) -> Files:
    """Table -> file of a source; the users' file may be absent, the others may not.

    Raises:
        SourceError: where there is no such source, a file of it is missing, or one is empty.
    """
    if format not in FINDERS:
        raise SourceError(
            f"no adapter reads {format!r}",
            expected=f"one of {', '.join(FINDERS)}",
            found=format,
            where="ingest.format",
            hint="set ingest.format to a format that is listed",
        )
    found = FINDERS[format](Path(source).expanduser(), name)
    for path in found.values():
        if path.stat().st_size == 0:
            raise SourceError(
                "a source file is empty",
                expected="a header and at least one row",
                found="0 bytes",
                where=str(path),
                hint="fetch the data again, or point ingest.source at another copy",
            )
    return found


def digest_of(source: str, *, format: str, name: str | None = None) -> str:
    """One digest for the contents of a source's files, wherever they lie and whatever they are called."""
    found = files(source, format=format, name=name)
    return digest.of_value({table: digest.of_file(path) for table, path in found.items()})


def _recbole(source: Path, name: str | None) -> Files:
    """NAME.inter, NAME.item and NAME.user: `source` is their folder, or a path of one, suffix or not."""
    folder = source
    if not source.is_dir():
        if source.suffix in RECBOLE.values():
            folder, name = source.parent, source.stem
        elif source.parent.is_dir() and source.with_name(source.name + ".inter").is_file():
            folder, name = source.parent, source.name
        else:
            raise SourceError(
                "the source is not there",
                expected="a folder of RecBole atomic files (NAME.inter, NAME.item, NAME.user)",
                found="no such folder",
                where=str(source),
                hint="set ingest.source to the folder that holds them",
            )
    names = [name] if name else sorted(path.stem for path in folder.glob("*.inter"))
    if len(names) != 1:
        raise SourceError(
            "which data set is meant is not clear" if names else "the source holds no events",
            expected="one .inter file",
            found=", ".join(f"{each}.inter" for each in names) or _listing(folder),
            where=str(folder),
            hint="set ingest.name to the one you mean" if names else "set ingest.source to the folder that has one",
        )
    found = {table: folder / f"{names[0]}{suffix}" for table, suffix in RECBOLE.items()}
    for table in ("events", "items"):
        if not found[table].is_file():
            raise SourceError(
                f"the source has no file of {table}",
                expected=found[table].name,
                found=_listing(folder),
                where=str(folder),
                hint="set ingest.source to the folder that holds it, and ingest.name to its name",
            )
    return {table: path for table, path in found.items() if path.is_file()}


def _listing(folder: Path) -> str:
    """What a folder holds, in a few words."""
    if not folder.is_dir():
        return "no such folder"
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") or "an empty folder"


RECBOLE = {"events": ".inter", "items": ".item", "users": ".user"}
FINDERS: dict[str, Callable[[Path, str | None], Files]] = {"recbole": _recbole}

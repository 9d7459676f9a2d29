"""The format `recbole`: RecBole's atomic files, tab-separated text with a header of `name:type`."""

import difflib
from collections.abc import Iterator

from components.ingest.config import IngestConfig
from components.ingest.readers.parts import Column, Part
from components.ingest.readers.text_stream import encoding_check, line_batches, line_schema, open_text
from rankline.errors import SourceError
from rankline.io.sources import File, Files

TYPES = ("token", "token_seq", "float", "float_seq")


def read_parts(config: IngestConfig, files: Files) -> Iterator[Part]:
    """The parts of a RecBole data set.

    Raises:
        SourceError: a header is not of this form.
    """
    for table, each in files.items():
        for file in each:
            yield _part(table, file)


def _part(table: str, file: File) -> Part:
    stream, bytes_read = open_text(file, "utf-8")
    header = stream.readline().decode().rstrip("\r\n")
    pairs = [name.rpartition(":") for name in header.split("\t")]
    names: set[str] = set()
    for name, _, kind in pairs:
        if not name or kind not in TYPES or name in names:
            (closest,) = difflib.get_close_matches(kind, TYPES, n=1, cutoff=0.4) or ("",)
            raise SourceError(
                "a RecBole file has no header that names every column once, with its type",
                expected="tab-separated name:type, with the type token (a word), token_seq (words), float (a number) "
                "or float_seq (numbers)",
                found=f"{name or kind!r}{f' of type {kind!r}' * bool(name)}, in {header[:80]!r}",
                where=file.path,
                hint=f"write {name}:{closest}"
                if name and closest not in ("", kind)
                else "write such a header as line 1",
            )
        names.add(name)
    return Part(
        table=table,
        where=file.path,
        columns={name: Column(f"cell[{position}]", kind) for position, (name, _, kind) in enumerate(pairs, start=1)},
        schema=line_schema(),
        batches=line_batches(stream, first=2),
        raw="raw",
        relation="(SELECT *, string_split(raw, chr(9)) AS cell FROM arriving WHERE trim(raw) <> '')",
        checks=((f"len(cell) <> {len(pairs)}", "wrong number of columns"), encoding_check("utf-8")),
        split=file.split,
        bytes_read=bytes_read,
        size=file.size(),
    )

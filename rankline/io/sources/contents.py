"""One digest for the contents of a source."""

from __future__ import annotations

import uuid

from rankline.io import digest
from rankline.io.sources import postgres
from rankline.io.sources.files import Files
from rankline.io.sources.formats import find_files
from rankline.io.sources.settings import Source, is_file_database


def source_digest(source: Source) -> str:
    """The digest of a source's contents, independent of the place and the names of its files.

    It is new in every call if the source is `changing`. A Postgres server computes that of its database itself.

    Raises:
        SourceError: the source is missing, empty or unreadable.
    """
    if source.changing:
        return digest.json_digest(uuid.uuid4().hex)
    if source.format == "sql" and not is_file_database(source):
        return postgres.database_digest(source)
    return files_digest(find_files(source))


def files_digest(source_files: Files) -> str:
    """The digest of the contents of some files and of the columns that their folders name."""
    digests = {}
    for table, each in source_files.items():
        entries = [[file.digest(), dict(file.partitions), file.split] for file in each]
        digests[table] = entries[0][0] if len(entries) == 1 and not any(entries[0][1:]) else entries
    return digest.json_digest(digests)

"""The format `beir`: folders with corpus.jsonl, queries.jsonl, and judgments in qrels/{train,dev,test}.tsv.

A judgment becomes an event: a query, an item, its relevance, and the split that its file is named after. Judgments of
relevance 0 stay, since they say that the item does not answer the query. All events have the same time.
"""

from collections.abc import Iterator

from components.ingest.config import AllColumns, Columns, IngestConfig
from components.ingest.readers import tables
from components.ingest.readers.parts import Column, Part
from rankline.errors import SourceError
from rankline.io.sources import Files

FURTHER_COLUMNS = ("item_attributes", "item_numbers", "item_vectors")


def columns(settings: Columns) -> Columns:
    """The columns of a BEIR folder; of the settings only the further columns of items apply."""
    return Columns(
        user_id="",
        item_id="item",
        query_id="query",
        timestamp="",
        labels={"relevance": "score"},
        query_text="text",
        title="title",
        text=("text",),
        category="",
        created_year="",
        user_attributes=(),
        **{name: getattr(settings, name) for name in FURTHER_COLUMNS},
    )


def read_parts(config: IngestConfig, files: Files) -> Iterator[Part]:
    """The parts of a BEIR folder.

    Raises:
        SourceError: a file does not match its name, or lacks a column.
    """
    further = {name: getattr(config.columns, name) for name in FURTHER_COLUMNS}
    config = config.model_copy(update={"columns": AllColumns(**further)})  # the files have names of their own
    for table, each in files.items():
        for file in each:
            part = tables.file_part(table, file, config)
            for name, canonical in CANONICAL_NAMES[table].items():
                if name not in part.columns:
                    raise SourceError(
                        f"{file.path.rsplit('/', 1)[-1]} is not in BEIR's format",
                        expected=f"{LAYOUTS[table]} {', '.join(CANONICAL_NAMES[table])}",
                        found=", ".join(part.columns)[:120] or "none",
                        where=file.path,
                        hint="write that header as its first line; from TREC's judgments (query 0 document relevance) "
                        "remove the second column, and separate the others with tabs"
                        if table == "events"
                        else "write these keys, or read the files with ingest.format=tables",
                    )
                part.columns[canonical] = part.columns.pop(name)
            if table == "items":  # a document may have neither
                for name in ("title", "text"):
                    part.columns.setdefault(name, Column("NULL::VARCHAR", "text"))
            yield part


LAYOUTS = {
    "items": "one object per line with",
    "queries": "one object per line with",
    "events": "a header, tab-separated:",
}
CANONICAL_NAMES = {
    "items": {"_id": "item"},
    "queries": {"_id": "query", "text": "text"},
    "events": {"query-id": "query", "corpus-id": "item", "score": "score"},
}

"""The adapter for BEIR folders: corpus.jsonl, queries.jsonl, and judgments in qrels/{train,dev,test}.tsv.

A judgment becomes an event: a query, an item, its relevance, and the split its file is named for. Judgments of
relevance 0 stay: they say that the item does not answer the query. The source has no times, so every event has
the same one.
"""

from collections.abc import Iterator

from components.ingest.config import Columns, IngestConfig
from components.ingest.readers import tables
from components.ingest.readers.parts import Column, Part
from rankline.errors import SourceError
from rankline.io.sources import Files


def columns(settings: Columns) -> Columns:
    """What the columns of a BEIR folder are; of the settings, only the further columns of items count."""
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
        **{name: getattr(settings, name) for name in ("item_attributes", "item_numbers", "item_vectors")},
    )


def read_parts(config: IngestConfig, files: Files) -> Iterator[Part]:
    """The parts of a BEIR folder.

    Raises:
        SourceError: where a file is not what its name says.
    """
    for table, each in files.items():
        for file in each:
            part = tables.file_part(table, file, config)
            for name, canonical in CANONICAL_NAMES[table].items():
                if name not in part.columns:
                    raise SourceError(
                        f"{file.path.rsplit('/', 1)[-1]} is not as BEIR has it",
                        expected=f"{LAYOUTS[table]} {', '.join(CANONICAL_NAMES[table])}",
                        found=", ".join(part.columns)[:120] or "none",
                        where=file.path,
                        hint="write that header as its first line; of TREC's judgments (query 0 document relevance) "
                        "leave out the second column, and put tabs between"
                        if table == "events"
                        else "write these keys, or read the files with ingest.format=tables",
                    )
                part.columns[canonical] = part.columns.pop(name)
            if table == "items":  # a document needs neither
                for name in ("title", "text"):
                    part.columns.setdefault(name, Column("NULL::VARCHAR", "text"))
            yield part


LAYOUTS = {"items": "an object a line with", "queries": "an object a line with", "events": "a header, tab-separated:"}
CANONICAL_NAMES = {
    "items": {"_id": "item"},
    "queries": {"_id": "query", "text": "text"},
    "events": {"query-id": "query", "corpus-id": "item", "score": "score"},
}

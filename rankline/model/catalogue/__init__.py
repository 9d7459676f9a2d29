"""Builds the catalogue that a model serves with from a table of items.

A bundle contains what it needs to embed items, without torch:

    text.onnx     the text of an item           -> its text vector
    side.onnx     its side information          -> a vector that is added
    own.parquet   embeddings learnt in training -> added by item id; items new since training have none
    items.json    how side information is encoded, and the settings of BM25 and of the index

Co-visitation and popularity were counted in training, and the model learnt to weigh those counts. A catalogue therefore
takes them over, by item id, from the bundle's own catalogue. So it depends on the model and the items alone, not on the
catalogues in between.
"""

from rankline.model.catalogue.builder import (
    BuildResult,
    CatalogueBuilder,
    assemble_bundle,
    build,
    can_embed,
    cpu_session,
    embed,
    item_texts,
    load_vectors,
    write_item_embeddings,
)
from rankline.model.catalogue.index import index_recall, write_index
from rankline.model.catalogue.interaction_counts import InteractionCounts
from rankline.model.catalogue.settings import (
    CATALOGUE_SETTINGS,
    ITEM_EMBEDDINGS,
    Bm25Settings,
    CatalogueSettings,
    IndexSettings,
    read_catalogue_settings,
)
from rankline.model.catalogue_files import BM25, COVISIT, ITEMS, POPULARITY, read_item_ids

__all__ = [
    "BM25",
    "CATALOGUE_SETTINGS",
    "COVISIT",
    "ITEMS",
    "ITEM_EMBEDDINGS",
    "POPULARITY",
    "Bm25Settings",
    "BuildResult",
    "CatalogueBuilder",
    "CatalogueSettings",
    "IndexSettings",
    "InteractionCounts",
    "assemble_bundle",
    "build",
    "can_embed",
    "cpu_session",
    "embed",
    "index_recall",
    "item_texts",
    "load_vectors",
    "read_catalogue_settings",
    "read_item_ids",
    "write_index",
    "write_item_embeddings",
]

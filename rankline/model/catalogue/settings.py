"""Settings of a model's catalogues: items.json of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from rankline.contracts import FrozenModel
from rankline.errors import IntegrityError
from rankline.features.side_features import SideFeatures
from rankline.io.files import read_model
from rankline.model.bundle import EXPORT_HINT

CATALOGUE_SETTINGS, ITEM_EMBEDDINGS = "items.json", "own.parquet"


class Bm25Settings(FrozenModel):
    """How the texts of items are indexed for BM25."""

    stemmer: str
    k1: float
    b: float


class HistoryWords(FrozenModel):
    """How the texts of items are read to find those that resemble a history."""

    stemmer: str


class IndexSettings(FrozenModel):
    """The nearest-neighbour index; links and search are HNSW's M and ef."""

    kind: Literal["auto", "exact", "hnsw"] = "auto"
    links: int = 32
    search: int = 128


class CatalogueSettings(FrozenModel):
    """items.json."""

    side: SideFeatures
    words: Bm25Settings | None = Field(default=None, description="none in a recipe without queries")
    history_words: HistoryWords | None = Field(default=None, description="none in a recipe without users")
    neighbours: IndexSettings = IndexSettings()


def read_catalogue_settings(folder: Path) -> CatalogueSettings:
    """Read items.json of a bundle.

    Raises:
        IntegrityError: it is missing or cannot be read.
    """
    return read_model(
        folder / CATALOGUE_SETTINGS,
        CatalogueSettings,
        what="the bundle's catalogue settings",
        error=IntegrityError,
        missing=EXPORT_HINT,
        damaged=EXPORT_HINT,
    )

"""Co-visitation and popularity, as counted in training.

Shapes: I items, K items of both catalogues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rankline.model.bundle import CATALOGUE, Bundle
from rankline.model.catalogue_files import COVISIT, POPULARITY, read_item_ids

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class InteractionCounts:
    """Counts for the items of training."""

    item_ids: Sequence[str]
    covisit: Any
    popularity_I: Floats

    @classmethod
    def load(cls, folder: Path, item_ids: Sequence[str]) -> InteractionCounts:
        """Load the counts of a catalogue, or of a student before it is exported."""
        import scipy.sparse as sparse

        return cls(item_ids, sparse.load_npz(folder / COVISIT), np.load(folder / POPULARITY))

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> InteractionCounts:
        """Load the counts of the catalogue that a bundle was exported with."""
        own = bundle.folder / CATALOGUE
        return cls.load(own, read_item_ids(own))

    def reindex(self, item_ids: Sequence[str]) -> InteractionCounts:
        """The counts for other items; zero for items that are new since training."""
        import scipy.sparse as sparse

        if list(item_ids) == list(self.item_ids):
            return self
        new_K, old_K = match_rows(item_ids, self.item_ids)
        selection = sparse.csr_matrix(
            (np.ones(len(new_K), np.float32), (new_K, old_K)), shape=(len(item_ids), len(self.item_ids))
        )
        popularity_I = np.zeros(len(item_ids), self.popularity_I.dtype)
        popularity_I[new_K] = self.popularity_I[old_K]
        covisit = (selection @ self.covisit @ selection.T).tocsr().astype(self.covisit.dtype)
        covisit.sort_indices()
        return InteractionCounts(item_ids, covisit, popularity_I)


def match_rows(new: Sequence[str], old: Sequence[str]) -> tuple[Ints, Ints]:
    """[K], [K] the rows of the ids that are in both lists, in the order of ``new``."""
    old_row_of = {item: row for row, item in enumerate(old)}
    matches = [(new_row, old_row_of[item]) for new_row, item in enumerate(new) if item in old_row_of]
    new_K, old_K = np.array(matches, np.int64).reshape(-1, 2).T
    return new_K, old_K

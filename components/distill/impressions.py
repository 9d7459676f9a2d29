"""The impressions that the heads of labels learn from: everything that requests showed, and what happened to it.

Shapes: R requests, N impressions of all requests, D vector size, F features, K labels, P positions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from components.distill.candidate_table import CandidateDrawer
from rankline.errors import TooSmall
from rankline.evaluation.snapshot_requests import EXPOSURES, Exposure
from rankline.features import label_values
from rankline.labels import Label
from rankline.model.order import HEADS, RANK, Order
from rankline.model.scoring import NOT_FOR_LABELS, Catalogue
from rankline.runtime.progress import Progress

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
MIN_OUTCOMES = 10  # impressions of either outcome of a binary label, or values of another one
MAX_POSITION = 50  # deeper positions count as this one


def declared_labels(features: Path) -> dict[str, Label]:
    """The declared labels that heads can learn from; empty where none are declared, or no request shows negatives."""
    if not (features / EXPOSURES).is_file():
        return {}
    return label_values.declared_labels(json.loads((features / "summary.json").read_text()))


def check_order(expression: str, labels: Mapping[str, Label], features: Path) -> None:
    """Check the order of answers before anything is trained.

    Raises:
        UsageError: it is no expression, or has a name that is neither a head nor a number of the items.
    """
    if not expression:
        return
    import pyarrow as pa
    import pyarrow.parquet as parquet

    schema = parquet.read_schema(features / "items.parquet")
    numbers = {field.name: pa.types.is_floating(field.type) or pa.types.is_integer(field.type) for field in schema}
    Order(expression).check_names([RANK, *(labels or HEADS)], numbers)


@dataclass(frozen=True)
class Impressions:
    """The impressions of some requests, one row each; the values of labels are NaN where they are unknown."""

    labels: Mapping[str, Label]
    left_RD: Floats
    request_N: Ints
    items_N: Ints
    features_NF: Floats
    positions_N: Ints
    values_NK: npt.NDArray[np.float64]
    left_out: list[int]  # the features that the heads do not read

    @classmethod
    def draw(
        cls,
        exposures: Sequence[Exposure],
        drawer: CandidateDrawer,
        labels: Mapping[str, Label],
        *,
        progress: Progress,
    ) -> Impressions:
        """What the heads read of every item that the requests showed, but for items outside the catalogue."""
        index = drawer.catalogue.index
        known = [[n for n, item in enumerate(each.items) if item in index] for each in exposures]
        rows = [drawer.catalogue.rows(each.items) for each in exposures]
        table = drawer.draw([each.request for each in exposures], progress=progress, fixed_candidates=rows)
        positions = [np.array(each.positions, np.int64)[places] for each, places in zip(exposures, known)]
        values = {
            name: _flat([np.array(each.labels[name], np.float64)[places] for each, places in zip(exposures, known)])
            for name in labels
        }
        return cls(
            labels=labels,
            left_RD=table.left_RD,
            request_N=np.repeat(np.arange(len(rows)), [len(each) for each in rows]),
            items_N=_flat(rows).astype(np.int64),
            features_NF=_flat(table.features),
            positions_N=np.minimum(_flat(positions).astype(np.int64), MAX_POSITION),
            values_NK=np.stack(list(values.values()), 1),
            left_out=[n for n, name in enumerate(drawer.names.columns) if name in NOT_FOR_LABELS],
        )

    @property
    def outcomes(self) -> dict[str, npt.NDArray[np.float64]]:
        """Label -> [N] what its head is to predict; NaN if unknown."""
        return label_values.outcomes(self.labels, dict(zip(self.labels, self.values_NK.T)))

    def batch(self, rows_B: Ints, catalogue: Catalogue) -> tuple[torch.Tensor, ...]:
        """left [B, D], items [B, 1, D] and features [B, 1, F] of some impressions."""
        arrays = (
            self.left_RD[self.request_N[rows_B]],
            catalogue.vectors_ID[self.items_N[rows_B], None],
            self.features_NF[rows_B, None],
        )
        return tuple(torch.from_numpy(np.ascontiguousarray(values)) for values in arrays)

    def folds(self, count: int, rng: np.random.Generator) -> list[Ints]:
        """The impressions in parts, those of a request in one part."""
        parts = np.array_split(rng.permutation(len(self.left_RD)), count)
        return [np.flatnonzero(np.isin(self.request_N, part)) for part in parts]

    def refuse_too_few(self) -> None:
        """Refuse labels of which there is too little to learn from.

        Raises:
            TooSmall: a binary label has too few impressions of either outcome, another one too few values.
        """
        for name, outcome_N in self.outcomes.items():
            label = self.labels[name]
            known_N = outcome_N[~np.isnan(outcome_N)]
            binary = label.type == "binary"
            counts = [int((known_N == each).sum()) for each in (1, 0)] if binary else [len(known_N)]
            if min(counts) < MIN_OUTCOMES:
                counted = f"{counts[0]} that do, {counts[1]} that do not" if binary else f"{counts[0]}"
                raise TooSmall(
                    f"there are too few validation impressions to learn the label {name}",
                    expected=f"at least {MIN_OUTCOMES} in which it "
                    + ("happens, and as many in which not" if binary else "is known"),
                    found=counted,
                    where=EXPOSURES,
                    hint="provide more data, raise featurize.exposure_requests, or declare the label no more",
                )


def _flat(parts: Sequence[Any]) -> npt.NDArray[Any]:
    return np.concatenate([np.asarray(part) for part in parts]) if parts else np.zeros(0)

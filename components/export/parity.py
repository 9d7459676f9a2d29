"""The difference between ONNX Runtime and torch, graph by graph, on realistic inputs.

Shapes: B samples, L history events, I items, C candidates, W tokens, D vector size, F features, S side size.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from components.export.student import Student
from rankline.contracts import Parity, Precision
from rankline.errors import IntegrityError
from rankline.model.catalogue import cpu_session

Arrays = dict[str, npt.NDArray[Any]]


def measure(
    student: Student, bundle: Path, precisions: dict[str, Precision], texts: list[str], *, samples: int
) -> list[Parity]:
    """One entry per graph and precision: the largest difference from torch, and for vectors the least cosine."""
    rng = np.random.default_rng(0)
    vectors_ID = np.load(bundle / precisions["fp32"].item_vectors)
    inputs = _inputs(student, vectors_ID, texts, rng, samples)
    modules: dict[str, Callable[..., torch.Tensor]] = {
        "text": student.text, "side": student.side, "user": student.tower, "scorer": student.scorer,
    }  # fmt: skip
    if student.profile is not None:
        modules["profile"] = student.profile
    entries = []
    for graph, batch in inputs.items():
        if getattr(precisions["fp32"], graph) is None:  # a model without users has no history tower
            continue
        with torch.no_grad():
            expected_output = modules[graph](*(torch.from_numpy(value) for value in batch.values())).numpy()
        measured: dict[str, tuple[float, float]] = {}
        for name, precision in precisions.items():
            file = getattr(precision, graph)
            if file not in measured:
                actual = cpu_session(bundle / file).run(None, batch)[0]
                difference = float(np.abs(actual - expected_output).max())
                measured[file] = (difference, _min_cosine(actual, expected_output))
            difference, cosine = measured[file]
            entries.append(
                Parity(
                    graph=graph,
                    precision=name,
                    samples=len(expected_output),
                    max_abs_difference=difference,
                    min_cosine=cosine if graph != "scorer" else None,
                )
            )
    return entries


def check_parity(differences: list[Parity], *, limit: float) -> None:
    """Check that the fp32 graphs compute what torch computes.

    Raises:
        IntegrityError: a graph differs by more than ``limit``.
    """
    for each in differences:
        if each.precision == "fp32" and not each.max_abs_difference <= limit:
            raise IntegrityError(
                f"the exported {each.graph} graph does not compute what torch computes",
                expected=f"a difference of at most {limit:g}",
                found=f"{each.max_abs_difference:g} over {each.samples} inputs",
                hint="set export.fuse=false, or another export.opset",
            )


def _inputs(
    student: Student, vectors_ID: npt.NDArray[np.float32], texts: list[str], rng: np.random.Generator, samples: int
) -> dict[str, Arrays]:
    chosen = rng.choice(len(texts), min(samples, len(texts)), replace=False)
    ids_BW, mask_BW = student.tokenizer([texts[row] for row in chosen])
    length = student.tower.max_history
    lengths_B = rng.integers(1, length + 1, samples)
    rows_BL = rng.integers(0, len(vectors_ID), (samples, length))
    real_BL = np.arange(length) < lengths_B[:, None]
    mean_F, scale_F = student.scorer.standardize.mean_F.numpy(), student.scorer.standardize.scale_F.numpy()
    spread_F = np.divide(1.0, scale_F, out=np.zeros_like(scale_F), where=scale_F > 0)
    noise = rng.standard_normal((samples, 20, len(mean_F))).astype(np.float32)
    profile = {}
    if student.profile is not None:
        width = student.profile.enter.in_features
        profile = {"profile": {"known_BN": np.random.default_rng(1).standard_normal((samples, width), np.float32)}}
    return profile | {
        "text": {"input_ids": ids_BW, "attention_mask": mask_BW},
        "side": {"side_IS": student.side_IS[chosen]},
        "user": {
            "items_BLD": vectors_ID[rows_BL] * real_BL[..., None].astype(np.float32),
            "ratings_BL": rng.integers(0, 6, (samples, length)) * real_BL,
            "lengths_B": lengths_B,
        },
        "scorer": {
            "left_BD": rng.standard_normal((samples, vectors_ID.shape[1])).astype(np.float32),
            "items_BCD": vectors_ID[rng.integers(0, len(vectors_ID), (samples, 20))],
            "features_BCF": mean_F + spread_F * noise,
        },
    }


def _min_cosine(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """The least cosine of the pairs; two zero vectors (an item without side features) count as equal."""
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    same = (a == b).all(-1)
    return float(np.where(same, 1.0, (a * b).sum(-1) / np.maximum(norms, 1e-12)).min())

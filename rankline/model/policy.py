"""Calibration, order and abstention: from logits to probabilities, and when a model gives no answer.

Shapes: N candidates of a request, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from rankline.contracts import FrozenModel
from rankline.model.head_values import HeadPolicy

Floats = npt.NDArray[np.float32]
POLICY_FILE = "policy.json"
SOFTMAX_CANDIDATES = 10  # the best candidates, over which the softmax runs


class Calibration(FrozenModel):
    """Platt scaling (Platt 1999): a logistic regression from features to the probability that a candidate is right."""

    share_weight: float = Field(description="weight of the log odds of its share in a softmax over the best candidates")
    feature_weights: dict[str, float] = Field(description="feature -> weight")
    bias: float

    def probabilities(self, logits_N: Floats, features_NF: Floats, names: Sequence[str]) -> Floats:
        """[N] the probability that each candidate is right; ``names`` [F] are the names of the features."""
        inputs_NX = self.inputs(logits_N, features_NF, names, list(self.feature_weights))
        weights_X = np.array([self.share_weight, *self.feature_weights.values()], np.float64)
        probability_N = 1 / (1 + np.exp(-(inputs_NX @ weights_X + self.bias)))
        return np.asarray(probability_N, np.float32)

    @staticmethod
    def inputs(
        logits_N: Floats, features_NF: Floats, names: Sequence[str], chosen: Sequence[str]
    ) -> npt.NDArray[np.float64]:
        """[N, 1 + chosen] the inputs of the regression: the log odds of the share, then the chosen features.

        The share is taken in a softmax over the candidate and the best `SOFTMAX_CANDIDATES`, so that it does not depend
        on the number of candidates.
        """
        weight_N = np.exp(logits_N.astype(np.float64) - float(logits_N.max(initial=-np.inf)))
        best_N = np.argsort(-weight_N, kind="stable")[:SOFTMAX_CANDIDATES]
        others_N = np.full(len(weight_N), weight_N[best_N].sum())
        others_N[best_N] -= weight_N[best_N]
        share_N = np.clip(weight_N / (weight_N + others_N), 1e-6, 1 - 1e-6)
        columns = [features_NF[:, list(names).index(name)].astype(np.float64) for name in chosen]
        return np.stack([np.log(share_N / (1 - share_N)), *columns], 1)


class ServingPolicy(FrozenModel):
    """policy.json of a bundle."""

    calibration: Calibration | None = Field(None, description="none if the model is not calibrated")
    abstain_below: float = Field(0.0, ge=0, le=1, description="abstain if the best item is less probable than this")
    heads: dict[str, HeadPolicy] = Field({}, description="label -> how its head is served; empty without labels")
    order: str = Field("", description="expression that items are sorted by; empty for the first head")
    rating_scale: tuple[float, float] | None = Field(
        None, description="scale of the ratings that a request's history brings; none if it is 1 to 5"
    )

    @model_serializer(mode="wrap")
    def _without_absent_heads(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A model without labels keeps the bytes, and so the id, that it had before there were heads per label."""
        values: dict[str, Any] = serialize(self)
        return {
            name: value for name, value in values.items() if value or name not in ("heads", "order", "rating_scale")
        }

"""What is done with scores before they are an answer: how sure the model is, and when it rather says nothing.

Shapes: N candidates of a request, F features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import Field

from rankline.contracts import FrozenModel

Floats = npt.NDArray[np.float32]
POLICY_FILE = "policy.json"
SOFTMAX_CANDIDATES = 10  # best candidates that a candidate's share is taken among


class Calibration(FrozenModel):
    """A logistic regression from what is known of a candidate to the chance that it is right (Platt 1999)."""

    share_weight: float = Field(description="of the log odds of its share in a softmax over the best candidates")
    feature_weights: dict[str, float] = Field(description="feature -> weight: what tells an answer from none at all")
    bias: float

    def probabilities(self, logits_N: Floats, features_NF: Floats, names: Sequence[str]) -> Floats:
        """[N] the chance that each candidate is right; ``names`` [F] are the features' names."""
        inputs_NX = self.inputs(logits_N, features_NF, names, list(self.feature_weights))
        weights_X = np.array([self.share_weight, *self.feature_weights.values()], np.float64)
        probability_N = 1 / (1 + np.exp(-(inputs_NX @ weights_X + self.bias)))
        return np.asarray(probability_N, np.float32)

    @staticmethod
    def inputs(
        logits_N: Floats, features_NF: Floats, names: Sequence[str], chosen: Sequence[str]
    ) -> npt.NDArray[np.float64]:
        """[N, 1 + chosen] what the regression reads: the share's log odds, then the chosen features.

        The share is a candidate's in a softmax over it and the ``RIVALS`` best: how many others there are behind
        them must not tell.
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

    calibration: Calibration | None = Field(None, description="how sure the model is; none where that was not asked")
    abstain_below: float = Field(0.0, ge=0, le=1, description="an answer whose best item is less likely is no answer")

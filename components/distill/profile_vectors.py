"""What is known of a user and of a request as a vector, request by request, as serving computes it.

Shapes: K text fields, N inputs, T text size, D vector size.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from components.distill.encode import EncodedTexts
from components.distill.towers import Towers
from rankline.contracts import FrozenState
from rankline.features.profile import ProfileEncoder
from rankline.runtime.progress import Progress
from rankline.train.encode import encode_all

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ProfileVectors:
    """The vectors of requests by trained towers; each text is encoded once."""

    encoder: ProfileEncoder
    model: Towers
    texts: EncodedTexts
    text_vectors: dict[str, Floats] = field(default_factory=dict)

    @torch.no_grad()
    def __call__(self, state: FrozenState) -> Floats:
        """[D] what the fields of one request add to its left vector."""
        assert self.model.profile is not None
        encoded_1P = self.encoder.encode([state.profile], [state.context])
        texts = [self._text_vector(each) for each in self.encoder.text_values(state.profile, state.context)]
        known_1N = torch.from_numpy(np.concatenate([encoded_1P, *(text_D[None] for text_D in texts)], 1))
        vector_D: Floats = self.model.profile(known_1N)[0].numpy()
        return vector_D

    def _text_vector(self, text: str) -> Floats:
        """[D] the projected vector of a text; zeros for none."""
        if text not in self.text_vectors:
            vector_D = np.zeros(self.model.tower.size, np.float32)
            if text:
                texts = self.texts
                text_1T = encode_all(texts.encoder, texts.tokenizer, [text], device=texts.device, progress=Progress())
                vector_D = self.model.fusion.text(text_1T.cpu())[0].numpy()
            self.text_vectors[text] = vector_D
        return self.text_vectors[text]

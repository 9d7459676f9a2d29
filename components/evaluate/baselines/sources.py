"""The model's candidate sources, each alone: what it would recommend without a scorer that mixes them.

Shapes: I items, L history events, T tokens, D vector size, P encoded fields.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from components.evaluate.baselines.items import Floats, Ints, best_rows
from rankline.contracts import FrozenState
from rankline.features.transforms import stars
from rankline.model import scoring
from rankline.model.bundle import Bundle, read_catalogue
from rankline.model.catalogue import cpu_session
from rankline.text import Tokenizer


class ModelSources:
    """A bundle's candidate sources over its own catalogue, by the function that serving scores them with."""

    def __init__(self, bundle: Bundle, *, precision: str) -> None:
        files, text = bundle.manifest.precisions[precision], bundle.manifest.text
        self._graphs = {
            name: cpu_session(bundle.folder / file)
            for name, file in (("text", files.text), ("user", files.user), ("profile", files.profile))
            if file
        }
        self._tokenizer = None
        if text is not None and "text" in self._graphs:
            self._tokenizer = Tokenizer(bundle.folder / "tokenizer.json", max_tokens=text.max_tokens)
        self._catalogue, _ = read_catalogue(bundle, precision)
        self._settings, self._profiles = bundle.candidate_settings, bundle.profile_encoder

    def best(self, state: FrozenState, query: str, *, count: int) -> dict[str, list[str]]:
        """Source -> its ``count`` best unseen items; what it says nothing of is ordered by popularity."""
        catalogue = self._catalogue
        recent = scoring.truncate_history(state, self._settings.max_history)
        scores = scoring.source_scores(
            recent, self._query_vector(recent, query), catalogue, self._settings, query=query
        )
        excluded = np.concatenate([catalogue.rows(state.seen), catalogue.withdrawn])
        popular_I = scores.get("popular", catalogue.popularity_I)
        return {
            name: [
                catalogue.item_ids[row] for row in best_rows(values_I, excluded=excluded, count=count, ties_I=popular_I)
            ]
            for name, values_I in scores.items()
        }

    def _query_vector(self, state: FrozenState, query: str) -> Floats:
        """[D] the sum of the query's, the history's and the declared fields' vector."""
        vectors_ID = self._catalogue.vectors_ID
        left_D = np.zeros(vectors_ID.shape[1], np.float32)
        if query:
            left_D += self._text_vector(query)
        known = [n for n, item in enumerate(state.history.item_ids) if item in self._catalogue.index]
        if known and "user" in self._graphs:
            ratings = np.array(state.history.ratings or [0.0] * len(state.history.item_ids), np.float64)
            rows_L = self._catalogue.rows(state.history.item_ids)
            feeds: dict[str, Floats | Ints] = {
                "items_BLD": vectors_ID[rows_L].astype(np.float32)[None],
                "ratings_BL": stars(ratings[known])[None],
                "lengths_B": np.array([len(known)], np.int64),
            }
            left_D += self._run("user", feeds)
        if "profile" in self._graphs:
            left_D += self._profile_vector(state)
        return left_D

    def _text_vector(self, text: str) -> Floats:
        """[D] the vector of a text; zeros without words, or without a text tower."""
        if not text or self._tokenizer is None:
            return np.zeros(self._catalogue.vectors_ID.shape[1], np.float32)
        ids_BT, mask_BT = self._tokenizer([text])
        return self._run("text", {"input_ids": ids_BT, "attention_mask": mask_BT})

    def _profile_vector(self, state: FrozenState) -> Floats:
        encoded_P = self._profiles.encode([state.profile], [state.context])[0]
        texts = [self._text_vector(text) for text in self._profiles.text_values(state.profile, state.context)]
        return self._run("profile", {"known_BN": np.concatenate([encoded_P, *texts])[None].astype(np.float32)})

    def _run(self, graph: str, feeds: Mapping[str, Floats | Ints]) -> Floats:
        """[D] the first row of a graph's only output."""
        return np.asarray(self._graphs[graph].run(None, dict(feeds))[0][0], np.float32)

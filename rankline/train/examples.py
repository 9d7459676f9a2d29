"""Training examples in memory: the features artifact as arrays, for the steps that train.

Shapes: I items, L history events, R requests, F features, D days.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rankline.features import transforms
from rankline.features.profile import CONTEXT, PROFILE, ProfileEncoder, ProfileFields, given_values
from rankline.features.side_features import SideFeatures
from rankline.text import item_text
from rankline.train.windows import Window

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
NO_ITEMS, NO_WEIGHTS = np.zeros(0, np.int64), np.zeros(0, np.float32)
MAX_SHOWN = 32  # negatives of a request that one step reads


@dataclass(frozen=True)
class Sequences:
    """Every user's training events, oldest first."""

    items: list[Ints]
    times: list[npt.NDArray[np.float64]]
    ratings: list[Ints]
    weights: list[Floats] = field(default_factory=list)  # 1 in the mean over all events; empty: all weigh alike

    def windows(self, rng: np.random.Generator, length: int) -> list[Window]:
        """One window of at most ``length`` + 1 events (items, ratings and, if there are any, weights) per user.

        Events with the same timestamp are shuffled: their order in the file is noise.
        """
        windows = []
        for user, (items, times) in enumerate(zip(self.items, self.times)):
            if len(items) < 2:
                continue
            order = np.lexsort((rng.random(len(items)), times))
            start = self._start(rng, len(items), length)
            chosen = order[start : start + length + 1]
            columns = (self.items, self.ratings, self.weights) if self.weights else (self.items, self.ratings)
            windows.append(tuple(column[user][chosen] for column in columns))
        return windows

    @staticmethod
    def _start(rng: np.random.Generator, count: int, length: int) -> int:
        """The start of a window: the last one, or an earlier one shifted at random, each with the same probability."""
        last = count - length - 1
        if last <= 0:
            return 0
        starts = [last - step for step in range(0, last + length, length)]
        chosen = int(rng.integers(len(starts)))
        moved = starts[chosen] - (int(rng.integers(length)) if chosen else 0)
        return max(0, moved)


@dataclass
class RequestProfiles:
    """The declared fields of R requests: encoded, and texts as rows of the U different ones.

    Whoever has an encoder sets ``text_UT``, the vectors of ``texts``.
    """

    encoded_RP: Floats
    text_RK: Ints
    texts: list[str]
    text_UT: Any = None

    @classmethod
    def of(cls, encoder: ProfileEncoder, rows: list[dict[str, Any]]) -> RequestProfiles:
        """The fields of some rows of requests.parquet."""
        profiles, contexts = ([given_values(row, prefix) for row in rows] for prefix in (PROFILE, CONTEXT))
        texts = [encoder.text_values(*values) for values in zip(profiles, contexts)]
        index = {text: row for row, text in enumerate(dict.fromkeys(["", *(each for row in texts for each in row)]))}
        text_RK = np.array([[index[each] for each in row] for row in texts], np.int64).reshape(len(rows), -1)
        return cls(encoder.encode(profiles, contexts), text_RK, list(index))


@dataclass(frozen=True)
class Requests:
    """The requests of one split as padded arrays (left-aligned, oldest first); the query is "" where there is none."""

    ids: list[str]
    queries: list[str]
    at: npt.NDArray[np.float64]
    items_RL: Ints
    ratings_RL: Ints
    ages_RL: Floats
    lengths_R: Ints
    user_RF: Floats
    context_RF: Floats
    affinity: list[dict[str, float]]
    day_R: Ints
    targets: list[Ints]
    target_ratings: list[Floats]
    seen: list[Ints]
    negatives: list[Ints]
    target_weights: list[Floats] = field(default_factory=list)  # 1 in the mean over the split; empty: all weigh alike
    target_gains: list[Floats] = field(default_factory=list)  # the same as given: the gains of nDCG
    shown: list[Ints] = field(default_factory=list)  # negatives of the very request; empty: none is known
    profiles: RequestProfiles | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def query_rows(self) -> Ints:
        """The rows of the requests that have a query."""
        return np.array([row for row, query in enumerate(self.queries) if query], np.int64)

    def weights(self, rows_B: Ints, targets_B: Ints) -> Floats:
        """[B] the weights of one target of each request; 1 where targets have no weights."""
        if not self.target_weights:
            return np.ones(len(rows_B), np.float32)
        pairs = zip(rows_B, targets_B)
        return np.array([self.target_weights[row][self.targets[row] == item][0] for row, item in pairs], np.float32)

    def target_and_shown(self, rows_B: Ints, targets_B: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """[B, C] a target of each request, then what was shown with it and not chosen; and which places hold an item.

        At most `MAX_SHOWN` of them count. Without negatives of requests there is one column.
        """
        shown = [self.shown[row][:MAX_SHOWN] if self.shown else NO_ITEMS for row in rows_B]
        items_BC = np.repeat(np.asarray(targets_B)[:, None], 1 + max(map(len, shown), default=0), 1)
        real_BC = np.zeros(items_BC.shape, np.bool_)
        real_BC[:, 0] = True
        for b, items in enumerate(shown):
            items_BC[b, 1 : 1 + len(items)], real_BC[b, 1 : 1 + len(items)] = items, True
        return items_BC, real_BC


@dataclass(frozen=True)
class Examples:
    """Everything that training reads."""

    item_ids: list[str]
    index: dict[str, int]
    item_texts: list[str]
    side_IS: Floats
    categories_IC: Floats
    vocabulary: list[str]
    sequences: Sequences
    splits: dict[str, Requests]
    item_DIF: Floats
    summary: dict[str, Any]
    side: SideFeatures = field(default_factory=lambda: SideFeatures(categories=[]))  # how side_IS is encoded
    profile: ProfileEncoder | None = None  # how the declared fields of requests are encoded

    @property
    def has_users(self) -> bool:
        """Whether any user has events to learn from, or declared fields."""
        if self.profile is not None and not self.has_queries:
            return True
        return any(len(items) > 1 for items in self.sequences.items)

    @property
    def has_queries(self) -> bool:
        """Whether any request has a query."""
        return any(len(requests.query_rows) for requests in self.splits.values())

    @property
    def train_queries(self) -> list[str]:
        """The queries of the train requests, each once."""
        return [query for query in dict.fromkeys(self.splits["train"].queries) if query]

    @property
    def counts_I(self) -> Ints:
        """[I] how often each item occurs in training, in histories or as the target of a query."""
        train = self.splits["train"]
        item_rows = [*self.sequences.items, *(train.targets[row] for row in train.query_rows)]
        return np.bincount(np.concatenate([np.zeros(0, np.int64), *item_rows]), minlength=len(self.item_ids))

    @property
    def known_I(self) -> npt.NDArray[np.bool_]:
        """Which items occur in training."""
        return self.counts_I > 0

    def features(self, requests: Requests, rows_B: Ints, candidates_BC: Ints) -> Floats:
        """[B, C, F] user, item, cross and context features of some candidates of some requests."""
        count = candidates_BC.shape[1]
        shares_BK = np.array(
            [[requests.affinity[r].get(name, 0.0) for name in self.vocabulary] for r in rows_B], np.float32
        ).reshape(len(rows_B), len(self.vocabulary))
        overlap_BCK = self.categories_IC[candidates_BC] * shares_BK[:, None, :]
        cross_BC2 = np.stack([overlap_BCK.sum(-1), overlap_BCK.max(-1, initial=0.0)], -1)
        return np.concatenate(
            [
                np.repeat(requests.user_RF[rows_B, None], count, 1),
                self.item_DIF[requests.day_R[rows_B, None], candidates_BC],
                cross_BC2,
                np.repeat(requests.context_RF[rows_B, None], count, 1),
            ],
            -1,
        )


def read_examples(folder: Path, *, max_history: int) -> Examples:
    """Read the features artifact in ``folder``, with the last ``max_history`` events of each history."""
    import pyarrow.parquet as parquet

    catalogue = parquet.read_table(folder / "items.parquet")
    items = catalogue.to_pylist()
    item_ids = [item["item_id"] for item in items]
    index = {item: row for row, item in enumerate(item_ids)}
    side = SideFeatures.of(catalogue)
    columns = parquet.read_table(folder / "sequences.parquet").to_pydict()
    sequences = Sequences(
        items=[_item_rows(ids, index) for ids in columns["item_ids"]],
        times=[np.asarray(times, np.float64) for times in columns["times"]],
        ratings=[transforms.stars(ratings) for ratings in columns["ratings"]],
        weights=_event_weights(columns.get("weights", [])),
    )
    days, item_DIF = _read_item_features(folder, index)
    table = parquet.read_table(folder / "requests.parquet")
    sampled = parquet.read_table(folder / "negatives.parquet").to_pydict()
    negatives = dict(zip(sampled["request_id"], sampled["item_ids"]))
    rows = table.to_pylist()
    summary = json.loads((folder / "summary.json").read_text())
    by_split = {split: [row for row in rows if row["split"] == split] for split in ("train", "valid", "test")}
    splits = {split: _pad_requests(part, index, days, negatives, max_history) for split, part in by_split.items()}
    encoder = _fit_profile(summary, by_split["train"])
    if encoder is not None:
        splits = {
            split: replace(requests, profiles=RequestProfiles.of(encoder, by_split[split]))
            for split, requests in splits.items()
        }
    return Examples(
        item_ids=item_ids,
        index=index,
        item_texts=[item_text(item) for item in items],
        side_IS=side.matrix(catalogue),
        categories_IC=transforms.category_matrix([item.get("category") for item in items], side.categories),
        vocabulary=side.categories,
        sequences=sequences,
        splits=splits,
        item_DIF=item_DIF,
        summary=summary,
        side=side,
        profile=encoder,
    )


def _fit_profile(summary: dict[str, Any], train: list[dict[str, Any]]) -> ProfileEncoder | None:
    """How the declared fields are encoded, fitted to the training requests; None where none are declared."""
    fields = ProfileFields(**summary.get("profile", {}))
    return ProfileEncoder.fit(fields, train) if fields.user or fields.context else None


def _item_rows(ids: list[str], index: dict[str, int]) -> Ints:
    return np.array([index[item] for item in ids], np.int64)


def _read_item_features(folder: Path, index: dict[str, int]) -> tuple[dict[float, int], Floats]:
    """Day -> row, and [D, I, F] item features; a last row of zeros stands for days without a snapshot."""
    import pyarrow.parquet as parquet

    table = parquet.read_table(folder / "item_features.parquet")
    snapshots = table["snapshot"].to_numpy()
    values = transforms.matrix({n: table[n].to_numpy() for n in transforms.ITEM}, transforms.ITEM, len(snapshots))
    unique = np.unique(snapshots)
    out_DIF = np.zeros((len(unique) + 1, len(index), len(transforms.ITEM)), np.float32)
    items = np.array([index[item] for item in table["item_id"].to_pylist()], np.int64)
    out_DIF[np.searchsorted(unique, snapshots), items] = values
    return {float(day): row for row, day in enumerate(unique)}, out_DIF


def _event_weights(weights: list[list[float]]) -> list[Floats]:
    """The weights of events, 1 in the mean; none if all weigh alike."""
    events = np.concatenate([np.asarray(each, np.float32) for each in weights] or [NO_WEIGHTS])
    if not len(events) or (events == events[0]).all():
        return []
    return [np.asarray(each, np.float32) / events.mean() for each in weights]


def _pad_requests(
    rows: list[dict[str, Any]],
    index: dict[str, int],
    days: dict[float, int],
    negatives: dict[str, list[str]],
    length: int,
) -> Requests:
    items_RL = np.zeros((len(rows), length), np.int64)
    ratings_RL = np.zeros((len(rows), length), np.int64)
    ages_RL = np.zeros((len(rows), length), np.float32)
    lengths_R = np.zeros(len(rows), np.int64)
    for r, row in enumerate(rows):
        history = _item_rows(row["history_items"][-length:], index)
        lengths_R[r] = count = len(history)
        items_RL[r, :count] = history
        ratings_RL[r, :count] = transforms.stars(row["history_ratings"][-length:])
        hours = (row["at"] - np.asarray(row["history_times"][-length:], np.float64)) / 3600
        ages_RL[r, :count] = np.log1p(np.maximum(hours, 0))
    columns = {name: [row.get(name) for row in rows] for name in (*transforms.USER, *transforms.CONTEXT)}
    weighted = bool(rows) and rows[0].get("target_weights") is not None
    gains_of = [np.array(row["target_weights"], np.float32) for row in rows] if weighted else []
    mean_gain = float(np.mean(np.concatenate(gains_of))) if gains_of else 1.0
    numbers = {k: np.array([v or 0.0 for v in values], np.float32) for k, values in columns.items()}
    return Requests(
        ids=[row["request_id"] for row in rows],
        queries=[row["query"] or "" for row in rows],
        at=np.array([row["at"] for row in rows], np.float64),
        items_RL=items_RL,
        ratings_RL=ratings_RL,
        ages_RL=ages_RL,
        lengths_R=lengths_R,
        user_RF=transforms.matrix(numbers, transforms.USER, len(rows)),
        context_RF=transforms.matrix(numbers, transforms.CONTEXT, len(rows)),
        affinity=[dict(zip(row["affinity_categories"] or [], row["affinity_shares"] or [])) for row in rows],
        day_R=np.array([days.get(row["snapshot"], len(days)) for row in rows], np.int64),
        targets=[_item_rows(row["targets"], index) for row in rows],
        target_ratings=[np.array([v or 0.0 for v in row["target_ratings"]], np.float32) for row in rows],
        seen=[_item_rows(row["seen"], index) for row in rows],
        negatives=[_item_rows(negatives.get(row["request_id"], []), index) for row in rows],
        target_weights=[gains / mean_gain for gains in gains_of],
        target_gains=gains_of,
        shown=[_item_rows([item for item in row["shown"] if item in index], index) for row in rows]
        if any(row.get("shown") for row in rows)
        else [],
    )

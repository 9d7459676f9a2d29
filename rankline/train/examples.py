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
import pyarrow as pa
import pyarrow.compute as pc

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
    known = pa.array(item_ids, pa.string())
    columns = parquet.read_table(folder / "sequences.parquet")
    sequences = Sequences(
        items=_item_lists(columns["item_ids"], known),
        times=_number_lists(columns["times"], np.float64),
        ratings=[transforms.stars(ratings) for ratings in _number_lists(columns["ratings"], np.float64)],
        weights=_event_weights(columns["weights"]) if "weights" in columns.column_names else [],
    )
    days, item_DIF = _read_item_features(folder, index)
    sampled = parquet.read_table(folder / "negatives.parquet")
    negatives = dict(zip(sampled["request_id"].to_pylist(), _item_lists(sampled["item_ids"], known)))
    summary = json.loads((folder / "summary.json").read_text())
    table = parquet.read_table(folder / "requests.parquet")
    by_split = {split: table.filter(pc.equal(table["split"], split)) for split in ("train", "valid", "test")}
    splits = {split: _pad_requests(part, known, days, negatives, max_history) for split, part in by_split.items()}
    encoder = _fit_profile(summary, by_split["train"])
    if encoder is not None:
        splits = {
            split: replace(requests, profiles=RequestProfiles.of(encoder, _declared_rows(by_split[split])))
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


def _fit_profile(summary: dict[str, Any], train: pa.Table) -> ProfileEncoder | None:
    """How the declared fields are encoded, fitted to the training requests; None where none are declared."""
    fields = ProfileFields(**summary.get("profile", {}))
    return ProfileEncoder.fit(fields, _declared_rows(train)) if fields.user or fields.context else None


def _declared_rows(requests: pa.Table) -> list[dict[str, Any]]:
    """The declared fields of requests."""
    names = [name for name in requests.column_names if name.startswith((PROFILE, CONTEXT))]
    rows: list[dict[str, Any]] = requests.select(names).to_pylist()
    return rows


# Lists of a column become views of one array: as Python objects, the histories of a log would take gigabytes.


def _lists(column: pa.ChunkedArray, values: npt.NDArray[Any]) -> list[Any]:
    """The lists of a column from their ``values``, end to end; a missing list is empty."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    return np.split(values, np.cumsum(lengths)[:-1]) if len(lengths) else []


def _item_lists(column: pa.ChunkedArray, known: pa.Array, *, only_known: bool = False) -> list[Ints]:
    """Lists of item ids as rows in the catalogue ``known``.

    Raises:
        KeyError: an item is not in it, unless ``only_known`` leaves it out.
    """
    items = pc.list_flatten(column).cast(known.type)
    rows = pc.fill_null(pc.index_in(items, value_set=known), -1).to_numpy().astype(np.int64)
    if only_known:
        return [each[each >= 0] for each in _lists(column, rows)]
    if (rows < 0).any():
        raise KeyError(items[int(np.argmin(rows))].as_py())
    return _lists(column, rows)


def _number_lists(column: pa.ChunkedArray, dtype: Any) -> list[Any]:
    """Lists of numbers; a missing number is 0."""
    return _lists(column, pc.fill_null(pc.list_flatten(column), 0).to_numpy().astype(dtype))


def _affinity(requests: pa.Table) -> list[dict[str, float]]:
    """Category -> share of each request; all of them share the names."""
    names = pc.list_flatten(requests["affinity_categories"]).cast(pa.string()).combine_chunks().dictionary_encode()
    texts = np.array(names.dictionary.to_pylist(), object)[names.indices.to_numpy()]
    shares = _number_lists(requests["affinity_shares"], np.float64)
    return [
        dict(zip(*pair)) for pair in zip(_lists(requests["affinity_categories"], texts), map(np.ndarray.tolist, shares))
    ]


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


def _event_weights(column: pa.ChunkedArray) -> list[Floats]:
    """The weights of events, 1 in the mean; none if all weigh alike."""
    weights = _number_lists(column, np.float32)
    events = np.concatenate(weights or [NO_WEIGHTS])
    if not len(events) or (events == events[0]).all():
        return []
    return [each / events.mean() for each in weights]


def _pad_requests(
    requests: pa.Table, known: pa.Array, days: dict[float, int], negatives: dict[str, Ints], length: int
) -> Requests:
    count = len(requests)
    history = _item_lists(requests["history_items"], known)
    times, ratings = (_number_lists(requests[f"history_{name}"], np.float64) for name in ("times", "ratings"))
    items_RL, ratings_RL = np.zeros((2, count, length), np.int64)
    ages_RL = np.zeros((count, length), np.float32)
    lengths_R = np.zeros(count, np.int64)
    at = requests["at"].to_numpy()
    for r in range(count):
        lengths_R[r] = events = len(history[r][-length:])
        items_RL[r, :events] = history[r][-length:]
        ratings_RL[r, :events] = transforms.stars(ratings[r][-length:])
        ages_RL[r, :events] = np.log1p(np.maximum((at[r] - times[r][-length:]) / 3600, 0))
    numbers = {name: _numbers(requests, name) for name in (*transforms.USER, *transforms.CONTEXT)}
    weighted = "target_weights" in requests.column_names and count and requests["target_weights"][0].is_valid
    gains_of = _number_lists(requests["target_weights"], np.float32) if weighted else []
    mean_gain = float(np.mean(np.concatenate(gains_of))) if gains_of else 1.0
    shown = _item_lists(requests["shown"], known, only_known=True) if "shown" in requests.column_names else []
    ids = requests["request_id"].to_pylist()
    return Requests(
        ids=ids,
        queries=[query or "" for query in requests["query"].to_pylist()],
        at=at,
        items_RL=items_RL,
        ratings_RL=ratings_RL,
        ages_RL=ages_RL,
        lengths_R=lengths_R,
        user_RF=transforms.matrix(numbers, transforms.USER, count),
        context_RF=transforms.matrix(numbers, transforms.CONTEXT, count),
        affinity=_affinity(requests),
        day_R=np.array([days.get(day, len(days)) for day in requests["snapshot"].to_pylist()], np.int64),
        targets=_item_lists(requests["targets"], known),
        target_ratings=_number_lists(requests["target_ratings"], np.float32),
        seen=_item_lists(requests["seen"], known),
        negatives=[negatives.get(each, NO_ITEMS) for each in ids],
        target_weights=[gains / mean_gain for gains in gains_of],
        target_gains=gains_of,
        shown=shown if any(map(len, shown)) else [],
    )


def _numbers(requests: pa.Table, name: str) -> Floats:
    """[R] the numbers of a column, 0 where there is none."""
    if name not in requests.column_names:
        return np.zeros(len(requests), np.float32)
    return np.asarray(pc.fill_null(requests[name].cast(pa.float64()), 0).to_numpy(), np.float32)

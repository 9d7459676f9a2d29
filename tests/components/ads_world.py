"""The features artifact of a synthetic log of ads, written directly: every chance in it is planted.

A request shows some ads in a random order. The chance of a click depends on the ad, on whether its topic is one of the
user's favourites, and on the position; a purchase follows a click, and by what it is worth the user rates the ad.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as parquet

from rankline.contracts import ITEMS
from rankline.features import transforms

TOPICS = ("travel", "running", "cooking", "garden", "music", "games", "money", "pets")
WORDS = ("city", "road", "iron", "rose", "piano", "board", "card", "basket")
SHOWN = 5
EXAMINED = (1.0, 0.8, 0.6, 0.5, 0.4)  # chance that a user looks at a position
LABELS: dict[str, Any] = {
    "click": {"type": "binary"},
    "purchase": {"type": "binary", "weight": 3.0, "after": "click"},
    "worth": {"type": "continuous", "weight": 0.0, "after": "purchase"},
}
BETWEEN_S = 43_200.0
BEGAN_S = datetime(2024, 1, 1, tzinfo=UTC).timestamp()
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ads:
    """Planted chances: of a click where the user looks [users, ads], and of a purchase after it [ads]."""

    ids: list[str]
    topics: list[str]
    prices: Floats
    click_UA: Floats
    purchase_A: Floats

    @classmethod
    def plant(cls, *, users: int, seed: int) -> Ads:
        """Four ads of every topic; every user has two favourite topics."""
        rng = np.random.default_rng(seed)
        topics = [topic for topic in TOPICS for _ in range(4)]
        appeal_A, quality_A = rng.normal(0, 0.5, len(topics)), rng.normal(0, 0.5, len(topics))
        favourite = np.zeros((users, len(TOPICS)), bool)
        for user in range(users):
            favourite[user, rng.choice(len(TOPICS), 2, replace=False)] = True
        is_favourite_UA = favourite[:, [TOPICS.index(topic) for topic in topics]]
        return cls(
            ids=[f"{topic}-{n:02}" for n, topic in enumerate(topics)],
            topics=topics,
            prices=np.round(rng.uniform(5, 100, len(topics)), 2),
            click_UA=_sigmoid(-2.0 + appeal_A + 2.2 * is_favourite_UA),
            purchase_A=_sigmoid(-0.8 + quality_A),
        )

    def served_click(self, user: int, rows: list[int]) -> Floats:
        """The chances of a click in the mean over the positions."""
        return np.asarray(self.click_UA[user, rows] * np.mean(EXAMINED))


def write_ads(
    folder: Path, *, users: int = 120, requests: tuple[int, int, int] = (8, 8, 4), labels: Any = LABELS, seed: int = 0
) -> Ads:
    """Features with ``requests`` of each user in train, valid and test, each an exposure; the planted chances."""
    folder.mkdir(parents=True)
    ads, rng = Ads.plant(users=users, seed=seed), np.random.default_rng([seed, 1])
    items = [
        {"item_id": ad, "title": f"{topic} {WORDS[n % 8]} offer", "category": [topic], "price": float(ads.prices[n])}
        for n, (ad, topic) in enumerate(zip(ads.ids, ads.topics))
    ]
    parquet.write_table(pa.Table.from_pylist(items, schema=ITEMS), folder / "items.parquet")
    rows: dict[str, list[dict[str, Any]]] = {"requests": [], "exposures": [], "sequences": [], "negatives": []}
    for user in range(users):
        _play(user, ads, rows, requests, rng)
    exposed = [{**row, **{f"label_{name}": row["values"][name] for name in labels}} for row in rows["exposures"]]
    _write(folder / "exposures.parquet", [{k: v for k, v in row.items() if k != "values"} for row in exposed])
    for name in ("requests", "sequences", "negatives"):
        _write(folder / f"{name}.parquet", rows[name])
    daily = [{"snapshot": 0.0, "item_id": ad, **dict.fromkeys(transforms.ITEM, 1.0)} for ad in ads.ids]
    _write(folder / "item_features.parquet", daily)
    summary = {
        "data_digest": f"ads {seed} {users} {requests}",
        "train_end": datetime.fromtimestamp(BEGAN_S + BETWEEN_S * requests[0], UTC).isoformat(),
        "data_end": datetime.fromtimestamp(BEGAN_S + BETWEEN_S * sum(requests), UTC).isoformat(),
        "split": {"split": "time", "seed": 7},
        "service": transforms.SERVICE,
        "turns": 3,
        "labels": labels,
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return ads


def _play(
    user: int, ads: Ads, rows: dict[str, list[dict[str, Any]]], requests: tuple[int, int, int], rng: np.random.Generator
) -> None:
    """Everything that one user is shown and does, half a day between two requests."""
    clicked: list[tuple[str, float]] = []
    splits = [split for split, count in zip(("train", "valid", "test"), requests) for _ in range(count)]
    trained: list[tuple[str, float]] = []
    for number, split in enumerate(splits):
        at = BEGAN_S + BETWEEN_S * (number + 1) + user
        shown = [int(row) for row in rng.permutation(len(ads.ids))[:SHOWN]]
        click = rng.random(SHOWN) < ads.click_UA[user, shown] * np.array(EXAMINED)
        purchase = click & (rng.random(SHOWN) < ads.purchase_A[shown])
        worth = np.where(purchase, 2 * ads.prices[shown] + rng.normal(0, 5, SHOWN), np.nan)
        names = [ads.ids[row] for row in shown]
        targets = [n for n in range(SHOWN) if click[n]]
        weights = [3.0 if purchase[n] else 1.0 for n in targets]
        request = _request(f"{split}:u{user}:{number}", split, user, at, clicked)
        request |= {
            "targets": [names[n] for n in targets],
            "target_ratings": [0.0] * len(targets),
            "target_weights": weights,
            "shown": [names[n] for n in range(SHOWN) if not click[n]],
        }
        exposure = {
            "items": names,
            "positions": list(range(1, SHOWN + 1)),
            "feedback": [3.0 if purchase[n] else float(click[n]) for n in range(SHOWN)],
            "values": {"click": click.astype(float), "purchase": purchase.astype(float), "worth": worth},
        }
        rows["exposures"].append({**request, **exposure})
        if targets:
            rows["requests"].append(request)
            rows["negatives"].append({"request_id": request["request_id"], "item_ids": ads.ids[:3]})
        clicked = [*clicked, *((names[n], at) for n in targets)]
        trained = clicked if split == "train" else trained
    rows["sequences"].append(
        {
            "user_id": f"u{user}",
            "item_ids": [item for item, _ in trained],
            "times": [time for _, time in trained],
            "ratings": [0.0] * len(trained),
        }
    )


def _request(name: str, split: str, user: int, at: float, clicked: list[tuple[str, float]]) -> dict[str, Any]:
    topics = [item.split("-")[0] for item, _ in clicked]
    days = {"user_events_1d": 1, "user_events_7d": 7, "user_events_30d": 30, "user_events_total": 10_000}
    recent: dict[str, float] = {
        name: float(sum(at - time < 86_400 * days.get(name, 0) for _, time in clicked)) for name in transforms.USER
    }
    shares = {topic: topics.count(topic) / len(topics) for topic in sorted(set(topics))}
    return {
        "request_id": name, "split": split, "user_id": f"u{user}", "query_id": None, "query": None, "at": at,
        "history_items": [item for item, _ in clicked], "history_times": [time for _, time in clicked],
        "history_ratings": [0.0] * len(clicked), "seen": [], "snapshot": 0.0,
        **recent, **dict.fromkeys(transforms.CONTEXT, 0.5),
        "affinity_categories": list(shares), "affinity_shares": list(shares.values()),
    }  # fmt: skip


TEXTS, NUMBERS = pa.list_(pa.string()), pa.list_(pa.float64())
TYPES = {
    **dict.fromkeys(("query", "query_id"), pa.string()),
    **dict.fromkeys(("item_ids", "history_items", "seen", "targets", "shown", "items", "affinity_categories"), TEXTS),
    **dict.fromkeys(("target_ratings", "ratings", "times", "history_times", "history_ratings"), NUMBERS),
    **dict.fromkeys(("feedback", "target_weights", *(f"label_{name}" for name in LABELS)), pa.list_(pa.float32())),
    "affinity_shares": NUMBERS,
    "positions": pa.list_(pa.int32()),
    "at": pa.float64(),
}


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    columns = {name: pa.array([row[name] for row in rows], TYPES.get(name)) for name in rows[0]}
    parquet.write_table(pa.table(columns), path)


def _sigmoid(logits: Any) -> Floats:
    return np.asarray(1 / (1 + np.exp(-logits)))

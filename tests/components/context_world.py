"""A synthetic shop in which one field decides which half of the catalogue is chosen, and everything else is popularity.

Users come one after the other, so that a cut in time leaves users without any history behind it.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.distill.config import DistillConfig
from components.export.config import ExportConfig
from components.featurize.config import FeaturizeConfig
from components.finetune.config import FinetuneConfig
from components.ingest.config import Columns, IngestConfig
from pipelines.recipe import change_of
from pipelines.recipes import smoke
from rankline.io.sources import Tables

BEGAN = 1_700_000_000
DEVICES, GENDERS, ABOUTS = ("phone", "desktop"), ("f", "m"), ("i like climbing rocks", "i cook soup every day")
COLUMNS = Columns(
    title="title", category="", created_year="", labels={}, user_attributes=("gender",), user_numbers=("age",),
    user_texts=("about",), user_time_zone="zone", event_attributes=("device",), event_numbers=("holiday",),
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """How large the shop is, and the field that decides: gender, age, about, device, holiday or hour."""

    decides: str
    users: int = 800
    items: int = 40
    events_per_user: int = 3
    seed: int = 0


def write_shop(folder: Path, world: World) -> Path:
    """Write events.csv, items.csv and users.csv."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(world.seed)
    half = world.items // 2
    popularity_H = 1.0 / (1 + np.arange(half))
    users: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = []
    for user in range(world.users):
        known = {
            "gender": GENDERS[rng.integers(2)], "age": int(rng.integers(18, 80)), "about": ABOUTS[rng.integers(2)],
            "zone": ("Asia/Tokyo", "America/New_York")[rng.integers(2)],
        }  # fmt: skip
        users.append({"user_id": f"u{user}", **known})
        visit = {"device": DEVICES[rng.integers(2)], "holiday": int(rng.integers(2))}  # of the one visit
        second = _second({**known, **visit}, world.decides)
        started = BEGAN + user * 10_000 + int(rng.integers(5_000))
        chosen: set[int] = set()
        for click in range(world.events_per_user):
            item = int(rng.choice(half, p=popularity_H / popularity_H.sum())) + half * second
            if item not in chosen:
                row = {"user_id": f"u{user}", "item_id": f"i{item}", "timestamp": started + 60 * click, **visit}
                events.append(row)
            chosen.add(item)
    items = [{"item_id": f"i{n}", "title": f"thing {n}"} for n in range(world.items)]
    for name, rows in (("events", events), ("users", users), ("items", items)):
        with (folder / f"{name}.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return folder


def _second(known: dict[str, Any], decides: str) -> bool:
    """Whether the second half of the catalogue is chosen from."""
    values = {
        "gender": known["gender"] == "m", "age": known["age"] >= 50, "about": known["about"] == ABOUTS[1],
        "device": known["device"] == "desktop", "holiday": known["holiday"] == 1,
    }  # fmt: skip
    return bool(values[decides])


def ingest_config(folder: Path, **columns: Any) -> IngestConfig:
    """How the shop is read."""
    tables = Tables(events="events.csv", items="items.csv", users="users.csv")
    columns_used = change_of(COLUMNS, **columns)
    return IngestConfig(source=str(folder), format="tables", tables=tables, columns=columns_used)


def featurize_config(**changes: Any) -> FeaturizeConfig:
    """Requests from the first event on, split in time."""
    base = {"split": "time_cut", "train_share": 0.6, "valid_share": 0.2, "min_history": 0, "max_history": 20}
    return FeaturizeConfig(**{**base, "negatives": 10, **changes})


FINETUNE: FinetuneConfig = change_of(smoke().finetune, epochs=12, evaluate_every=4)
DISTILL: DistillConfig = change_of(smoke().distill, epochs=12, evaluate_every=4, scorer_batch_size=8)
EXPORT: ExportConfig = change_of(smoke().export, fp16=False, int8=False)

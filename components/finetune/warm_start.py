"""Begin where the champion ended: its encoder and its networks, with items found again by their ids.

Users are their histories and have nothing of their own to be found again. What does not fit (other sizes, another
encoder, a champion that has seen what this model will be tested on) is told, and training begins from scratch.

Shapes: I items, D vector size, S side size, F features.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.finetune import encoder as encoders
from components.finetune.config import FinetuneConfig
from rankline.contracts import ITEMS
from rankline.train.champion_weights import ORIGIN, Start

if TYPE_CHECKING:
    from rankline.model.networks import CrossEncoder, Teacher
    from rankline.train.examples import Examples

SIZES = ("vector_size", "max_history", "layers", "heads")
MOST_CHOICES = 50  # as many values of a text column are side information
# what is the data's own, and never comes from another model
OF_THE_DATA = ("fusion.known_I",)


@dataclass(frozen=True)
class Warm:
    """What there is to begin with, and what of it fits; without a folder, nothing, and ``why`` says why."""

    model_id: str
    why: str
    folder: Path | None = None
    own_encoder: bool = False  # it brings the encoder along
    rows: Mapping[str, int] | None = None  # item id -> its row there
    side: tuple[str, ...] = ()

    def has(self, member: int) -> bool:
        """Whether there are weights for this one of several teachers."""
        return self._of(member) is not None

    def _of(self, member: int) -> Path | None:
        path = self.folder / f"weights{f'-{member}' if member else ''}.safetensors" if self.folder else None
        return path if path is not None and path.is_file() and self.rows is not None else None

    def begin(self, model: Teacher, data: Examples, names: list[str], *, member: int = 0) -> int:
        """Put its weights into a fresh teacher; how many items were found again."""
        import torch
        from safetensors.torch import load_file

        path = self._of(member)
        if path is None or self.rows is None:
            return 0
        own, there = model.state_dict(), load_file(path)
        taken = {
            name: value for name, value in there.items()
            if name in own and own[name].shape == value.shape and name not in OF_THE_DATA
        }  # fmt: skip
        pairs = [(row, self.rows[item]) for row, item in enumerate(data.item_ids) if item in self.rows]
        here_N, there_N = (torch.tensor([pair[side] for pair in pairs], dtype=torch.long) for side in (0, 1))
        taken["fusion.own.weight"] = own["fusion.own.weight"].index_copy(
            0, here_N, there["fusion.own.weight"][there_N].to(own["fusion.own.weight"])
        )
        columns = {name: column for column, name in enumerate(self.side)}
        side_DS = own["fusion.side.weight"].clone()
        for column, name in enumerate(names):
            if name in columns:
                side_DS[:, column] = there["fusion.side.weight"][:, columns[name]]
        taken["fusion.side.weight"] = side_DS
        # the networks were fitted to features of that scale; one that never moved there has no scale
        known_F = there["standardize.scale_F"] > 0
        for name in ("standardize.mean_F", "standardize.scale_F"):
            taken[name] = torch.where(known_F, there[name], own[name])
        model.load_state_dict({**own, **taken})
        return len(pairs)

    def begin_pairs(self, model: CrossEncoder) -> bool:
        """Put its cross-encoder into a fresh one; whether it fits."""
        from safetensors.torch import load_file

        path = self.folder / "pairs.safetensors" if self.folder else None
        if path is None or not path.is_file():
            return False
        own, there = model.state_dict(), load_file(path)
        if {name: value.shape for name, value in own.items()} != {name: value.shape for name, value in there.items()}:
            return False
        model.load_state_dict(there)
        return True


COLD = Warm("", "")


def opened(start: Start | None, data: Examples, config: FinetuneConfig) -> Warm:
    """What of a start fits this data and these settings."""
    if start is None or not start.model_id:
        return Warm("", start.why if start else "")
    import pyarrow.parquet as parquet

    folder = Path(start.folder)
    origin = json.loads((folder / ORIGIN).read_text())
    sizes = json.loads((folder / "teacher.json").read_text())
    if reason := _unfit(origin, sizes, data, config):
        return Warm("", f"the weights of model {start.model_id} do not fit: {reason}")
    ids = parquet.read_table(folder / "items.parquet")["item_id"].to_pylist()
    return Warm(
        start.model_id,
        start.why,
        folder,
        own_encoder=origin["encoder"]["own"],
        rows={item: row for row, item in enumerate(ids)},
        side=tuple(origin["side"]),
    )


def _unfit(origin: dict[str, Any], sizes: dict[str, Any], data: Examples, config: FinetuneConfig) -> str:
    """Why weights are no place to begin, in words; empty where they are one."""
    for name in SIZES:
        if sizes[name] != getattr(config, name):
            return f"{name} is {getattr(config, name)} here and {sizes[name]} there"
    here = _encoder(config)
    for name, found in here.items():
        if origin["encoder"][name] != found:
            return f"another encoder ({name}: {found or 'none'} here, {origin['encoder'][name] or 'none'} there)"
    for name, found in _of(data).items():
        if name in ("features", "split") and origin[name] != found:
            return f"its {name} are other ones" if name == "features" else "its data were split in another way"
        if name in ("train_end", "data_end") and found and origin[name] and _time(origin[name]) > _time(found):
            return f"it learnt from later data ({origin[name]}, here {found}): what it is tested on, it would know"
    return ""


def origin(features: Path, data: Examples, config: FinetuneConfig, warm: Warm, start: Start | None) -> dict[str, Any]:
    """What a teacher is told to have come from (origin.json)."""
    own = config.encoder in encoders.FRESH or config.train_encoder or bool(config.adapt_steps) or warm.own_encoder
    return {
        "encoder": {**_encoder(config), "own": own},
        "side": side_names(features, data),
        **_of(data),
        "offered": start.model_id if start else "",
        "began_from": warm.model_id,
    }


def side_names(features: Path, data: Examples) -> list[str]:
    """[S] what each column of side information is about, in its order: the same column of other data has its name.

    Where the two do not go together (another layout than is known here) the names are of no use, and there are none.
    """
    import pyarrow.parquet as parquet
    import pyarrow.types as types

    items = parquet.read_table(features / "items.parquet")
    names = [f"category={name}" for name in data.vocabulary] + ["price"]
    names += [f"language={value}" for value in _choices(items["language"].to_pylist())]
    for field in items.schema:
        column = items[field.name].to_pylist() if field.name not in ITEMS.names else []
        if field.name in ITEMS.names:
            continue
        if types.is_floating(field.type):
            names.append(field.name)
        elif types.is_list(field.type) and types.is_floating(field.type.value_type):
            names += [f"{field.name}[{place}]" for place in range(max((len(row) for row in column if row), default=0))]
        elif types.is_string(field.type):
            names += [f"{field.name}={value}" for value in _choices(column)]
    return names if len(names) == data.side_IS.shape[1] else []


def _choices(values: list[str | None]) -> list[str]:
    """The values of a text column that are columns of side information (rankline/train/examples.py)."""
    counted = Counter(value for value in values if value)
    frequent = sorted(counted, key=lambda value: (-counted[value], value))[:MOST_CHOICES]
    return frequent if len(frequent) > 1 else []


def write_items(path: Path, data: Examples) -> None:
    """The ids of the items, in the order of their own vectors."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    schema = pa.schema([ITEMS.field("item_id")])
    parquet.write_table(pa.table({"item_id": data.item_ids}, schema=schema), path)


def _encoder(config: FinetuneConfig) -> dict[str, str]:
    source = encoders.digest_of(config.encoder) or config.encoder_sha256 or config.encoder
    return {"source": source, "pooling": config.pooling}


def _of(data: Examples) -> dict[str, Any]:
    from rankline.features import transforms

    told = data.summary
    return {
        "data_digest": told["data_digest"],
        "train_end": told.get("train_end", ""),
        "data_end": told.get("data_end", ""),
        "split": {name: value for name, value in told.get("split", {}).items() if not isinstance(value, dict | list)},
        "features": [
            told.get("service", ""),
            *transforms.USER,
            *transforms.ITEM,
            *transforms.CROSS,
            *transforms.CONTEXT,
        ],
    }


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()

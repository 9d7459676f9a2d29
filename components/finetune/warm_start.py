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
from rankline.train.champion_weights import ORIGIN, WarmStart

if TYPE_CHECKING:
    from rankline.model.networks import CrossEncoder, Teacher
    from rankline.train.examples import Examples

SIZES = ("vector_size", "max_history", "layers", "heads")
MAX_CHOICES = 50  # as many values of a text column are side information
# what is the data's own, and never comes from another model
DATA_BUFFERS = ("fusion.known_I",)


@dataclass(frozen=True)
class WarmWeights:
    """What there is to begin with, and what of it fits; without a folder, nothing, and ``why`` says why."""

    model_id: str
    why: str
    folder: Path | None = None
    own_encoder: bool = False  # it brings the encoder along
    rows: Mapping[str, int] | None = None  # item id -> its row there
    side: tuple[str, ...] = ()

    def has_member(self, member: int) -> bool:
        """Whether there are weights for this one of several teachers."""
        return self._weights_path(member) is not None

    def _weights_path(self, member: int) -> Path | None:
        path = self.folder / f"weights{f'-{member}' if member else ''}.safetensors" if self.folder else None
        return path if path is not None and path.is_file() and self.rows is not None else None

    def load_weights(self, model: Teacher, data: Examples, names: list[str], *, member: int = 0) -> int:
        """Put its weights into a fresh teacher; how many items were found again."""
        import torch
        from safetensors.torch import load_file

        path = self._weights_path(member)
        if path is None or self.rows is None:
            return 0
        current, source = model.state_dict(), load_file(path)
        merged = {
            name: value for name, value in source.items()
            if name in current and current[name].shape == value.shape and name not in DATA_BUFFERS
        }  # fmt: skip
        pairs = [(row, self.rows[item]) for row, item in enumerate(data.item_ids) if item in self.rows]
        rows_N, source_rows_N = (torch.tensor([pair[side] for pair in pairs], dtype=torch.long) for side in (0, 1))
        merged["fusion.own.weight"] = current["fusion.own.weight"].index_copy(
            0, rows_N, source["fusion.own.weight"][source_rows_N].to(current["fusion.own.weight"])
        )
        columns = {name: column for column, name in enumerate(self.side)}
        side_DS = current["fusion.side.weight"].clone()
        for column, name in enumerate(names):
            if name in columns:
                side_DS[:, column] = source["fusion.side.weight"][:, columns[name]]
        merged["fusion.side.weight"] = side_DS
        # the networks were fitted to features of that scale; one that never moved there has no scale
        scaled_F = source["standardize.scale_F"] > 0
        for name in ("standardize.mean_F", "standardize.scale_F"):
            merged[name] = torch.where(scaled_F, source[name], current[name])
        model.load_state_dict({**current, **merged})
        return len(pairs)

    def load_cross_encoder(self, model: CrossEncoder) -> bool:
        """Put its cross-encoder into a fresh one; whether it fits."""
        from safetensors.torch import load_file

        path = self.folder / "pairs.safetensors" if self.folder else None
        if path is None or not path.is_file():
            return False
        current, source = model.state_dict(), load_file(path)
        if {name: value.shape for name, value in current.items()} != {
            name: value.shape for name, value in source.items()
        }:
            return False
        model.load_state_dict(source)
        return True


NO_WEIGHTS = WarmWeights("", "")


def open_weights(start: WarmStart | None, data: Examples, config: FinetuneConfig) -> WarmWeights:
    """What of a start fits this data and these settings."""
    if start is None or not start.model_id:
        return WarmWeights("", start.why if start else "")
    import pyarrow.parquet as parquet

    folder = Path(start.folder)
    origin = json.loads((folder / ORIGIN).read_text())
    sizes = json.loads((folder / "teacher.json").read_text())
    if reason := _mismatch(origin, sizes, data, config):
        return WarmWeights("", f"the weights of model {start.model_id} do not fit: {reason}")
    ids = parquet.read_table(folder / "items.parquet")["item_id"].to_pylist()
    return WarmWeights(
        start.model_id,
        start.why,
        folder,
        own_encoder=origin["encoder"]["own"],
        rows={item: row for row, item in enumerate(ids)},
        side=tuple(origin["side"]),
    )


def _mismatch(origin: dict[str, Any], sizes: dict[str, Any], data: Examples, config: FinetuneConfig) -> str:
    """Why weights are no place to begin, in words; empty where they are one."""
    for name in SIZES:
        if sizes[name] != getattr(config, name):
            return f"{name} is {getattr(config, name)} here and {sizes[name]} there"
    encoder = _encoder_metadata(config)
    for name, value in encoder.items():
        if origin["encoder"][name] != value:
            return f"another encoder ({name}: {value or 'none'} here, {origin['encoder'][name] or 'none'} there)"
    for name, value in _data_metadata(data).items():
        if name in ("features", "split") and origin[name] != value:
            return f"its {name} are other ones" if name == "features" else "its data were split in another way"
        if (
            name in ("train_end", "data_end")
            and value
            and origin[name]
            and _timestamp(origin[name]) > _timestamp(value)
        ):
            return f"it learnt from later data ({origin[name]}, here {value}): what it is tested on, it would know"
    return ""


def origin_metadata(
    features: Path, data: Examples, config: FinetuneConfig, warm: WarmWeights, start: WarmStart | None
) -> dict[str, Any]:
    """What a teacher is told to have come from (origin.json)."""
    own = config.encoder in encoders.FRESH or config.train_encoder or bool(config.adapt_steps) or warm.own_encoder
    return {
        "encoder": {**_encoder_metadata(config), "own": own},
        "side": side_names(features, data),
        **_data_metadata(data),
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
    names += [f"language={value}" for value in _frequent_values(items["language"].to_pylist())]
    for field in items.schema:
        column = items[field.name].to_pylist() if field.name not in ITEMS.names else []
        if field.name in ITEMS.names:
            continue
        if types.is_floating(field.type):
            names.append(field.name)
        elif types.is_list(field.type) and types.is_floating(field.type.value_type):
            names += [f"{field.name}[{place}]" for place in range(max((len(row) for row in column if row), default=0))]
        elif types.is_string(field.type):
            names += [f"{field.name}={value}" for value in _frequent_values(column)]
    return names if len(names) == data.side_IS.shape[1] else []


def _frequent_values(values: list[str | None]) -> list[str]:
    """The values of a text column that are columns of side information (rankline/train/examples.py)."""
    counted = Counter(value for value in values if value)
    frequent = sorted(counted, key=lambda value: (-counted[value], value))[:MAX_CHOICES]
    return frequent if len(frequent) > 1 else []


def write_items(path: Path, data: Examples) -> None:
    """The ids of the items, in the order of their own vectors."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    schema = pa.schema([ITEMS.field("item_id")])
    parquet.write_table(pa.table({"item_id": data.item_ids}, schema=schema), path)


def _encoder_metadata(config: FinetuneConfig) -> dict[str, str]:
    source = encoders.encoder_digest(config.encoder) or config.encoder_sha256 or config.encoder
    return {"source": source, "pooling": config.pooling}


def _data_metadata(data: Examples) -> dict[str, Any]:
    from rankline.features import transforms

    summary = data.summary
    return {
        "data_digest": summary["data_digest"],
        "train_end": summary.get("train_end", ""),
        "data_end": summary.get("data_end", ""),
        "split": {
            name: value for name, value in summary.get("split", {}).items() if not isinstance(value, dict | list)
        },
        "features": [
            summary.get("service", ""),
            *transforms.USER,
            *transforms.ITEM,
            *transforms.CROSS,
            *transforms.CONTEXT,
        ],
    }


def _timestamp(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()

"""What a model's networks learnt, kept beside its bundle, for the next model to begin with.

    weights/<model id>/weights.json    what they are, of which data, what they began with, the digests of the files
                       origin.json  teacher.json  items.parquet
                       weights.safetensors…  pairs.safetensors
                       encoder/        where it is not the recipe's own any more

A bundle holds graphs to be served and nothing to be trained; this is the other half. It is kept exactly as long.

``models`` is the model repository, a `ModelRegistry`. It is not imported here: training reads this module, and its kept
work must not hang on the repository's code.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankline.errors import IntegrityError
from rankline.io import digest
from rankline.runtime import ledger

WEIGHTS = "weights.json"
ORIGIN = "origin.json"
SCRATCH = "scratch"
LINEAGE_KEY = "champion's weights"  # what they are called among the things that decide whether work is done again


@dataclass(frozen=True)
class WarmStart:
    """What training may begin with: the weights of a model, or nothing (and why)."""

    model_id: str = ""
    digest: str = ""  # of its weights: it is part of what decides the outcome
    why: str = ""
    folder: str = ""  # where they lie on this machine, once they are needed

    def fetched(self, registry: Any, workspace: Path) -> WarmStart:
        """The same with its files at hand, verified.

        Raises:
            IntegrityError: a byte of them changed.
        """
        if not self.model_id:
            return self
        download_folder = workspace / "fetched" / f"{self.model_id}.weights"
        return dataclasses.replace(self, folder=str(_local_folder(registry, self.model_id, download_folder)))


def select_warm_start(registry: Any, champion: str, data_digest: str) -> WarmStart:
    """What a model of this data begins with beside this champion.

    A champion of the very same data is no place to begin: it would learn them twice, and a run that is repeated would
    never come to its end. There a model begins with what that champion was offered.

    Raises:
        IntegrityError: what is told of the weights cannot be read.
    """
    if not champion:
        return WarmStart(why="there is no champion yet")
    metadata = read_metadata(registry, champion)
    if not metadata:
        return WarmStart(why=f"the weights of champion {champion} are not kept")
    if metadata["data_digest"] != data_digest:
        return WarmStart(champion, _weights_digest(metadata))
    offered = metadata["offered"]
    if not offered:
        return WarmStart(why=f"champion {champion} is of the same data, and began from scratch")
    metadata = read_metadata(registry, offered)
    if not metadata:
        return WarmStart(why=f"champion {champion} is of the same data, and what it began with is not kept any more")
    return WarmStart(offered, _weights_digest(metadata), f"champion {champion} is of the same data and began with it")


def read_metadata(registry: Any, model_id: str) -> dict[str, Any]:
    """What is told of a model's weights (weights.json); empty where none are kept.

    Raises:
        IntegrityError: it cannot be read.
    """
    try:
        metadata: dict[str, Any] = json.loads(registry._read(f"weights/{model_id}/{WEIGHTS}"))
        return metadata
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise IntegrityError(
            "what is told of a model's weights cannot be read",
            expected=f"{WEIGHTS} as it was written",
            found=str(error),
            where=registry._path(f"weights/{model_id}"),
            hint="bring it back from a copy of the repository, or set finetune.warm_start=false",
        ) from error


def _local_folder(registry: Any, model_id: str, download_folder: Path) -> Path:
    """The folder of a model's weights, verified; those in a bucket are first fetched to ``into``."""
    files: dict[str, str] = read_metadata(registry, model_id)["files"]
    place = registry._path(f"weights/{model_id}")
    folder = Path(place) if registry.local else download_folder
    for name in () if registry.local else files:
        (download_folder / name).parent.mkdir(parents=True, exist_ok=True)
        registry.fs.get_file(f"{place}/{name}", str(download_folder / name))
    digest.verify(folder, files, hint="bring it back from a copy, or set finetune.warm_start=false")
    return folder


def _weights_digest(metadata: dict[str, Any]) -> str:
    return digest.json_digest(metadata["files"])


def save_weights(registry: Any, model_id: str, teacher: Path) -> None:
    """Keep a teacher's weights for the models that come after it; where they are kept already, nothing happens."""
    if not (teacher / ORIGIN).is_file() or read_metadata(registry, model_id):
        return  # a teacher of an earlier version, or kept already
    origin = json.loads((teacher / ORIGIN).read_text())
    with tempfile.TemporaryDirectory(prefix="rankline-") as scratch:
        folder = Path(scratch)
        for name in weight_files(teacher, encoder=origin["encoder"]["own"]):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(teacher / name, folder / name)
        ledger.write_json(folder / WEIGHTS, {**origin, "files": digest.file_digests(folder)})
        files = json.loads((folder / WEIGHTS).read_text())["files"]
        registry._put_files(folder, f"weights/{model_id}", [*files, WEIGHTS])  # its own list last: it makes them exist


def weight_files(teacher: Path, *, encoder: bool) -> list[str]:
    """The files of a teacher that the next one needs to begin with it."""
    names = [ORIGIN, "teacher.json", "items.parquet"]
    names += sorted(path.name for path in teacher.glob("weights*.safetensors"))
    names += ["pairs.safetensors"] if (teacher / "pairs.safetensors").is_file() else []
    return names + ([f"encoder/{path.name}" for path in sorted((teacher / "encoder").iterdir())] if encoder else [])


def warm_start_source(teacher: Path) -> str:
    """The model that a teacher began with; `scratch` where it began with none, empty where that is not said."""
    try:
        return str(json.loads((teacher / ORIGIN).read_text())["began_from"] or SCRATCH)
    except (OSError, ValueError, KeyError):
        return ""

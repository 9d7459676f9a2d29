"""The weights of a model, stored beside its bundle, for the warm start of the next model.

    weights/<model id>/weights.json    their data, what they started from, and the digests of the files
                       origin.json  teacher.json  items.parquet
                       weights.safetensors…  pairs.safetensors
                       encoder/        where it is no longer the recipe's own

A bundle holds graphs for serving; the weights are what training needs. They are deleted together with the bundle.

``registry`` is a `ModelRegistry`. It is not imported here: the training steps import this module, and their code
digests must not depend on the registry's code.
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
from rankline.io.files import write_json

WEIGHTS = "weights.json"
ORIGIN = "origin.json"
SCRATCH = "scratch"
LINEAGE_KEY = "champion's weights"  # their name in the lineage of the finetune step


@dataclass(frozen=True)
class WarmStart:
    """The weights of a model to start from, or none and the reason."""

    model_id: str = ""
    digest: str = ""  # of its weights; part of the cache key
    why: str = ""
    folder: str = ""  # on this machine, once they are downloaded

    def fetched(self, registry: Any, workspace: Path) -> WarmStart:
        """The same start with its files on this machine, verified.

        Raises:
            IntegrityError: a file has changed.
        """
        if not self.model_id:
            return self
        download_folder = workspace / "fetched" / f"{self.model_id}.weights"
        return dataclasses.replace(self, folder=str(_local_folder(registry, self.model_id, download_folder)))


def select_warm_start(registry: Any, champion: str, data_digest: str) -> WarmStart:
    """The weights that a model of this data starts from.

    A champion of the same data is not used: the model would see its data twice, and a repeated run would never hit
    the cache. Such a model starts from what that champion was offered.

    Raises:
        IntegrityError: weights.json cannot be read.
    """
    if not champion:
        return WarmStart(why="there is no champion yet")
    metadata = read_metadata(registry, champion)
    if not metadata:
        return WarmStart(why=f"the weights of champion {champion} are not stored")
    if metadata["data_digest"] != data_digest:
        return WarmStart(champion, _weights_digest(metadata))
    offered = metadata["offered"]
    if not offered:
        return WarmStart(why=f"champion {champion} has the same data and started from scratch")
    metadata = read_metadata(registry, offered)
    if not metadata:
        return WarmStart(
            why=f"champion {champion} has the same data, and the weights it started from are no longer stored"
        )
    return WarmStart(offered, _weights_digest(metadata), f"champion {champion} has the same data and started from it")


def read_metadata(registry: Any, model_id: str) -> dict[str, Any]:
    """The content of a model's weights.json; empty where its weights are not stored.

    Raises:
        IntegrityError: the file cannot be read.
    """
    try:
        metadata: dict[str, Any] = json.loads(registry._read(f"weights/{model_id}/{WEIGHTS}"))
        return metadata
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise IntegrityError(
            "the metadata of a model's weights cannot be read",
            expected=f"{WEIGHTS} as it was written",
            found=str(error),
            where=registry._path(f"weights/{model_id}"),
            hint="restore it from a copy of the registry, or set finetune.warm_start=false",
        ) from error


def _local_folder(registry: Any, model_id: str, download_folder: Path) -> Path:
    """The verified folder of a model's weights; those in a bucket are downloaded first."""
    files: dict[str, str] = read_metadata(registry, model_id)["files"]
    place = registry._path(f"weights/{model_id}")
    folder = Path(place) if registry.local else download_folder
    for name in () if registry.local else files:
        (download_folder / name).parent.mkdir(parents=True, exist_ok=True)
        registry.fs.get_file(f"{place}/{name}", str(download_folder / name))
    digest.verify(folder, files, hint="restore it from a copy, or set finetune.warm_start=false")
    return folder


def _weights_digest(metadata: dict[str, Any]) -> str:
    return digest.json_digest(metadata["files"])


def save_weights(registry: Any, model_id: str, teacher: Path) -> None:
    """Store a teacher's weights for later models; does nothing where they are stored already."""
    if not (teacher / ORIGIN).is_file() or read_metadata(registry, model_id):
        return  # a teacher of an earlier version, or stored already
    origin = json.loads((teacher / ORIGIN).read_text())
    with tempfile.TemporaryDirectory(prefix="rankline-") as scratch:
        folder = Path(scratch)
        for name in weight_files(teacher, encoder=origin["encoder"]["own"]):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(teacher / name, folder / name)
        write_json(folder / WEIGHTS, {**origin, "files": digest.file_digests(folder)})
        files = json.loads((folder / WEIGHTS).read_text())["files"]
        registry._put_files(
            folder, f"weights/{model_id}", [*files, WEIGHTS]
        )  # the list of files comes last: it publishes them


def weight_files(teacher: Path, *, encoder: bool) -> list[str]:
    """The files of a teacher that a warm start needs."""
    names = [ORIGIN, "teacher.json", "items.parquet"]
    names += sorted(path.name for path in teacher.glob("weights*.safetensors"))
    names += ["pairs.safetensors"] if (teacher / "pairs.safetensors").is_file() else []
    return names + ([f"encoder/{path.name}" for path in sorted((teacher / "encoder").iterdir())] if encoder else [])


def warm_start_source(teacher: Path) -> str:
    """The model that a teacher started from: `scratch` for none, empty where it is unknown."""
    try:
        return str(json.loads((teacher / ORIGIN).read_text())["began_from"] or SCRATCH)
    except (OSError, ValueError, KeyError):
        return ""

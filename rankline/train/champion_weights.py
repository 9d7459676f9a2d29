"""What a model's networks learnt, kept beside its bundle, for the next model to begin with.

    weights/<model id>/weights.json    what they are, of which data, what they began with, the digests of the files
                       origin.json  teacher.json  items.parquet
                       weights.safetensors…  pairs.safetensors
                       encoder/        where it is not the recipe's own any more

A bundle holds graphs to be served and nothing to be trained; this is the other half. It is kept exactly as long.

``models`` is the model repository, a `Repository`. It is not imported here: training reads this module, and its kept
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
LINEAGE = "champion's weights"  # what they are called among the things that decide whether work is done again


@dataclass(frozen=True)
class Start:
    """What training may begin with: the weights of a model, or nothing (and why)."""

    model_id: str = ""
    digest: str = ""  # of its weights: it is part of what decides the outcome
    why: str = ""
    folder: str = ""  # where they lie on this machine, once they are needed

    def fetched(self, models: Any, workspace: Path) -> Start:
        """The same with its files at hand, verified.

        Raises:
            IntegrityError: a byte of them changed.
        """
        if not self.model_id:
            return self
        into = workspace / "fetched" / f"{self.model_id}.weights"
        return dataclasses.replace(self, folder=str(_laid(models, self.model_id, into)))


def start(models: Any, champion: str, data_digest: str) -> Start:
    """What a model of this data begins with beside this champion.

    A champion of the very same data is no place to begin: it would learn them twice, and a run that is repeated would
    never come to its end. There a model begins with what that champion was offered.

    Raises:
        IntegrityError: what is told of the weights cannot be read.
    """
    if not champion:
        return Start(why="there is no champion yet")
    told = told_of(models, champion)
    if not told:
        return Start(why=f"the weights of champion {champion} are not kept")
    if told["data_digest"] != data_digest:
        return Start(champion, _identity(told))
    before = told["offered"]
    if not before:
        return Start(why=f"champion {champion} is of the same data, and began from scratch")
    told = told_of(models, before)
    if not told:
        return Start(why=f"champion {champion} is of the same data, and what it began with is not kept any more")
    return Start(before, _identity(told), f"champion {champion} is of the same data and began with it")


def told_of(models: Any, model_id: str) -> dict[str, Any]:
    """What is told of a model's weights (weights.json); empty where none are kept.

    Raises:
        IntegrityError: it cannot be read.
    """
    try:
        told: dict[str, Any] = json.loads(models._read(f"weights/{model_id}/{WEIGHTS}"))
        return told
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise IntegrityError(
            "what is told of a model's weights cannot be read",
            expected=f"{WEIGHTS} as it was written",
            found=str(error),
            where=models._path(f"weights/{model_id}"),
            hint="bring it back from a copy of the repository, or set finetune.warm_start=false",
        ) from error


def _laid(models: Any, model_id: str, into: Path) -> Path:
    """The folder of a model's weights, verified; those in a bucket are first fetched to ``into``."""
    files: dict[str, str] = told_of(models, model_id)["files"]
    place = models._path(f"weights/{model_id}")
    folder = Path(place) if models.local else into
    for name in () if models.local else files:
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        models.fs.get_file(f"{place}/{name}", str(into / name))
    digest.verify(folder, files, hint="bring it back from a copy, or set finetune.warm_start=false")
    return folder


def _identity(told: dict[str, Any]) -> str:
    return digest.of_value(told["files"])


def keep(models: Any, model_id: str, teacher: Path) -> None:
    """Keep a teacher's weights for the models that come after it; where they are kept already, nothing happens."""
    if not (teacher / ORIGIN).is_file() or told_of(models, model_id):
        return  # a teacher of an earlier version, or kept already
    origin = json.loads((teacher / ORIGIN).read_text())
    with tempfile.TemporaryDirectory(prefix="rankline-") as told:
        folder = Path(told)
        for name in files_of(teacher, encoder=origin["encoder"]["own"]):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(teacher / name, folder / name)
        ledger.write_json(folder / WEIGHTS, {**origin, "files": digest.of_files(folder)})
        files = json.loads((folder / WEIGHTS).read_text())["files"]
        models._place(folder, f"weights/{model_id}", [*files, WEIGHTS])  # its own list last: it makes them exist


def files_of(teacher: Path, *, encoder: bool) -> list[str]:
    """The files of a teacher that the next one needs to begin with it."""
    names = [ORIGIN, "teacher.json", "items.parquet"]
    names += sorted(path.name for path in teacher.glob("weights*.safetensors"))
    names += ["pairs.safetensors"] if (teacher / "pairs.safetensors").is_file() else []
    return names + ([f"encoder/{path.name}" for path in sorted((teacher / "encoder").iterdir())] if encoder else [])


def began_from(teacher: Path) -> str:
    """The model that a teacher began with; `scratch` where it began with none, empty where that is not said."""
    try:
        return str(json.loads((teacher / ORIGIN).read_text())["began_from"] or SCRATCH)
    except (OSError, ValueError, KeyError):
        return ""

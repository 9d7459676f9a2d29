"""Checkpoints of training: a killed run resumes from its last finished epoch and ends as if it had not been killed."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rankline.errors import TrainingError
from rankline.io import digest
from rankline.io.files import first_line, write_by_digest

FORMAT = 2  # a checkpoint of another format is ignored


class Checkpoints:
    """The last finished epoch of one training, in a folder; without a folder nothing is saved."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def save(self, state: dict[str, Any], rng: np.random.Generator) -> None:
        """Save ``state`` and the state of the random generators; a reader sees the old file or the new one.

        Raises:
            TrainingError: the disk is full; the checkpoint before is still there.
        """
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        generators = {"numpy": rng.bit_generator.state, "torch": torch.get_rng_state()}
        if torch.cuda.is_available():
            generators["cuda"] = torch.cuda.get_rng_state_all()
        checkpoint = {**state, **generators, "format": FORMAT}
        try:
            # the digest is the name because torch loads a flipped byte without an error
            saved = write_by_digest(self.folder, ".pt", lambda partial: torch.save(checkpoint, partial))
        except (OSError, RuntimeError) as error:  # torch raises a RuntimeError of its own for a full disk
            raise TrainingError(
                "a checkpoint could not be written",
                expected="enough free space for the new checkpoint beside the last one",
                found=f"{first_line(error)} ({_free_space(self.folder)})",
                where=str(self.folder),
                hint="free some disk space and run again: training resumes from the last checkpoint",
            ) from error
        for older in self._files():
            if older != saved:
                older.unlink(missing_ok=True)

    def load(self, rng: np.random.Generator) -> dict[str, Any] | None:
        """The newest intact checkpoint, with the random generators set to its state; None where there is none."""
        for path in self._files():
            state = _load_if_intact(path)
            if state is None:  # a damaged checkpoint costs its epochs, not the run
                path.unlink(missing_ok=True)
                continue
            rng.bit_generator.state = state["numpy"]
            torch.set_rng_state(state["torch"])
            if "cuda" in state and torch.cuda.is_available():
                torch.cuda.set_rng_state_all(state["cuda"])
            return state
        return None

    def clear(self) -> None:
        """Delete the checkpoint once its step has finished."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self) -> list[Path]:
        """The checkpoints, newest first; a run killed between writing and deleting leaves two."""
        paths = self.folder.glob("*.pt") if self.folder is not None else ()
        return sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def _load_if_intact(path: Path) -> dict[str, Any] | None:
    """A checkpoint's content; None where its bytes changed, torch cannot read it, or it has another format."""
    if digest.file_digest(path) != path.stem:
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception:  # pickle's own errors share no base class
        return None
    return state if state.get("format") == FORMAT else None


def _free_space(folder: Path) -> str:
    with contextlib.suppress(OSError):
        return f"{shutil.disk_usage(folder).free / 1e6:.0f} MB free"
    return "the disk is gone"

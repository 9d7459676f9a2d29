"""The model repository: every candidate ever made, why each was believed, and which one serves.

    bundles/<model id>/…   immutable: a model is put there once, under the id that its bytes give it
    evidence/<digest>/…    immutable: evaluations and verdicts
    events/<n>.json        append-only, numbered from 1 without a gap
    champion.json          what the events add up to; derived, for the server to poll

Creating ``events/<n>.json`` exclusively is the commit: two writers cannot both make number n, so whoever
comes second reads what the first one did and decides again. Everything else may be lost half-way and
nobody will have seen it. A folder or a bucket serves alike (any fsspec URL that can create exclusively).

What was learnt lies beside it (rankline/weights.py), and models leave by an event, too (rankline/leaving.py).
"""

from __future__ import annotations

import inspect
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import fsspec
from pydantic import Field, ValidationError

from rankline import digest, leaving, storage
from rankline.bundle import CATALOGUE, MANIFEST, REVISION, Bundle, open_bundle
from rankline.contracts import Frozen, Manifest
from rankline.errors import IntegrityError, RepositoryError, StaleEvidence, StorageError
from rankline.reuse import SUMS

Kind = Literal[
    "registered",
    "evaluated",
    "pending",
    "approved",
    "rejected",
    "promoted",
    "rolled_back",
    "catalogue_published",
    "removed",
]
# the kinds after which another model serves
CROWNING = ("promoted", "rolled_back")

_STALE_PARTIAL_S = 86_400


class Event(Frozen):
    """One thing that happened to a model; never changed once written."""

    n: int = Field(ge=1)
    kind: Kind
    model_id: str
    at: str = Field(description="ISO time, UTC")
    who: str
    why: str
    run_id: str = ""
    digests: dict[str, str] = Field(default={}, description="what it stands on: manifest, evidence, verdict…")
    details: dict[str, Any] = Field(default={}, description="the numbers behind it")
    champion_before: str = Field(default="", description="who served when it was written; empty for nobody")


class Champion(Frozen):
    """The model that serves, and the event that made it so."""

    model_id: str
    run_id: str
    at: str
    event: int = Field(description="the number of the event that made it champion")
    read_to: int = Field(description="the number of the last event this was drawn from")


class Repository:
    """One model repository. Reading needs no lock, and writing none but the number of the next event."""

    def __init__(self, url: str | Path, *, mends: bool = True) -> None:
        """``mends`` is whether champion.json is written anew where it is found behind the events."""
        self.mends = mends
        self.fs, self.root = storage.place(str(url))
        self.local = storage.is_local(self.fs)
        self._events: list[Event] = []

    # -- bundles -------------------------------------------------------------------------------------------

    def add(self, folder: Path) -> Bundle:
        """Put a bundle into the repository; where it already lies, nothing happens.

        Raises:
            IntegrityError: a byte of it is not what its digests promise.
            RepositoryError: the same model lies there with another catalogue.
        """
        bundle = open_bundle(folder)
        place, claim = f"bundles/{bundle.model_id}", f"bundles/{bundle.model_id}/{CATALOGUE}/{REVISION}"
        told = (folder / CATALOGUE / REVISION).read_bytes()
        # the manifest goes last: in a bucket, where folders cannot be renamed, it makes the bundle exist
        names = [
            *bundle.manifest.files,
            *(f"{CATALOGUE}/{name}" for name in json.loads(told)["files"]),
            f"{CATALOGUE}/{REVISION}",
            MANIFEST,
        ]
        # and there the catalogue's list goes first: once it is made, every name but the manifest's can only get the
        # same bytes, whoever else puts them
        if self.local or self._create(claim, told) or self._read(claim) == told:
            self._place(folder, place, names)
        # the files are the model; what else a manifest says (parity, digests of code) may differ between two
        # makings of the same files, and the first one's stays
        if self._read(claim) != told:
            raise RepositoryError(
                f"model {bundle.model_id} is already in the repository with another catalogue",
                expected="the same catalogue for the same model",
                found="a bundle that differs in what lies beside the model's own files",
                where=self._path(place),
                hint="export it again with the settings and data of its first time, or train anew",
            )
        return bundle

    def manifest(self, model_id: str) -> Manifest:
        """What a model of this repository says of itself.

        Raises:
            RepositoryError: it is not here.
        """
        try:
            told = self._read(f"bundles/{model_id}/{MANIFEST}")
        except FileNotFoundError as error:
            raise leaving.absent(self, model_id) from error
        return Manifest.model_validate_json(told)

    def bundle(self, model_id: str, *, into: Path | None = None) -> Bundle:
        """A bundle of this repository, verified; one in a bucket is first fetched to ``into/<model id>``.

        Raises:
            RepositoryError: it is not here, or it is in a bucket and ``into`` was not given.
            IntegrityError: a byte of it changed since it was registered.
        """
        place = f"bundles/{model_id}"
        if not self.fs.exists(self._path(f"{place}/{MANIFEST}")):
            raise leaving.absent(self, model_id)
        if self.local:
            folder = Path(self._path(place))
        elif into is None:
            raise RepositoryError(
                "a bundle in a bucket has to be fetched before it is read",
                where=self._path(place),
                hint="say where to: bundle(model_id, into=…)",
            )
        else:
            folder = into / model_id
            self.fs.get(self._path(place) + "/", str(folder) + "/", recursive=True)
        bundle = open_bundle(folder)
        if bundle.model_id != model_id:
            raise IntegrityError(
                "a bundle does not have the id it is kept under",
                expected=model_id,
                found=bundle.model_id,
                where=str(folder),
                hint="put the bundle into the repository again, or roll back to another",
            )
        self._same_as_registered(bundle)
        return bundle

    def _same_as_registered(self, bundle: Bundle) -> None:
        """The manifest and the catalogue are not part of the model id: the register vouches for them."""
        for event in self.history():
            if event.kind == "registered" and event.model_id == bundle.model_id:
                now = _digests(bundle)
                promised = {name: event.digests[name] for name in now if name in event.digests}
                if promised != {name: now[name] for name in promised}:
                    raise IntegrityError(
                        "a bundle changed since it was registered",
                        expected=str(promised),
                        found=str(now),
                        where=str(bundle.folder),
                        hint="put the bundle into the repository again, or roll back to another",
                    )

    # -- evidence ------------------------------------------------------------------------------------------

    def add_evidence(self, folder: Path) -> str:
        """Keep a folder of evidence; the digest it is kept under. The door's own list is no part of it."""
        files = {name: sha256 for name, sha256 in digest.of_files(folder).items() if name != SUMS}
        name = digest.of_value(files)
        self._place(folder, f"evidence/{name}", list(files))
        return name

    def evidence(self, name: str) -> str:
        """Where the evidence of a digest lies (a path or URL of this repository's file system)."""
        return self._path(f"evidence/{name}")

    # -- events --------------------------------------------------------------------------------------------

    def history(self) -> list[Event]:
        """Every event, oldest first.

        Raises:
            IntegrityError: an event is missing or cannot be read.
        """
        self.fs.invalidate_cache()
        known = list(self._events)  # events do not change: only new ones are read
        known += [self._event(n) for n in range(len(known) + 1, max(self._numbers(), default=0) + 1)]
        self._events = known
        return list(known)

    def append(
        self,
        kind: Kind,
        model_id: str,
        *,
        who: str,
        why: str,
        run_id: str = "",
        digests: dict[str, str] | None = None,
        details: dict[str, Any] | None = None,
        expected_champion: str | None = None,
    ) -> Event:
        """Write the next event; ``expected_champion`` served when its evidence was made (empty: nobody).

        Raises:
            StaleEvidence: somebody else serves by now.
            IntegrityError: a model is to serve that is not what was registered.
            RepositoryError: a model is to serve that is not here, or the place cannot be written.
        """
        digests = dict(digests or {})
        if kind == "registered" or kind in CROWNING:
            with tempfile.TemporaryDirectory(prefix="rankline-") as scratch:
                digests |= _digests(self.bundle(model_id, into=Path(scratch)))
        while True:
            history = self.history()
            leaving.refuse_removed(self, history, kind, model_id, digests)
            champion = _champion(history)
            serving = champion.model_id if champion else ""
            if expected_champion is not None and serving != expected_champion:
                raise StaleEvidence(
                    "the champion changed since this model was evaluated",
                    expected=f"champion {expected_champion or '(none)'}",
                    found=f"champion {serving or '(none)'}, since event {champion.event if champion else 0}",
                    where=self.root,
                    hint="run the flow again: the model will be evaluated beside the new champion",
                )
            event = Event(
                n=len(history) + 1,
                kind=kind,
                model_id=model_id,
                at=datetime.now(UTC).isoformat(timespec="milliseconds"),
                who=who,
                why=why,
                run_id=run_id,
                digests=digests,
                details=details or {},
                champion_before=serving,
            )
            if self._create(f"events/{event.n}.json", event.model_dump_json(indent=2).encode() + b"\n"):
                break
        self.pointer()  # repairs champion.json, which is now behind
        return event

    def champion(self) -> str:
        """The id of the model that serves; empty for none."""
        pointer = self.pointer()
        return pointer.model_id if pointer else ""

    def pointer(self) -> Champion | None:
        """Who serves, at the cost of a few small reads: champion.json where it is right, else the events."""
        self.fs.invalidate_cache()
        cached = self._cached_pointer()
        if cached is not None:
            return cached
        champion = _champion(self.history())
        if champion is not None and self.mends:
            with suppress(OSError, StorageError):  # one who may only read still gets the right answer
                self._replace("champion.json", champion.model_dump_json(indent=2).encode() + b"\n")
        return champion

    def _cached_pointer(self) -> Champion | None:
        """champion.json, unless it is missing, unreadable, behind the events, or contradicts them."""
        try:
            cached = Champion.model_validate_json(self._read("champion.json"))
            event = self._event(cached.event)
        except (FileNotFoundError, ValidationError, IntegrityError):
            return None
        told = Champion(
            model_id=event.model_id, run_id=event.run_id, at=event.at, event=event.n, read_to=cached.read_to
        )
        exists = self.fs.exists
        drawn_from_all = exists(self._path(f"events/{cached.read_to}.json")) and not exists(
            self._path(f"events/{cached.read_to + 1}.json")
        )
        return cached if event.kind in CROWNING and told == cached and drawn_from_all else None

    def _numbers(self) -> list[int]:
        try:
            names = self.fs.ls(self._path("events"), detail=False)
        except FileNotFoundError:
            return []
        stems = (name.rsplit("/", 1)[-1].removesuffix(".json") for name in names)
        return [int(stem) for stem in stems if stem.isdigit()]

    def _event(self, n: int) -> Event:
        path = f"events/{n}.json"
        try:
            event = Event.model_validate_json(self._read(path))
            if event.n == n:
                return event
            found = f"event {event.n}"
        except FileNotFoundError:
            found = "no such file"
        except ValidationError as error:
            found = str(error).splitlines()[0]
        raise IntegrityError(
            "the history of the model repository is damaged",
            expected=f"event {n}, whole",
            found=found,
            where=self._path(path),
            hint="bring the file back from a copy of the repository; events are never removed",
        )

    # -- files ---------------------------------------------------------------------------------------------

    def _path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    def _read(self, name: str) -> bytes:
        return bytes(self.fs.cat_file(self._path(name)))

    def _create(self, name: str, content: bytes) -> bool:
        """Make a file whole under a name that nobody has taken; False if somebody has."""
        path = self._path(name)
        if self.local:
            _sweep(Path(path).parent)
            try:
                with _written_beside(Path(path), content) as partial:
                    os.link(partial, path)
                _sync(Path(path).parent)
            except FileExistsError:
                return False
            except OSError as error:
                raise _cannot_write(path, error) from error
            return True
        if not _creates_exclusively(getattr(self.fs, "inner", self.fs)):
            raise RepositoryError(
                "this kind of store cannot create a file exclusively",
                expected="a local folder, memory://, or a bucket with conditional writes (s3, gcs, abfs)",
                found=type(self.fs).__name__,
                where=self.root,
                hint="keep the model repository elsewhere",
            )
        try:
            self.fs.pipe_file(path, content, mode="create")
        except FileExistsError:
            # a try whose answer got lost on the way is taken for somebody else's by the next one
            return self._read(name) == content
        except FileNotFoundError as error:
            raise _no_bucket(path) from error
        return True

    def _replace(self, name: str, content: bytes) -> None:
        """Write a file of which readers see the old or the new, never a half."""
        path = self._path(name)
        if self.local:
            with _written_beside(Path(path), content) as partial:
                os.replace(partial, path)
        else:
            self.fs.pipe_file(path, content)

    def _place(self, folder: Path, name: str, files: Iterable[str]) -> None:
        """Copy some files of a folder to where they will never change; a no-op if they are there already."""
        names = list(files)
        target = self._path(name)
        if self.fs.exists(f"{target}/{names[-1]}"):
            return
        if not self.local:
            try:
                for file in names:
                    if file == MANIFEST:
                        self._create(f"{name}/{file}", (folder / file).read_bytes())
                    else:
                        self.fs.put_file(str(folder / file), f"{target}/{file}")
            except FileNotFoundError as error:
                raise _no_bucket(target) from error
            return
        final = Path(target)
        partial = final.with_name(f".{final.name}.{uuid.uuid4().hex}")
        _sweep(final.parent)
        try:
            for file in names:
                (partial / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / file, partial / file)
                _sync(partial / file)
            try:
                os.rename(partial, final)
            except OSError:
                if not final.is_dir():  # else somebody put the same bytes there first
                    raise
            _sync(final.parent)
        except OSError as error:
            raise _cannot_write(target, error) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _champion(history: list[Event]) -> Champion | None:
    """What the events add up to."""
    crowned = [event for event in history if event.kind in CROWNING]
    if not crowned:
        return None
    last = crowned[-1]
    return Champion(model_id=last.model_id, run_id=last.run_id, at=last.at, event=last.n, read_to=history[-1].n)


def _digests(bundle: Bundle) -> dict[str, str]:
    return {"manifest": digest.of_file(bundle.folder / MANIFEST), "catalogue": bundle.revision}


def _cannot_write(path: str, error: OSError) -> RepositoryError:
    return RepositoryError(
        "the model repository cannot be written",
        expected="room, permission, and a file system with hard links",
        found=str(error),
        where=path,
        hint="free some space, or keep the repository on another disk or in a bucket",
    )


def _no_bucket(path: str) -> RepositoryError:
    return RepositoryError(
        "the model repository cannot be written",
        expected="a bucket that exists",
        found="no such bucket",
        where=path,
        hint="make the bucket, or set storage.repository to another place",
    )


@contextmanager
def _written_beside(path: Path, content: bytes) -> Iterator[Path]:
    """The content, safe on the disk under a hidden name in the same folder, gone afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with partial.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sweep(folder: Path) -> None:
    """Remove what writers that were killed more than a day ago left behind."""
    for partial in folder.glob(".*.*"):
        with suppress(OSError):  # another writer swept it, or has just finished
            if time.time() - partial.stat().st_mtime <= _STALE_PARTIAL_S:
                continue
            if partial.is_dir():
                shutil.rmtree(partial, ignore_errors=True)
            else:
                partial.unlink()


def _creates_exclusively(fs: Any) -> bool:
    """Whether a store's exclusive creation is its own: fsspec's stand-in looks first and writes later."""
    if getattr(fs, "async_impl", False):
        return "mode" in inspect.signature(fs._pipe_file).parameters
    return type(fs).pipe_file is not fsspec.AbstractFileSystem.pipe_file

"""The model repository: every candidate ever made, why each was believed, and which one serves.

    bundles/<model id>/…                immutable: a model is put there once, under the id that its bytes give it
    catalogues/<model id>/<revision>/…  immutable: later catalogues of a model, each as its bundle's catalogue/
    evidence/<digest>/…                 immutable: evaluations and verdicts
    events/<n>.json                     append-only, numbered from 1 without a gap
    champion.json                       what the events add up to; derived, for the server to poll

Creating ``events/<n>.json`` exclusively is the commit: two writers cannot both make number n, so whoever
comes second reads what the first one did and decides again. Everything else may be lost half-way and
nobody will have seen it. A folder or a bucket serves alike (any fsspec URL that can create exclusively).

What was learnt lies beside it (rankline/train/champion_weights.py), and models leave by an event, too (rankline/registry/removal.py).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rankline.contracts import Manifest
from rankline.errors import IntegrityError, RegistryError, StaleEvidence, StorageError, UsageError
from rankline.io import digest
from rankline.io.artifacts import DIGESTS_FILE
from rankline.io.blob_store import BlobStore
from rankline.model.bundle import (
    CATALOGUE,
    CATALOGUE_MANIFEST,
    MANIFEST,
    Bundle,
    catalogue_files,
    open_bundle,
    refuse_unlisted,
    revision_of,
    verify_catalogue,
)
from rankline.registry import registry_state, removal
from rankline.registry.registry_state import HIDING, PROMOTING, PUBLISHING, SHOWING, TAKEDOWNS, Champion, Event, Kind

# kind -> since when the champion may not have changed, and what to try where it has
_STALE_MESSAGES = {
    "promoted": ("this model was evaluated", "run the flow again: the model will be evaluated beside the new champion"),
    PUBLISHING: ("this catalogue was made", "refresh again: the items will be embedded with the new champion"),
    "rolled_back": ("this was asked for", "look who serves now (`rankline history`), and ask again if need be"),
}


class ModelRegistry(BlobStore):
    """One model repository. Reading needs no lock, and writing none but the number of the next event."""

    def __init__(self, url: str | Path, *, repair_cache: bool = True) -> None:
        """``mends`` is whether champion.json is written anew where it is found behind the events."""
        super().__init__(url)
        self.repair_cache = repair_cache
        self._events: dict[int, Event] = {}

    # -- bundles -------------------------------------------------------------------------------------------

    def add(self, folder: Path) -> Bundle:
        """Put a bundle into the repository; where it already lies, nothing happens.

        Raises:
            IntegrityError: a byte of it is not what its digests promise.
            RepositoryError: the same model lies there with another catalogue.
        """
        bundle = open_bundle(folder)
        bundle_path, claim = f"bundles/{bundle.model_id}", f"bundles/{bundle.model_id}/{CATALOGUE}/{CATALOGUE_MANIFEST}"
        catalogue_manifest = (folder / CATALOGUE / CATALOGUE_MANIFEST).read_bytes()
        # the manifest goes last: in a bucket, where folders cannot be renamed, it makes the bundle exist
        names = [
            *bundle.manifest.files,
            *(f"{CATALOGUE}/{name}" for name in json.loads(catalogue_manifest)["files"]),
            f"{CATALOGUE}/{CATALOGUE_MANIFEST}",
            MANIFEST,
        ]
        # and there the catalogue's list goes first: once it is made, every name but the manifest's can only get the
        # same bytes, whoever else puts them
        if self.local or self._create(claim, catalogue_manifest) or self._read(claim) == catalogue_manifest:
            self._put_files(folder, bundle_path, names, first_wins=MANIFEST)
        # the files are the model; what else a manifest says (parity, digests of code) may differ between two
        # makings of the same files, and the first one's stays
        if self._read(claim) != catalogue_manifest:
            raise RegistryError(
                f"model {bundle.model_id} is already in the repository with another catalogue",
                expected="the same catalogue for the same model",
                found="a bundle that differs in what lies beside the model's own files",
                where=self._path(bundle_path),
                hint="export it again with the settings and data of its first time, or train anew",
            )
        return bundle

    def manifest(self, model_id: str) -> Manifest:
        """What a model of this repository says of itself.

        Raises:
            RepositoryError: it is not here.
            IntegrityError: it cannot be read.
        """
        try:
            content = self._read(f"bundles/{model_id}/{MANIFEST}")
        except FileNotFoundError as error:
            raise removal.not_found_error(self, model_id) from error
        try:
            return Manifest.model_validate_json(content)
        except ValidationError as error:
            raise IntegrityError(
                "the bundle's manifest cannot be read",
                expected="manifest schema version 1",
                found=str(error).splitlines()[0],
                where=self._path(f"bundles/{model_id}/{MANIFEST}"),
                hint="put the bundle into the repository again, or roll back to another",
            ) from error

    def bundle(self, model_id: str, *, revision: str | None = None, into: Path | None = None) -> Bundle:
        """A bundle of this repository with one of its catalogues, verified.

        ``revision`` None is the catalogue last published for the model, and empty the bundle's own. One in a bucket
        is first fetched: to ``into/<model id>``, a published catalogue to ``into/<model id>.<revision>``.

        Raises:
            RepositoryError: it is not here, or it is in a bucket and ``into`` was not given.
            IntegrityError: a byte of it changed since it was registered.
        """
        manifest = self.manifest(model_id)
        if revision is None:
            revision = registry_state.revision(self.history(), model_id)
        folder = self._local_folder(f"bundles/{model_id}", into, model_id)
        if not self.local:
            self._fetch_files(f"bundles/{model_id}", folder, manifest.files, MANIFEST)
        catalogue = self._catalogue_folder(model_id, revision, into)
        own = catalogue == folder / CATALOGUE
        bundle = open_bundle(folder, catalogue=None if own else catalogue)
        if bundle.model_id != model_id:
            raise IntegrityError(
                "a bundle does not have the id it is kept under",
                expected=model_id,
                found=bundle.model_id,
                where=str(folder),
                hint="put the bundle into the repository again, or roll back to another",
            )
        self._refuse_changed_bundle(bundle)
        if not own:
            _refuse_wrong_revision(bundle.revision, revision, catalogue)
        return bundle

    def _local_folder(self, path: str, into: Path | None, name: str) -> Path:
        """The folder in which a place of this repository can be read on this machine."""
        if self.local:
            return Path(self._path(path))
        if into is None:
            raise RegistryError(
                "a bundle in a bucket has to be fetched before it is read",
                where=self._path(path),
                hint="say where to: bundle(model_id, into=…)",
            )
        return into / name

    def _refuse_changed_bundle(self, bundle: Bundle) -> None:
        """The manifest and the catalogue are not part of the model id: the register vouches for them."""
        for event in self.history():
            if event.kind == "registered" and event.model_id == bundle.model_id:
                actual = _bundle_digests(bundle)
                registered = {name: event.digests[name] for name in actual if name in event.digests}
                if not bundle.is_own_catalogue:
                    registered.pop("catalogue", None)
                if registered != {name: actual[name] for name in registered}:
                    raise IntegrityError(
                        "a bundle changed since it was registered",
                        expected=str(registered),
                        found=str(actual),
                        where=str(bundle.folder),
                        hint="put the bundle into the repository again, or roll back to another",
                    )

    # -- catalogues ----------------------------------------------------------------------------------------

    def add_catalogue(self, model_id: str, folder: Path) -> str:
        """Put a catalogue of a model into the repository, for `publish`; its revision.

        Where it already lies nothing happens, but that a file which changed there is brought back.

        Raises:
            RepositoryError: the model is not here.
            UsageError: ``folder`` is no catalogue.
            IntegrityError: a byte of it is not what its digests promise, or it lacks what the model serves.
        """
        manifest = self.manifest(model_id)
        revision = verify_catalogue(folder)
        files = catalogue_files(folder)
        refuse_unlisted(manifest, files, where=folder)
        catalogue_path = f"catalogues/{model_id}/{revision}"
        if revision == self._own_revision(model_id):
            return revision
        if self.fs.exists(self._path(f"{catalogue_path}/{CATALOGUE_MANIFEST}")):
            self._repair_files(
                folder, catalogue_path, {**files, CATALOGUE_MANIFEST: digest.file_digest(folder / CATALOGUE_MANIFEST)}
            )
        self._put_files(folder, catalogue_path, [*files, CATALOGUE_MANIFEST])
        return revision

    def catalogue(self, model_id: str, revision: str, *, into: Path | None = None) -> Path:
        """The folder of a catalogue of a model, verified; empty is the bundle's own. See `bundle` for buckets.

        Raises:
            RepositoryError: it is not here, or it is in a bucket and ``into`` was not given.
            IntegrityError: a byte of it is not what its digests promise, or it lacks what the model serves.
        """
        manifest = self.manifest(model_id)
        folder = self._catalogue_folder(model_id, revision, into)
        actual_revision = verify_catalogue(folder)
        refuse_unlisted(manifest, catalogue_files(folder), where=folder)
        if revision:
            _refuse_wrong_revision(actual_revision, revision, folder)
        return folder

    def publish(
        self,
        model_id: str,
        revision: str,
        *,
        who: str,
        why: str,
        run_id: str = "",
        digests: dict[str, str] | None = None,
        details: dict[str, Any] | None = None,
        expected_champion: str | None = None,
        expected_revision: str | None = None,
    ) -> Event:
        """Let a model serve over a catalogue that was added before; an older one again is how one goes back.

        ``expected_revision`` is what it served over when this one was made (empty: the bundle's own). A model that
        is not the champion serves over it once it is.

        Raises:
            StaleEvidence: another model, or this one over another catalogue, serves by now.
            IntegrityError: a byte of the catalogue is not what its digests promise.
            RepositoryError: the model was never registered, the catalogue is not here, or nothing can be written.
        """
        return self.append(
            PUBLISHING,
            model_id,
            who=who,
            why=why,
            run_id=run_id,
            digests={**(digests or {}), CATALOGUE: revision},
            details=details,
            expected_champion=expected_champion,
            expected_revision=expected_revision,
        )

    def revision(self, model_id: str) -> str:
        """The revision of the catalogue that a model of this repository serves over, or would."""
        return registry_state.revision(self.history(), model_id) or self._own_revision(model_id)

    def has_catalogue(self, model_id: str, revision: str) -> bool:
        """Whether a catalogue of a model lies here, whatever its bytes are."""
        try:
            return bool(self.fs.exists(f"{self._path(self._catalogue_path(model_id, revision))}/{CATALOGUE_MANIFEST}"))
        except RegistryError:
            return False

    def item_ids(self, model_id: str, revision: str) -> list[str]:
        """The items of a catalogue, in its order; nothing is verified."""
        return list(self._item_availability(model_id, revision))

    def relisted_items(self, before: str, after: str) -> list[str]:
        """Items that feeds took off sale while model ``before`` served, and which ``after`` offers; sorted.

        A model serves over its own catalogue, and what feeds told was told to the model before it. Off sale is what
        that one's catalogue says is not available, or what a feed took out of it. Items that are hidden stay so.
        """
        history = self.history()
        previous_items = self._item_availability(before, registry_state.revision(history, before))
        current_items = self._item_availability(after, registry_state.revision(history, after))
        withdrawn = {item for item, available in previous_items.items() if available is False}
        withdrawn |= set(self._item_availability(before, "")) - set(previous_items)
        hidden = registry_state.hidden(history)
        return sorted(
            item
            for item in withdrawn
            if item in current_items and current_items[item] is not False and item not in hidden
        )

    def relisted_warning(self, before: str, after: str) -> str:
        """A sentence about `withdrawn_again`, for whoever lets ``after`` serve; empty where there is nothing to say."""
        if before in ("", after):
            return ""
        try:
            items = self.relisted_items(before, after)
        except Exception as error:  # Arrow has its own; who serves does not hang on a catalogue that went bad
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            return f"whether items that feeds withdrew are on sale again cannot be told: {why}"
        if not items:
            return ""
        some = ", ".join(items[:5]) + (", …" if len(items) > 5 else "")
        return (
            f"{len(items)} items that feeds withdrew under model {before} are on sale again ({some}): refresh the "
            "catalogue, or `rankline items hide` them"
        )

    def _item_availability(self, model_id: str, revision: str) -> dict[str, bool | None]:
        """The items of a catalogue, in its order, and whether each is available; nothing is verified."""
        import pyarrow as pa
        import pyarrow.parquet as parquet

        path = f"{self._catalogue_path(model_id, revision)}/items.parquet"
        with self.fs.open(self._path(path), "rb") as stream:
            content = stream.read()
        # of a Python stream Arrow's own threads would read ahead; alive at the end of the process, they abort it
        file = parquet.ParquetFile(pa.BufferReader(content), pre_buffer=False)
        columns = [name for name in ("item_id", "available") if name == "item_id" or name in file.schema_arrow.names]
        table = file.read(columns=columns, use_threads=False).to_pydict()
        return dict(zip(table["item_id"], table.get("available") or [None] * len(table["item_id"])))

    def _own_revision(self, model_id: str) -> str:
        """The revision of the catalogue that a bundle was exported with."""
        try:
            catalogue_manifest = json.loads(self._read(f"bundles/{model_id}/{CATALOGUE}/{CATALOGUE_MANIFEST}"))
            return revision_of(catalogue_manifest["files"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return ""

    def _catalogue_path(self, model_id: str, revision: str) -> str:
        """Where a catalogue is kept; the bundle's own lies in the bundle."""
        published_path = f"catalogues/{model_id}/{revision}"
        bundle_path = f"bundles/{model_id}/{CATALOGUE}"
        if not revision or revision == self._own_revision(model_id):
            return bundle_path
        if not self.fs.exists(self._path(f"{published_path}/{CATALOGUE_MANIFEST}")):
            raise removal.not_found_error(self, model_id, revision)
        return published_path

    def _catalogue_folder(self, model_id: str, revision: str, into: Path | None) -> Path:
        """A catalogue's folder on this machine; not verified."""
        path = self._catalogue_path(model_id, revision)
        own = path.startswith("bundles/")
        folder = self._local_folder(path, into, f"{model_id}/{CATALOGUE}" if own else f"{model_id}.{revision}")
        if not self.local:
            self._fetch_files(path, folder, {}, CATALOGUE_MANIFEST)
            if (folder / CATALOGUE_MANIFEST).is_file():
                self._fetch_files(path, folder, catalogue_files(folder), CATALOGUE_MANIFEST)
        return folder

    # -- takedowns -----------------------------------------------------------------------------------------

    def hide(self, items: Iterable[str], *, who: str, why: str) -> Event:
        """Leave items out of every answer, of whichever model and catalogue, until they are shown again.

        Raises:
            UsageError: there is none, or one without an id.
        """
        return self.append(HIDING, "", who=who, why=why, details={"items": sorted(set(items))})

    def show(self, items: Iterable[str], *, who: str, why: str) -> Event:
        """Let items that were hidden into the answers again.

        Raises:
            UsageError: there is none, or one without an id.
        """
        return self.append(SHOWING, "", who=who, why=why, details={"items": sorted(set(items))})

    def hidden(self) -> dict[str, Event]:
        """Every item that is left out of all answers, and the event that hid it."""
        return registry_state.hidden(self.history())

    # -- evidence ------------------------------------------------------------------------------------------

    def add_evidence(self, folder: Path) -> str:
        """Keep a folder of evidence; the digest it is kept under. The door's own list is no part of it."""
        files = {name: sha256 for name, sha256 in digest.file_digests(folder).items() if name != DIGESTS_FILE}
        name = digest.json_digest(files)
        self._put_files(folder, f"evidence/{name}", list(files))
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
        return [self._event(n) for n in range(1, max(self._event_numbers(), default=0) + 1)]

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
        expected_revision: str | None = None,
    ) -> Event:
        """Write the next event; ``expected_champion`` served when its evidence was made (empty: nobody).

        Raises:
            StaleEvidence: somebody else, or the model over another catalogue, serves by now.
            IntegrityError: a model or catalogue is to serve that is not what was registered.
            RepositoryError: one is to serve that is not here, or the place cannot be written.
            UsageError: items are to be hidden or shown, and none is named.
        """
        digests = dict(digests or {})
        with tempfile.TemporaryDirectory(prefix="rankline-") as scratch:
            digests |= self._verified_digests(kind, model_id, digests, Path(scratch))
        if kind in TAKEDOWNS:
            _refuse_missing_item_ids((details or {}).get("items", []))
        while True:
            history = self.history()
            removal.refuse_removed_model(self, history, kind, model_id, digests)
            champion = registry_state.champion(history)
            serving = champion.model_id if champion else ""
            if expected_champion is not None and serving != expected_champion:
                since, hint = _STALE_MESSAGES.get(kind, _STALE_MESSAGES["promoted"])
                raise StaleEvidence(
                    f"the champion changed since {since}",
                    expected=f"champion {expected_champion or '(none)'}",
                    found=f"champion {serving or '(none)'}, since event {champion.event if champion else 0}",
                    where=self.root,
                    hint=hint,
                )
            if expected_revision is not None:
                self._refuse_stale_revision(history, model_id, expected_revision)
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
            if kind in TAKEDOWNS:  # so that one event vouches for all that is hidden
                hidden_digest = registry_state.hidden_digest(registry_state.hidden([*history, event]))
                event = event.model_copy(update={"digests": {**digests, "hidden": hidden_digest}})
            if self._create(f"events/{event.n}.json", event.model_dump_json(indent=2).encode() + b"\n"):
                break
        self.champion_record()  # repairs champion.json, which is now behind
        return event

    def _verified_digests(self, kind: Kind, model_id: str, digests: dict[str, str], scratch: Path) -> dict[str, str]:
        """What an event says of the bytes that it lets serve, after a look at every one of them."""
        if kind == PUBLISHING:
            if not any(event.kind == "registered" and event.model_id == model_id for event in self.history()):
                raise RegistryError(
                    f"model {model_id} was never registered",
                    expected="a model of this repository",
                    found=f"a catalogue for {model_id}",
                    where=self.root,
                    hint="`rankline history` lists the models that are",
                )
            self.catalogue(model_id, digests[CATALOGUE], into=scratch)
        if kind != "registered" and kind not in PROMOTING:
            return {}
        verified = _bundle_digests(self.bundle(model_id, revision="", into=scratch))
        published = registry_state.revision(self.history(), model_id)
        if kind in PROMOTING and published:  # it will serve over this one
            self.catalogue(model_id, published, into=scratch)
        return verified

    def _refuse_stale_revision(self, history: list[Event], model_id: str, expected: str) -> None:
        """Stop where a model's catalogue is no longer the one that was expected."""
        own = self._own_revision(model_id)
        published = registry_state.revision(history, model_id) or own
        if published != (expected or own):
            raise StaleEvidence(
                "the catalogue changed since this one was made",
                expected=f"catalogue {expected or own}",
                found=f"catalogue {published}",
                where=self.root,
                hint="refresh again, from the catalogue that serves now",
            )

    def champion(self) -> str:
        """The id of the model that serves; empty for none."""
        serving = self.champion_record()
        return serving.model_id if serving else ""

    def champion_record(self) -> Champion | None:
        """Who serves, at the cost of a few small reads: champion.json where it is right, else the events."""
        self.fs.invalidate_cache()
        cached = self._cached_champion()
        if cached is not None:
            return cached
        champion = registry_state.champion(self.history())
        if champion is not None and self.repair_cache:
            with suppress(OSError, StorageError):  # one who may only read still gets the right answer
                self._replace("champion.json", champion.model_dump_json(indent=2).encode() + b"\n")
        return champion

    def _cached_champion(self) -> Champion | None:
        """champion.json, unless it is missing, unreadable, behind the events, or contradicts them."""
        try:
            cached = Champion.model_validate_json(self._read("champion.json"))
            is_consistent = registry_state.is_consistent(cached, self._event)
        except (FileNotFoundError, ValidationError, IntegrityError):
            return None
        exists = self.fs.exists
        is_current = exists(self._path(f"events/{cached.read_to}.json")) and not exists(
            self._path(f"events/{cached.read_to + 1}.json")
        )
        return cached if is_consistent and is_current else None

    def _event_numbers(self) -> list[int]:
        try:
            names = self.fs.ls(self._path("events"), detail=False)
        except FileNotFoundError:
            return []
        stems = (name.rsplit("/", 1)[-1].removesuffix(".json") for name in names)
        return [int(stem) for stem in stems if stem.isdigit()]

    def _event(self, n: int) -> Event:
        if n in self._events:  # events do not change: each is read once
            return self._events[n]
        path = f"events/{n}.json"
        try:
            event = Event.model_validate_json(self._read(path))
            found = registry_state.missing_content(event) if event.n == n else f"event {event.n}"
            if not found:
                self._events[n] = event
                return event
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


def _bundle_digests(bundle: Bundle) -> dict[str, str]:
    return {"manifest": digest.file_digest(bundle.folder / MANIFEST), "catalogue": bundle.revision}


def _refuse_wrong_revision(found: str, expected_revision: str, folder: Path) -> None:
    """Stop where another catalogue lies under a revision than the one it names."""
    if found != expected_revision:
        raise IntegrityError(
            "a catalogue is not the one it is kept as",
            expected=f"revision {expected_revision}",
            found=f"revision {found}",
            where=str(folder),
            hint="refresh the catalogue anew, or go back to an older revision: `rankline catalogue rollback`",
        )


def _refuse_missing_item_ids(items: Any) -> None:
    """Stop where items are to be hidden or shown and none is named."""
    if not isinstance(items, list) or not items or not all(isinstance(item, str) and item.strip() for item in items):
        raise UsageError(
            "which items is not said",
            expected="item ids, at least one and none of them empty",
            found=str(items)[:200],
            hint="give the ids as the catalogue has them",
        )

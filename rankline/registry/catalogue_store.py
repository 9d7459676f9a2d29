"""The catalogue revisions of a registry's models.

catalogues/<model id>/<revision>/…   immutable, laid out like the catalogue/ folder of a bundle
"""

from __future__ import annotations

from pathlib import Path

from rankline.errors import IntegrityError, RegistryError
from rankline.io import digest
from rankline.io.files import first_line
from rankline.model.bundle import CATALOGUE, MANIFEST, Bundle, open_bundle, refuse_unlisted
from rankline.model.catalogue_files import (
    CATALOGUE_MANIFEST,
    ITEMS,
    ROLLBACK_HINT,
    catalogue_files,
    verify_catalogue,
)
from rankline.registry import registry_state, removal
from rankline.registry.bundle_store import RESTORE_HINT, BundleStore


class CatalogueStore(BundleStore):
    """Adds catalogue revisions and reads bundles together with one of them."""

    def bundle(self, model_id: str, *, revision: str | None = None, into: Path | None = None) -> Bundle:
        """Open a bundle with one of its catalogues, verified.

        ``revision`` None is the last published catalogue, an empty one the bundle's own. From a bucket the bundle is
        fetched to ``into/<model id>`` and a published catalogue to ``into/<model id>.<revision>``.

        Raises:
            RegistryError: it is not in the registry, or it is in a bucket and ``into`` was not given.
            IntegrityError: a file of it changed since it was registered.
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
                "the bundle does not have the id it is stored under",
                expected=model_id,
                found=bundle.model_id,
                where=str(folder),
                hint=RESTORE_HINT,
            )
        self._refuse_changed_bundle(bundle)
        if not own:
            _refuse_wrong_revision(bundle.revision, revision, catalogue)
        return bundle

    def add_catalogue(self, model_id: str, folder: Path) -> str:
        """Add a catalogue of a model, ready to `publish`, and return its revision.

        If it is already there, only its damaged files are replaced.

        Raises:
            RegistryError: the model is not in the registry.
            UsageError: ``folder`` is no catalogue.
            IntegrityError: a file of it differs from its digest, or a file that the model serves is missing.
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
        """The folder of a catalogue, verified; an empty revision is the bundle's own. See `bundle` for buckets.

        Raises:
            RegistryError: it is not in the registry, or it is in a bucket and ``into`` was not given.
            IntegrityError: a file of it differs from its digest, or a file that the model serves is missing.
        """
        manifest = self.manifest(model_id)
        folder = self._catalogue_folder(model_id, revision, into)
        actual_revision = verify_catalogue(folder)
        refuse_unlisted(manifest, catalogue_files(folder), where=folder)
        if revision:
            _refuse_wrong_revision(actual_revision, revision, folder)
        return folder

    def revision(self, model_id: str) -> str:
        """The catalogue revision that a model serves with, or would serve with."""
        return registry_state.revision(self.history(), model_id) or self._own_revision(model_id)

    def has_catalogue(self, model_id: str, revision: str) -> bool:
        """Whether a catalogue of a model is in the registry; nothing is verified."""
        try:
            return bool(self.fs.exists(f"{self._path(self._catalogue_path(model_id, revision))}/{CATALOGUE_MANIFEST}"))
        except RegistryError:
            return False

    def item_ids(self, model_id: str, revision: str) -> list[str]:
        """The items of a catalogue, in its order; nothing is verified."""
        return list(self._item_availability(model_id, revision))

    def relisted_items(self, before: str, after: str) -> list[str]:
        """Items that feeds withdrew while model ``before`` served and that model ``after`` offers again, sorted.

        A model serves over its own catalogue, which does not know of feeds published for its predecessor. Withdrawn
        items are those that the predecessor's catalogue marks as unavailable or no longer contains. Hidden items are
        not offered by any model.
        """
        history = self.history()
        previous_items = self._item_availability(before, registry_state.revision(history, before))
        current_items = self._item_availability(after, registry_state.revision(history, after))
        withdrawn = {item for item, available in previous_items.items() if available is False}
        withdrawn |= set(self._item_availability(before, "")) - set(previous_items)
        offered = {item for item, available in current_items.items() if available is not False}
        return sorted(withdrawn & offered - registry_state.hidden(history).keys())

    def relisted_warning(self, before: str, after: str) -> str:
        """A warning about `relisted_items`; empty if there are none."""
        if before in ("", after):
            return ""
        try:
            items = self.relisted_items(before, after)
        except Exception as error:  # Arrow has its own errors; a damaged catalogue must not block a promotion
            return f"it cannot be determined whether withdrawn items are on sale again: {first_line(error)}"
        if not items:
            return ""
        some = ", ".join(items[:5]) + (", …" if len(items) > 5 else "")
        return (
            f"{len(items)} items that feeds withdrew under model {before} are on sale again ({some}): refresh the "
            "catalogue, or `rankline items hide` them"
        )

    def _item_availability(self, model_id: str, revision: str) -> dict[str, bool | None]:
        """Item id -> whether it is available, in the catalogue's order; nothing is verified."""
        import pyarrow as pa
        import pyarrow.parquet as parquet

        path = f"{self._catalogue_path(model_id, revision)}/{ITEMS}"
        with self.fs.open(self._path(path), "rb") as stream:
            content = stream.read()
        # Arrow's threads would read ahead in a Python stream; if they are still alive at exit, they abort the process
        file = parquet.ParquetFile(pa.BufferReader(content), pre_buffer=False)
        columns = [name for name in ("item_id", "available") if name == "item_id" or name in file.schema_arrow.names]
        table = file.read(columns=columns, use_threads=False).to_pydict()
        return dict(zip(table["item_id"], table.get("available") or [None] * len(table["item_id"])))

    def _catalogue_path(self, model_id: str, revision: str) -> str:
        """Where a catalogue is stored: inside the bundle if it is the bundle's own."""
        if not revision or revision == self._own_revision(model_id):
            return f"bundles/{model_id}/{CATALOGUE}"
        published_path = f"catalogues/{model_id}/{revision}"
        if not self.fs.exists(self._path(f"{published_path}/{CATALOGUE_MANIFEST}")):
            raise removal.not_found_error(self, model_id, revision)
        return published_path

    def _catalogue_folder(self, model_id: str, revision: str, into: Path | None) -> Path:
        """A catalogue's folder on this machine, fetched if necessary; not verified."""
        path = self._catalogue_path(model_id, revision)
        own = path.startswith("bundles/")
        folder = self._local_folder(path, into, f"{model_id}/{CATALOGUE}" if own else f"{model_id}.{revision}")
        if not self.local:
            self._fetch_files(path, folder, {}, CATALOGUE_MANIFEST)
            if (folder / CATALOGUE_MANIFEST).is_file():
                self._fetch_files(path, folder, catalogue_files(folder), CATALOGUE_MANIFEST)
        return folder


def _refuse_wrong_revision(actual: str, expected: str, folder: Path) -> None:
    """Refuse a catalogue that is stored under another catalogue's revision."""
    if actual != expected:
        raise IntegrityError(
            "the catalogue does not have the revision it is stored under",
            expected=f"revision {expected}",
            found=f"revision {actual}",
            where=str(folder),
            hint=ROLLBACK_HINT,
        )

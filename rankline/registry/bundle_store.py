"""The model bundles of a registry.

bundles/<model id>/…   immutable, stored once under the id that their bytes have
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from rankline.contracts import Manifest
from rankline.errors import IntegrityError, RegistryError
from rankline.io import digest
from rankline.io.files import first_line
from rankline.model.bundle import CATALOGUE, MANIFEST, Bundle, open_bundle
from rankline.model.catalogue_files import CATALOGUE_MANIFEST, revision_of
from rankline.registry import removal
from rankline.registry.event_log import EventLog

RESTORE_HINT = "add the bundle to the registry again, or roll back to another model"


class BundleStore(EventLog):
    """Adds bundles to a registry and reads what they were exported with."""

    def add(self, folder: Path) -> Bundle:
        """Add a bundle; does nothing if it is already there.

        Raises:
            IntegrityError: a file of it differs from its digest.
            RegistryError: the same model is there with another catalogue.
        """
        bundle = open_bundle(folder)
        bundle_path = f"bundles/{bundle.model_id}"
        manifest_path = f"{bundle_path}/{CATALOGUE}/{CATALOGUE_MANIFEST}"
        catalogue_manifest = (folder / CATALOGUE / CATALOGUE_MANIFEST).read_bytes()
        # The manifest goes last: a bucket cannot rename a folder, so the manifest is what makes the bundle exist.
        names = [
            *bundle.manifest.files,
            *(f"{CATALOGUE}/{name}" for name in json.loads(catalogue_manifest)["files"]),
            f"{CATALOGUE}/{CATALOGUE_MANIFEST}",
            MANIFEST,
        ]
        # In a bucket the catalogue's manifest goes first: once it exists, concurrent writers can only write the same
        # bytes to every other name but the manifest.
        if (
            self.local
            or self._create(manifest_path, catalogue_manifest)
            or self._read(manifest_path) == catalogue_manifest
        ):
            self._put_files(folder, bundle_path, names, first_wins=MANIFEST)
        # The files are the model. The rest of a manifest (parity, code digests) may differ between two exports of the
        # same files; the first one stays.
        if self._read(manifest_path) != catalogue_manifest:
            raise RegistryError(
                f"model {bundle.model_id} is already in the registry with another catalogue",
                expected="the same catalogue for the same model",
                found="a bundle with the same model files and another catalogue",
                where=self._path(bundle_path),
                hint="export it again with its original settings and data, or train a new model",
            )
        return bundle

    def manifest(self, model_id: str) -> Manifest:
        """The manifest of a model.

        Raises:
            RegistryError: the model is not in the registry.
            IntegrityError: the manifest cannot be read.
        """
        path = f"bundles/{model_id}/{MANIFEST}"
        try:
            return Manifest.model_validate_json(self._read(path))
        except FileNotFoundError as error:
            raise removal.not_found_error(self, model_id) from error
        except ValidationError as error:
            raise IntegrityError(
                "the bundle's manifest cannot be read",
                expected="manifest schema version 1",
                found=first_line(error),
                where=self._path(path),
                hint=RESTORE_HINT,
            ) from error

    def _own_revision(self, model_id: str) -> str:
        """The revision of the catalogue that a bundle was exported with; empty if that cannot be read."""
        try:
            catalogue_manifest = json.loads(self._read(f"bundles/{model_id}/{CATALOGUE}/{CATALOGUE_MANIFEST}"))
            return revision_of(catalogue_manifest["files"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return ""

    def _local_folder(self, path: str, into: Path | None, name: str) -> Path:
        """Where a folder of the registry is on this machine, or will be once it is fetched to ``into``/``name``."""
        if self.local:
            return Path(self._path(path))
        if into is None:
            raise RegistryError(
                "a bundle in a bucket must be fetched before it can be read",
                expected="a folder to fetch it to",
                found="none",
                where=self._path(path),
                hint="bundle(model_id, into=…)",
            )
        return into / name

    def _refuse_changed_bundle(self, bundle: Bundle) -> None:
        """Refuse a bundle whose manifest or catalogue changed: the model id does not cover them, the event does."""
        for event in removal.since_removal(self.history(), bundle.model_id):
            if event.kind == "registered":
                actual = bundle_digests(bundle)
                registered = {name: event.digests[name] for name in actual if name in event.digests}
                if not bundle.is_own_catalogue:
                    registered.pop("catalogue", None)
                if registered != {name: actual[name] for name in registered}:
                    raise IntegrityError(
                        "the bundle changed since it was registered",
                        expected=str(registered),
                        found=str(actual),
                        where=str(bundle.folder),
                        hint=RESTORE_HINT,
                    )


def bundle_digests(bundle: Bundle) -> dict[str, str]:
    """The digests that a `registered` or promoting event records."""
    return {"manifest": digest.file_digest(bundle.folder / MANIFEST), "catalogue": bundle.revision}

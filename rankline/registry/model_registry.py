"""The model registry: every candidate, the evidence for it, and which model serves.

    bundles/<model id>/…                rankline/registry/bundle_store.py
    catalogues/<model id>/<revision>/…  rankline/registry/catalogue_store.py
    evidence/<digest>/…                 immutable evaluations and verdicts
    events/<n>.json, champion.json      rankline/registry/event_log.py
    weights/<model id>/…                rankline/train/champion_weights.py

A registry is a local folder or any fsspec URL whose store can create files exclusively. Only an event makes stored
files count, so an interrupted write leaves nothing that a reader sees.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Unpack

from rankline.errors import RegistryError, StaleEvidence, UsageError
from rankline.io import digest
from rankline.io.artifacts import DIGESTS_FILE
from rankline.model.bundle import CATALOGUE
from rankline.pod import compare_again, refresh_again
from rankline.registry import registry_state, removal
from rankline.registry.bundle_store import bundle_digests
from rankline.registry.catalogue_store import CatalogueStore
from rankline.registry.event_log import EventDraft, EventFields
from rankline.registry.event_text import refuse_control_characters
from rankline.registry.registry_state import HIDING, PROMOTING, PUBLISHING, SHOWING, TAKEDOWNS, Event, Kind


class ModelRegistry(CatalogueStore):
    """A model registry in a folder or a bucket."""

    def append(
        self,
        kind: Kind,
        model_id: str,
        *,
        digests: dict[str, str] | None = None,
        expected_champion: str | None = None,
        expected_revision: str | None = None,
        condition: Callable[[list[Event]], object] | None = None,
        **fields: Unpack[EventFields],
    ) -> Event:
        """Write the next event, after verifying the files that it makes serve.

        ``expected_champion`` served when the evidence was made (empty: no model), with ``expected_revision`` (empty:
        the bundle's own catalogue). ``condition`` raises if the event may not follow a history.

        Raises:
            StaleEvidence: another model or catalogue serves now.
            IntegrityError: a model or catalogue that would serve differs from what was registered.
            RegistryError: a model or catalogue that would serve is not in the registry, or it cannot be written.
            UsageError: the event hides or shows items and names none, or `who` or `why` has control characters.
        """
        refuse_control_characters("who", fields["who"])
        refuse_control_characters("why", fields["why"])
        digests = dict(digests or {})
        with tempfile.TemporaryDirectory(prefix="rankline-") as scratch:
            digests |= self._verified_digests(kind, model_id, digests, Path(scratch))
        if kind in TAKEDOWNS:
            _refuse_missing_item_ids(fields.get("details", {}).get("items", []))

        def allowed(history: list[Event]) -> bool:
            removal.refuse_removed_model(self, history, kind, model_id, digests)
            if condition is not None:
                condition(history)
            if expected_champion is not None:
                self._refuse_stale_champion(history, kind, expected_champion)
            if expected_revision is not None:
                self._refuse_stale_revision(history, model_id, expected_revision)
            return True

        event = self.write_event(EventDraft(kind=kind, model_id=model_id, digests=digests, **fields), allowed)
        assert event is not None, "`allowed` raises or returns True"
        return event

    def publish(
        self,
        model_id: str,
        revision: str,
        *,
        digests: dict[str, str] | None = None,
        expected_champion: str | None = None,
        expected_revision: str | None = None,
        **fields: Unpack[EventFields],
    ) -> Event:
        """Make a model serve with a catalogue that was added before; publish an older one to go back.

        The arguments are those of `append`; ``expected_revision`` is the catalogue that this one replaces. A model that
        is not the champion uses the catalogue once it is.

        Raises:
            StaleEvidence: another model or catalogue serves now.
            IntegrityError: a file of the catalogue differs from its digest.
            RegistryError: the model was never registered, the catalogue is not here, or nothing can be written.
        """
        return self.append(
            PUBLISHING,
            model_id,
            digests={**(digests or {}), CATALOGUE: revision},
            expected_champion=expected_champion,
            expected_revision=expected_revision,
            **fields,
        )

    def hide(self, items: Iterable[str], *, who: str, why: str) -> Event:
        """Take items down: they are left out of every response, with any model and catalogue, until they are shown.

        Raises:
            UsageError: there are no items, or one has an empty id.
        """
        return self.append(HIDING, "", who=who, why=why, details={"items": sorted(set(items))})

    def show(self, items: Iterable[str], *, who: str, why: str) -> Event:
        """Undo `hide` for these items.

        Raises:
            UsageError: there are no items, or one has an empty id.
        """
        return self.append(SHOWING, "", who=who, why=why, details={"items": sorted(set(items))})

    def hidden(self) -> dict[str, Event]:
        """Every hidden item, and the event that hid it."""
        return registry_state.hidden(self.history())

    def add_evidence(self, folder: Path) -> str:
        """Store a folder of evidence and return its digest; the step's own list of digests is left out."""
        files = _evidence_files(folder)
        name = digest.json_digest(files)
        self._put_files(folder, f"evidence/{name}", list(files))
        return name

    def evidence(self, name: str) -> str:
        """The path or URL of the evidence with this digest, in the registry's file system."""
        return self._path(f"evidence/{name}")

    def read_evidence(self, name: str, file: str) -> bytes | None:
        """A file of the evidence with this digest; None where it has no such file."""
        try:
            return self._read(f"evidence/{name}/{file}")
        except FileNotFoundError:
            return None

    def evidence_folder(self, name: str, into: Path) -> Path:
        """The evidence with this digest as a folder of this machine; from a bucket it is fetched to ``into``/``name``.

        Raises:
            RegistryError: it is not in the registry any more.
        """
        path = self.evidence(name)
        if not name or not self.fs.exists(path):
            raise RegistryError(
                "the evidence is not in the registry",
                expected=f"evidence/{name or '<digest>'}",
                found="no such folder",
                where=self.root,
                hint="`rankline evaluate --candidate MODEL` measures a candidate again",
            )
        if self.local:
            return Path(path)
        self.fs.get(f"{path}/", f"{into / name}/", recursive=True)
        return into / name

    def _verified_digests(self, kind: Kind, model_id: str, digests: dict[str, str], scratch: Path) -> dict[str, str]:
        """Verify every file that an event would make serve, and return the digests that the event records."""
        if kind == PUBLISHING:
            if not any(event.kind == "registered" and event.model_id == model_id for event in self.history()):
                raise RegistryError(
                    f"model {model_id} was never registered",
                    expected="a model of this registry",
                    found=f"a catalogue for {model_id}",
                    where=self.root,
                    hint="`rankline history` lists the registered models",
                )
            self.catalogue(model_id, digests[CATALOGUE], into=scratch)
        if kind != "registered" and kind not in PROMOTING:
            return {}
        verified = bundle_digests(self.bundle(model_id, revision="", into=scratch))
        published = registry_state.revision(self.history(), model_id)
        if kind in PROMOTING and published:  # the model will serve with this catalogue
            self.catalogue(model_id, published, into=scratch)
        return verified

    def _refuse_stale_champion(self, history: list[Event], kind: Kind, expected: str) -> None:
        """Refuse an event that was decided on when another model served."""
        champion = registry_state.champion(history)
        serving = champion.model_id if champion else ""
        if serving != expected:
            since, hint = _stale_message(kind)
            raise StaleEvidence(
                f"the champion changed since {since}",
                expected=f"champion {expected}" if expected else "no champion, as then",
                found=f"champion {serving}, since event {champion.event}" if champion else "no champion",
                where=self.root,
                hint=hint,
            )

    def _refuse_stale_revision(self, history: list[Event], model_id: str, expected: str) -> None:
        """Refuse a catalogue that was made when the model served with another one."""
        own = self._own_revision(model_id)
        published = registry_state.revision(history, model_id) or own
        if published != (expected or own):
            raise StaleEvidence(
                "the catalogue changed since this one was made",
                expected=f"catalogue {expected or own}",
                found=f"catalogue {published}",
                where=self.root,
                hint=refresh_again("it starts from the catalogue that serves now"),
            )


def evidence_name(folder: Path) -> str:
    """The digest by which the registry stores a folder of evidence."""
    return digest.json_digest(_evidence_files(folder))


def _evidence_files(folder: Path) -> dict[str, str]:
    return {name: sha256 for name, sha256 in digest.file_digests(folder).items() if name != DIGESTS_FILE}


def _stale_message(kind: Kind) -> tuple[str, str]:
    """The time since which the champion must be unchanged for an event of this kind, and what to try if it is not."""
    if kind == PUBLISHING:
        return "this catalogue was made", refresh_again("the items are embedded with the new champion")
    if kind == "rolled_back":
        return "this was asked for", "check the champion with `rankline history`, and roll back again if needed"
    return "this model was evaluated", compare_again()


def _refuse_missing_item_ids(items: Any) -> None:
    """Refuse to hide or show nothing, or an empty id."""
    if not isinstance(items, list) or not items or not all(isinstance(item, str) and item.strip() for item in items):
        raise UsageError(
            "no item ids were given",
            expected="at least one item id, and no empty ones",
            found=str(items)[:200],
            hint="give the ids as they are in the catalogue",
        )

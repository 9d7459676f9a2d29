"""Rolling back to a model that served before; the server follows the event within seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rankline.errors import RegistryError, StaleEvidence, UsageError
from rankline.registry import registry_state
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import PROMOTING, Event
from rankline.registry.removal import not_found_error, removed_models


def former_champions(history: Sequence[Event]) -> list[str]:
    """Models that have served, do not serve now and are still in the registry, the latest first."""
    promoted = [event.model_id for event in history if event.kind in PROMOTING]
    excluded = {*removed_models(history), *promoted[-1:]}
    return [model for model in dict.fromkeys(reversed(promoted)) if model not in excluded]


def rollback_candidates(history: Sequence[Event]) -> list[str]:
    """The models that a rollback without a name may choose, the nearest first.

    Each rollback goes further back: models promoted after the one that was rolled back to are no candidates, nor are
    models that were rolled back from, until they are promoted or rolled back to again.
    """
    champions: list[str] = []  # the present champion last, without those that rollbacks skipped
    rolled_back_from: set[str] = set()
    for event in history:
        if event.kind not in PROMOTING:
            continue
        if event.kind == "rolled_back":
            rolled_back_from.add(event.champion_before)
            if event.model_id in champions:
                del champions[len(champions) - champions[::-1].index(event.model_id) :]
            else:
                champions.append(event.model_id)
        else:
            champions.append(event.model_id)
        rolled_back_from.discard(event.model_id)
    excluded = {*removed_models(history), *rolled_back_from, *champions[-1:]}
    return [model for model in dict.fromkeys(reversed(champions)) if model not in excluded]


def roll_back(
    models: ModelRegistry, *, to: str, who: str, why: str, workspace: Path, champion: str | None = None
) -> Event:
    """Make model ``to`` serve again, or the nearest of `rollback_candidates` if it is empty.

    ``to`` may be the beginning of an id. The bundle is verified first. ``champion`` must serve, if it is given.

    Raises:
        UsageError: no such model has served, or several ids begin with ``to``.
        StaleEvidence: the champion changed meanwhile; nothing was written.
        IntegrityError: a file of the bundle changed.
        RegistryError: there is no model to roll back to, it was removed, or its features are not online.
    """
    history = models.history()
    former = former_champions(history)
    current = registry_state.champion(history)
    serving = current.model_id if current else ""
    if champion is not None and champion != serving:
        raise StaleEvidence(
            "the champion changed since this was asked for",
            expected=f"champion {champion or '(none)'}",
            found=f"champion {serving or '(none)'}",
            where=models.root,
            hint="check what serves now, and roll back again if it still should change",
        )
    promoted = {event.model_id for event in history if event.kind in PROMOTING}
    removed_ids = [model for model in promoted & removed_models(history) if model.startswith(to)]
    if to and len(removed_ids) == 1 and not any(model.startswith(to) for model in (*former, serving)):
        raise not_found_error(models, removed_ids[0])
    if not former:
        raise RegistryError(
            "there is no model to roll back to",
            expected="at least two models that have served and are still in the registry",
            found=f"only champion {serving}" if serving else "no champion yet",
            where=models.root,
            hint="`rankline history` lists all events",
        )
    if to and to == serving:
        raise UsageError(
            f"model {to} already serves",
            expected=f"a model that served before: {', '.join(former)}",
            found="the champion",
            where=models.root,
            hint="`rankline rollback` without a model takes the nearest one",
        )
    matches = [model for model in former if model.startswith(to)] if to else rollback_candidates(history)[:1]
    if not to and not matches:
        raise RegistryError(
            "there is no model further back",
            expected="a model that served before the champion and was not rolled back from",
            found=f"champion {serving}; earlier rollbacks left or skipped the others",
            where=models.root,
            hint=f"name one: `rankline rollback MODEL` with {', '.join(former)}",
        )
    if len(matches) != 1:
        raise UsageError(
            "no such model has served here" if not matches else "several model ids begin like that",
            expected=f"one of {', '.join(former)}",
            found=to,
            where=models.root,
            hint="`rankline history` lists every promotion",
        )
    (chosen,) = matches
    refuse_missing_features(models.manifest(chosen).features.service, workspace)
    return models.append("rolled_back", chosen, who=who, why=why, expected_champion=serving)


def refuse_missing_features(service: str, workspace: Path) -> None:
    """Refuse if this workspace has online feature stores but none for the model's feature service."""
    online = workspace / "online"
    if online.is_dir() and not (online / service / "feature_store.yaml").is_file():
        raise RegistryError(
            "the features of that model are not online any more",
            expected=f"the feature service {service}",
            found=", ".join(sorted(folder.name for folder in online.iterdir() if folder.is_dir())) or "none",
            where=str(online),
            hint="run that model's pipeline again: its promotion brings the features online",
        )

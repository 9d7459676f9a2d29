"""Go back to a model that served before: an event like every other, which the server follows within seconds."""

from __future__ import annotations

from pathlib import Path

from rankline.errors import RegistryError, UsageError
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import PROMOTING, Event
from rankline.registry.removal import not_found_error, removal_event


def former_champions(models: ModelRegistry) -> list[str]:
    """The models that have served, do not serve now and are still kept, the latest first."""
    history, serving = models.history(), models.champion()
    promoted = [event.model_id for event in history if event.kind in PROMOTING]
    return [
        model for model in dict.fromkeys(reversed(promoted))
        if model != serving and removal_event(history, model) is None
    ]  # fmt: skip


def rollback_candidates(history: list[Event]) -> list[str]:
    """The models to go back to where none is named, the nearest first.

    Going back is a step on the way down: none that lies above the champion since, and none that was itself gone back
    from since it was promoted last (or was named and came back), is one of them.
    """
    champions: list[str] = []  # who served, the champion last, without what was gone back over
    rolled_back_from: set[str] = set()  # gone back from
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
    serving = champions[-1] if champions else ""
    return [
        model for model in dict.fromkeys(reversed(champions))
        if model != serving and model not in rolled_back_from and removal_event(history, model) is None
    ]  # fmt: skip


def roll_back(models: ModelRegistry, *, to: str, who: str, why: str, workspace: Path) -> Event:
    """Let ``to`` serve again or, where it is empty, the nearest of the :func:`forerunners`.

    ``to`` may be the beginning of an id. Its bytes are verified first; where somebody else is promoted meanwhile,
    nothing happens.

    Raises:
        UsageError: no such model has served, or several begin like that.
        StaleEvidence: the champion changed while this was done.
        IntegrityError: a byte of the bundle changed.
        RepositoryError: nobody is left to go back to, the model is gone from the repository, or its features are not
            online.
    """
    serving, former, history = models.champion(), former_champions(models), models.history()
    promoted = {event.model_id for event in history if event.kind in PROMOTING}
    removed_ids = [each for each in promoted if each.startswith(to) and removal_event(history, each) is not None]
    if to and len(removed_ids) == 1 and not any(model.startswith(to) for model in (*former, serving)):
        raise not_found_error(models, removed_ids[0])
    if not former:
        raise RegistryError(
            "there is no model to go back to",
            expected="at least two models that have served, and are kept",
            found=f"champion {serving}, the only one" if serving else "no champion yet",
            where=models.root,
            hint="`rankline history` shows what has happened",
        )
    if to and to == serving:
        raise UsageError(
            f"model {to} serves already", expected=f"one that served before: {', '.join(former)}", where=models.root
        )
    matches = [model for model in former if model.startswith(to)] if to else rollback_candidates(history)[:1]
    if not to and not matches:
        raise RegistryError(
            "there is no model further back",
            expected="one that served before the champion and was not gone back from",
            found=f"champion {serving}; the others were gone back from, or gone back over",
            where=models.root,
            hint=f"`rankline rollback MODEL` takes one by its name: {', '.join(former)}",
        )
    if len(matches) != 1:
        raise UsageError(
            "no such model has served here" if not matches else "several models begin like that",
            expected=f"one of {', '.join(former)}",
            found=to,
            where=models.root,
            hint="`rankline history` shows every promotion",
        )
    (chosen,) = matches
    _features_are_online(models.manifest(chosen).features.service, workspace)
    return models.append("rolled_back", chosen, who=who, why=why, expected_champion=serving)


def _features_are_online(service: str, workspace: Path) -> None:
    """Stop where this workspace keeps online stores, and none for the model that is to serve."""
    online = workspace / "online"
    if online.is_dir() and not (online / service / "feature_store.yaml").is_file():
        raise RegistryError(
            "the features of that model are not online any more",
            expected=f"the feature service {service}",
            found=", ".join(sorted(each.name for each in online.iterdir() if each.is_dir())) or "none",
            where=str(online),
            hint="run the flow of that model's code once more, which brings them online when it is promoted",
        )

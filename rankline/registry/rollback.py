"""Go back to a model that served before: an event like every other, which the server follows within seconds."""

from __future__ import annotations

from pathlib import Path

from rankline.errors import RegistryError, UsageError
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import PROMOTING, Event
from rankline.registry.removal import not_found_error, removal_event


def served_before(models: ModelRegistry) -> list[str]:
    """The models that have served, do not serve now and are still kept, the latest first."""
    history, serving = models.history(), models.champion()
    crowned = [event.model_id for event in history if event.kind in PROMOTING]
    return [
        model for model in dict.fromkeys(reversed(crowned))
        if model != serving and removal_event(history, model) is None
    ]  # fmt: skip


def forerunners(history: list[Event]) -> list[str]:
    """The models to go back to where none is named, the nearest first.

    Going back is a step on the way down: none that lies above the champion since, and none that was itself gone back
    from since it was promoted last (or was named and came back), is one of them.
    """
    line: list[str] = []  # who served, the champion last, without what was gone back over
    left: set[str] = set()  # gone back from
    for event in history:
        if event.kind not in PROMOTING:
            continue
        if event.kind == "rolled_back":
            left.add(event.champion_before)
            if event.model_id in line:
                del line[len(line) - line[::-1].index(event.model_id) :]
            else:
                line.append(event.model_id)
        else:
            line.append(event.model_id)
        left.discard(event.model_id)
    serving = line[-1] if line else ""
    return [
        model for model in dict.fromkeys(reversed(line))
        if model != serving and model not in left and removal_event(history, model) is None
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
    serving, before, history = models.champion(), served_before(models), models.history()
    crowned = {event.model_id for event in history if event.kind in PROMOTING}
    gone = [each for each in crowned if each.startswith(to) and removal_event(history, each) is not None]
    if to and len(gone) == 1 and not any(model.startswith(to) for model in (*before, serving)):
        raise not_found_error(models, gone[0])
    if not before:
        raise RegistryError(
            "there is no model to go back to",
            expected="at least two models that have served, and are kept",
            found=f"champion {serving}, the only one" if serving else "no champion yet",
            where=models.root,
            hint="`rankline history` shows what has happened",
        )
    if to and to == serving:
        raise UsageError(
            f"model {to} serves already", expected=f"one that served before: {', '.join(before)}", where=models.root
        )
    fitting = [model for model in before if model.startswith(to)] if to else forerunners(history)[:1]
    if not to and not fitting:
        raise RegistryError(
            "there is no model further back",
            expected="one that served before the champion and was not gone back from",
            found=f"champion {serving}; the others were gone back from, or gone back over",
            where=models.root,
            hint=f"`rankline rollback MODEL` takes one by its name: {', '.join(before)}",
        )
    if len(fitting) != 1:
        raise UsageError(
            "no such model has served here" if not fitting else "several models begin like that",
            expected=f"one of {', '.join(before)}",
            found=to,
            where=models.root,
            hint="`rankline history` shows every promotion",
        )
    (chosen,) = fitting
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

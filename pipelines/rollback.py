"""Go back to a model that served before: an event like every other, which the server follows within seconds."""

from __future__ import annotations

from pathlib import Path

from rankline.errors import RepositoryError, UsageError
from rankline.pointer import CROWNING, Event
from rankline.repository import Repository


def served_before(models: Repository) -> list[str]:
    """The models that have served and do not serve now, the latest first."""
    serving = models.champion()
    crowned = [event.model_id for event in models.history() if event.kind in CROWNING]
    return [model for model in dict.fromkeys(reversed(crowned)) if model != serving]


def roll_back(models: Repository, *, to: str, who: str, why: str, workspace: Path) -> Event:
    """Let ``to`` serve again, or the champion's forerunner where it is empty.

    ``to`` may be the beginning of an id. Its bytes are verified first; where somebody else is promoted meanwhile,
    nothing happens.

    Raises:
        UsageError: no such model has served, or several begin like that.
        StaleEvidence: the champion changed while this was done.
        IntegrityError: a byte of the bundle changed.
        RepositoryError: nobody served before, the model is gone from the repository, or its features are not online.
    """
    serving, before = models.champion(), served_before(models)
    if not before:
        raise RepositoryError(
            "there is no model to go back to",
            expected="at least two models that have served",
            found=f"champion {serving}, the first one" if serving else "no champion yet",
            where=models.root,
            hint="`rankline history` shows what has happened",
        )
    fitting = [model for model in before if model.startswith(to)]
    if to and to == serving:
        raise UsageError(
            f"model {to} serves already", expected=f"one that served before: {', '.join(before)}", where=models.root
        )
    if not fitting or (to and len(fitting) > 1):
        raise UsageError(
            "no such model has served here" if not fitting else "several models begin like that",
            expected=f"one of {', '.join(before)}",
            found=to,
            where=models.root,
            hint="`rankline history` shows every promotion",
        )
    chosen = fitting[0]
    _features_are_online(models.manifest(chosen).features.service, workspace)
    return models.append("rolled_back", chosen, who=who, why=why, expected_champion=serving)


def _features_are_online(service: str, workspace: Path) -> None:
    """Stop where this workspace keeps online stores, and none for the model that is to serve."""
    online = workspace / "online"
    if online.is_dir() and not (online / service / "feature_store.yaml").is_file():
        raise RepositoryError(
            "the features of that model are not online any more",
            expected=f"the feature service {service}",
            found=", ".join(sorted(each.name for each in online.iterdir() if each.is_dir())) or "none",
            where=str(online),
            hint="run the flow of that model's code once more, which brings them online when it is promoted",
        )

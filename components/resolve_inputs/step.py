"""resolve_inputs: what a run works on, found out anew in every run.

Reads the source and the model registry. Writes recipe.json of a cluster's run, as the command that starts a run does on
one machine, and the registry's champion.json if that lags behind the events. Later steps take the results as arguments
and run again when these have changed.
"""

import json
from pathlib import Path

from components.resolve_inputs.config import ResolveInputsConfig
from rankline.errors import UsageError
from rankline.io import sources
from rankline.io.files import write_json
from rankline.pod import advice
from rankline.runtime.progress import Progress


def resolve_inputs(
    *,
    workspace: Path,
    catalogue: str,
    config: ResolveInputsConfig,
    repository: str = "",
    recipe: tuple[Path, str] | None = None,
    progress: Progress = Progress(),
    repair_cache: bool = True,
) -> dict[str, str]:
    """The digest of the source, and the champion's model id (empty if there is none yet).

    ``recipe`` is the run's folder and the recipe, as JSON, to write there. Without ``repair_cache`` not even
    champion.json is written.

    Raises:
        SourceError: the source is missing, empty or unreadable.
        UsageError: the champion of this workspace ranks another catalogue.
    """
    from rankline.registry.model_registry import ModelRegistry

    progress.phase("resolving inputs")
    if recipe is not None:
        folder, text = recipe
        write_json(folder / "recipe.json", json.loads(text))
    source_digest = sources.source_digest(config)
    models = ModelRegistry(repository or workspace / "repository", repair_cache=repair_cache)
    champion = models.champion()
    if champion and (champion_catalogue := models.manifest(champion).catalogue) != catalogue:
        raise UsageError(
            "the models of this workspace rank another catalogue",
            expected=f"a workspace of catalogue {catalogue!r}, or an empty one",
            found=f"champion {champion} of catalogue {champion_catalogue!r}",
            where=str(workspace),
            hint="use another workspace for this recipe: "
            + advice(
                on_one_machine=f"-w {workspace}-{catalogue or 'other'}",
                on_a_cluster="--set cluster.volume=… with another claim",
            ),
        )
    return {"source_digest": source_digest, "champion": champion}

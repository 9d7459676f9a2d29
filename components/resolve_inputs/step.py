"""resolve_inputs: what the flow is about to work on, asked anew in every run.

Reads the source's files and the model repository, writes nothing (but mends a pointer that lags behind its events).
Later steps take the answers as arguments: that is how they see that the data or the champion changed since they last
ran.
"""

from pathlib import Path

from components.resolve_inputs.config import ResolveInputsConfig
from rankline.errors import UsageError
from rankline.io import sources
from rankline.runtime.progress import Progress


def resolve_inputs(
    *,
    workspace: Path,
    catalogue: str,
    config: ResolveInputsConfig,
    repository: str = "",
    progress: Progress = Progress(),
    repair_cache: bool = True,
) -> dict[str, str]:
    """The digest of the source's contents, and the champion's model id (empty where there is none yet).

    With ``mends`` off not even the repository's pointer is written.

    Raises:
        SourceError: where the source is missing or empty.
        UsageError: where the champion of this workspace ranks another catalogue.
    """
    from rankline.registry.model_registry import ModelRegistry

    progress.phase("looking")
    source_digest = sources.source_digest(config)
    models = ModelRegistry(repository or workspace / "repository", repair_cache=repair_cache)
    champion = models.champion()
    if champion and (champion_catalogue := models.manifest(champion).catalogue) != catalogue:
        raise UsageError(
            "the models of this workspace rank another catalogue",
            expected=f"a workspace of catalogue {catalogue!r}, or an empty one",
            found=f"champion {champion} of catalogue {champion_catalogue!r}",
            where=str(workspace),
            hint=f"give this recipe a workspace of its own: -w {workspace}-{catalogue or 'other'}",
        )
    return {"source_digest": source_digest, "champion": champion}

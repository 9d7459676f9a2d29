"""Whom a candidate is measured beside: the champion, unless the champion is itself, and over which catalogue.

A champion of last month embeds the items of today as it would after a refresh. Left with those that it was exported
with, it would miss every item that came since, and a candidate would look good for nothing but its date.
"""

from __future__ import annotations

from pathlib import Path

from rankline.errors import IntegrityError
from rankline.model import catalogue as catalogues
from rankline.model.bundle import Bundle
from rankline.runtime.progress import Progress

AS_EXPORTED = "as it was exported"


def champion_for(model_id: str, champion: str) -> str:
    """The model id of the one beside it; empty for nobody.

    Beside itself a model shows nothing new: one that serves already keeps the evaluation it was promoted on.
    """
    return "" if is_champion(model_id, champion) else champion


def is_champion(model_id: str, champion: str) -> bool:
    """Whether a candidate is the champion, so that an evaluation beside any other rival is as good."""
    return bool(champion) and champion == model_id


def rebuild_champion(
    champion: Bundle, candidate: Bundle, folder: Path, *, progress: Progress = Progress()
) -> tuple[Bundle, str]:
    """The champion over the candidate's items, and a sentence that says so; ``folder`` keeps its files.

    One of an earlier version, and one that knows a declared column of the items as another kind, stays as it was
    exported, and the sentence says why.

    Raises:
        IntegrityError: it is damaged, in whatever way: nobody is measured beside a champion that nobody has.
    """
    import pyarrow.parquet as parquet

    items = parquet.read_table(candidate.catalogue / catalogues.ITEMS)
    if not catalogues.can_embed(champion):
        return champion, f"{AS_EXPORTED}: this model cannot embed items by itself (a bundle of an earlier version)"
    side = catalogues.CatalogueBuilder.from_bundle(champion).settings.side
    try:
        side.matrix(items)
    except IntegrityError as error:  # all that reading side information can find wrong: a column of another kind
        return champion, f"{AS_EXPORTED}: {error.message} ({error.found})"
    catalogue_folder = folder / "catalogue"
    built = catalogues.build(champion, items, catalogue_folder, before=champion.catalogue, progress=progress)
    return catalogues.assemble_bundle(
        champion, catalogue_folder, folder / "bundle"
    ), f"rebuilt over the candidate's {built.items} items"

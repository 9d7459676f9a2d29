"""The champion that a candidate is compared with, over the candidate's items.

The champion embeds the candidate's items as it would after a refresh. With the catalogue that it was exported with, it
would miss every newer item, and a candidate would look better for its date alone.
"""

from __future__ import annotations

from pathlib import Path

from rankline.errors import IntegrityError
from rankline.model import catalogue as catalogues
from rankline.model.bundle import Bundle
from rankline.runtime.progress import Progress

AS_EXPORTED = "as it was exported"


def champion_for(model_id: str, champion: str) -> str:
    """The model id to compare with; empty without a champion, and for the champion itself."""
    return "" if is_champion(model_id, champion) else champion


def anchor_for(model_id: str, champion: str, anchor: str) -> str:
    """The model id of an anchor that has to be replayed; empty for none, and for champion or candidate."""
    return anchor if champion_for(model_id, champion) and anchor not in (champion, model_id) else ""


def is_champion(model_id: str, champion: str) -> bool:
    """Whether the candidate is the champion: then an earlier evaluation, beside any model, can be reused."""
    return bool(champion) and champion == model_id


def rebuild_champion(
    champion: Bundle, candidate: Bundle, folder: Path, *, progress: Progress = Progress()
) -> tuple[Bundle, str]:
    """The champion over the candidate's items, with its files in ``folder``, and a description of its catalogue.

    The champion stays as it was exported, and the description says why, if it comes from an earlier version or
    knows a declared column of the items as another kind.

    Raises:
        IntegrityError: the champion's bundle is damaged.
    """
    import pyarrow.parquet as parquet

    items = parquet.read_table(candidate.catalogue / catalogues.ITEMS)
    if not catalogues.can_embed(champion):
        return champion, f"{AS_EXPORTED}: this model cannot embed items by itself (a bundle of an earlier version)"
    side_features = catalogues.CatalogueBuilder.from_bundle(champion).settings.side
    try:
        side_features.matrix(items)
    except IntegrityError as error:  # a column of another kind
        return champion, f"{AS_EXPORTED}: {error.message} ({error.found})"
    catalogue_folder = folder / "catalogue"
    built = catalogues.build(champion, items, catalogue_folder, before=champion.catalogue, progress=progress)
    return catalogues.assemble_bundle(
        champion, catalogue_folder, folder / "bundle"
    ), f"rebuilt over the candidate's {built.items} items"

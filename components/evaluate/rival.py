"""Whom a candidate is measured beside: the champion, unless the champion is itself."""

from __future__ import annotations


def rival_of(model_id: str, champion: str) -> str:
    """The model id of the one beside it; empty for nobody.

    Beside itself a model shows nothing new: one that serves already keeps the evaluation it was promoted on.
    """
    return "" if serves(model_id, champion) else champion


def serves(model_id: str, champion: str) -> bool:
    """Whether a candidate is the champion, so that an evaluation beside any other rival is as good."""
    return bool(champion) and champion == model_id

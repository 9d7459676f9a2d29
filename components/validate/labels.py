"""The labels of the events, as ingest reports them, and the scale of each."""

from collections.abc import Collection, Mapping
from math import inf
from typing import Any

from rankline.contracts import LABELS
from rankline.labels import Label

Scale = tuple[float, float]
TYPE_SCALES: dict[str, Scale] = {"binary": (0, 1), "graded": (-inf, inf), "count": (0, inf), "continuous": (-inf, inf)}


def declared(summary: Mapping[str, Any]) -> dict[str, Label]:
    """The labels that the recipe declares, with their limits and scales; empty without any."""
    labels = summary.get("labels", {})
    return {name: Label(**settings) for name, settings in labels.items()} if isinstance(labels, dict) else {}


def scales(summary: Mapping[str, Any], columns: Collection[str], by_name: Mapping[str, Scale]) -> dict[str, Scale]:
    """Label -> its smallest and largest value: as declared, by its type, or without a declaration ``by_name``."""
    if labels := declared(summary):
        return {name: label.scale or TYPE_SCALES[label.type] for name, label in labels.items() if name in columns}
    return {name: by_name[name] for name in LABELS if name in columns}


def hint(label: str, summary: Mapping[str, Any]) -> str:
    """The setting that widens the scale of a label."""
    if label not in declared(summary):
        return f"validate.scales.{label}=[LOW, HIGH]"
    if declared(summary)[label].type == "binary":
        return f"ingest.labels.{label}.type=count (or graded, continuous)"
    return f"ingest.labels.{label}.scale=[LOW, HIGH]"

"""Differences between a store's registered definitions and those of this code."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from feature_repo.profile import read_declared
from feature_repo.store import SETTINGS, SOURCES, open_store, sqlite_settings, store_settings, write_store


def definition_changes(folder: Path, sources: Path) -> list[str]:
    """What would change for readers of the store in ``folder`` if the definitions over ``sources`` were applied.

    Empty if nothing would, or if there is no readable store yet.
    """
    if not (folder / SETTINGS).is_file():
        return []
    from google.protobuf.message import DecodeError

    try:
        current = _describe_definitions(open_store(folder))
    except DecodeError:  # an unreadable registry is written again
        return []
    with tempfile.TemporaryDirectory(prefix="definitions-") as scratch:
        settings = store_settings("rankline", online=sqlite_settings(Path("online.db")))
        write_store(Path(scratch), settings, Path(SOURCES), read_declared(sources))
        proposed = _describe_definitions(open_store(Path(scratch)))
    changes = [f"{name} is gone" for name in sorted(current.keys() - proposed.keys())]
    changes += [f"{name} is new" for name in sorted(proposed.keys() - current.keys())]
    both = sorted(proposed.keys() & current.keys())
    return changes + [
        f"{name}: {current[name]} -> {proposed[name]}" for name in both if proposed[name] != current[name]
    ]


def _describe_definitions(store: Any) -> dict[str, str]:
    """Name -> description of every view, feature and service of a store."""
    described = {}
    for view in store.list_feature_views():
        days = view.ttl.total_seconds() / 86_400 if view.ttl else 0
        described[view.name] = f"by {', '.join(view.join_keys)}, for {days:g} days"
        described |= {f"{view.name}:{feature.name}": str(feature.dtype) for feature in view.features}
    for service in store.list_feature_services():
        names = (
            f"{view.name}:{feature.name}" for view in service.feature_view_projections for feature in view.features
        )
        described[f"service {service.name}"] = ", ".join(sorted(names))
    return described

"""Imports that are slow, made as fast as they can be."""

from __future__ import annotations

from types import ModuleType
from typing import Any

_PROMETHEUS_VARIABLES = ("PROMETHEUS_MULTIPROCESS_DIR", "PROMETHEUS_MULTIPROC_DIR")


def import_feast() -> ModuleType:
    """Feast, without the run-time type checks whose decorator takes half of its import time.

    Our own values reach Feast through typed contracts, so nothing is lost by it.
    """
    import os

    os.environ.setdefault("FEAST_USAGE", "False")
    import prometheus_client  # noqa: F401  before Feast, which would turn its multi-process mode on for good
    import typeguard

    environment = {name: os.environ.get(name) for name in _PROMETHEUS_VARIABLES}
    original = typeguard.typechecked
    no_op: Any = lambda target=None, **_: target if target else (lambda inner: inner)  # noqa: E731
    typeguard.typechecked = no_op
    try:
        import feast
    finally:
        typeguard.typechecked = original
        for name, value in environment.items():
            if value is None:  # nor do child processes inherit that mode and its passing folder
                os.environ.pop(name, None)
    return feast  # type: ignore[no-any-return,unused-ignore]

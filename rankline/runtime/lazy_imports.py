"""Slow imports, made faster."""

from __future__ import annotations

from types import ModuleType
from typing import Any

_PROMETHEUS_VARIABLES = ("PROMETHEUS_MULTIPROCESS_DIR", "PROMETHEUS_MULTIPROC_DIR")


def import_feast() -> ModuleType:
    """Import Feast without typeguard, whose decorators take half of the import time.

    What Rankline passes to Feast is typed already.
    """
    import os

    os.environ.setdefault("FEAST_USAGE", "False")
    import prometheus_client  # noqa: F401  before Feast turns on its multiprocess mode
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
            if value is None:  # child processes must not inherit that mode with its temporary folder
                os.environ.pop(name, None)
    return feast  # type: ignore[no-any-return,unused-ignore]

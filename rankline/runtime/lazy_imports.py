"""Slow imports, made faster."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

_PROMETHEUS_VARIABLES = ("PROMETHEUS_MULTIPROCESS_DIR", "PROMETHEUS_MULTIPROC_DIR")


def import_feast() -> ModuleType:
    """Import Feast without typeguard and torch, which take two thirds of the import time.

    What Rankline passes to Feast is typed already, and it takes no tensors from it.
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
        with without_gc(), _hidden("torch"):
            import feast
    finally:
        typeguard.typechecked = original
        for name, value in environment.items():
            if value is None:  # child processes must not inherit that mode with its temporary folder
                os.environ.pop(name, None)
    return feast  # type: ignore[no-any-return,unused-ignore]


class FeastFormats(NamedTuple):
    """What Feast stores: its Protobuf messages, and the function that encodes the key of an entity's rows."""

    registry: Any
    value: Any
    entity_key: Any
    encode_key: Any


def import_feast_formats() -> FeastFormats:
    """Import how Feast stores rows without the rest of Feast, which takes seconds and hundreds of MB."""
    import importlib.util

    missing = "feast" not in sys.modules
    if missing:
        spec = importlib.util.find_spec("feast")
        if spec is None or spec.submodule_search_locations is None:
            raise ModuleNotFoundError("No module named 'feast'", name="feast")
        package = ModuleType("feast")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["feast"] = package
    try:
        from feast.infra.key_encoding_utils import serialize_entity_key
        from feast.protos.feast.core.Registry_pb2 import Registry
        from feast.protos.feast.types.EntityKey_pb2 import EntityKey
        from feast.protos.feast.types.Value_pb2 import Value
    finally:
        if missing:  # a later `import feast` imports all of it
            del sys.modules["feast"]
    return FeastFormats(Registry, Value, EntityKey, serialize_entity_key)


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime without its telemetry, which writes a database into the home folder and reports to Microsoft.

    The variable counts only before the library is loaded.
    """
    import os

    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime  # type: ignore[no-any-return,unused-ignore]


def import_great_expectations() -> ModuleType:
    """Import Great Expectations without the check of international URIs, whose grammar takes two seconds to build."""
    with without_gc(), _hidden("rfc3987_syntax"):
        import great_expectations
    return great_expectations  # type: ignore[no-any-return,unused-ignore]


@contextlib.contextmanager
def without_gc() -> Iterator[None]:
    """Import large libraries without garbage collections: they take a third of the time and find nothing."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def _hidden(library: str) -> Iterator[None]:
    """Make an optional library look as if it were not installed, unless it is imported already."""
    if library in sys.modules:
        yield
        return
    sys.modules[library] = None  # type: ignore[assignment]  # as `import` expects for a module that is not to be had
    try:
        yield
    finally:
        del sys.modules[library]

"""Libraries are imported without what they do not need, and leave no trace of that."""

from __future__ import annotations

import gc
import importlib
import sys

import pytest

from rankline.runtime.lazy_imports import _hidden, without_gc


def test_a_hidden_library_cannot_be_imported_until_the_block_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "this", raising=False)
    with _hidden("this"), pytest.raises(ImportError):
        importlib.import_module("this")
    assert importlib.import_module("this").__name__ == "this"


def test_a_library_that_is_imported_already_is_not_hidden() -> None:
    with _hidden("sys"):
        assert importlib.import_module("sys") is sys
    assert sys.modules["sys"] is sys


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_is_collected_afterwards_as_before(enabled: bool) -> None:
    try:
        (gc.enable if enabled else gc.disable)()
        with without_gc():
            assert not gc.isenabled()
        assert gc.isenabled() == enabled
    finally:
        gc.enable()

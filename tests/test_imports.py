"""Every module of the packages can be imported, and by whichever version of Python runs the tests."""

from __future__ import annotations

import importlib
import importlib.util

import pytest

from tests.test_layers import ROOT, modules

# what the quick checks of the other versions install nothing of (.ci/python)
OPTIONAL = {"torch", "transformers", "peft", "onnxscript"}
MODULES = [module for module in modules(ROOT) if not module.endswith("__main__")]


def test_there_are_modules_of_every_package() -> None:
    assert len(MODULES) > 200
    assert {"rankline", "feature_repo", "serving", "components", "pipelines", "onboarding", "cli"} <= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_can_be_imported(module: str) -> None:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in OPTIONAL or importlib.util.find_spec(str(error.name)):
            raise
        pytest.skip(f"{error.name} is not installed")

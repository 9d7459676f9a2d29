"""Real exhaustion of memory: one message that names settings of the step that need less."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow
import pytest
import torch

from components.distill.config import DistillConfig
from components.featurize.config import FeaturizeConfig
from pipelines.recipes import smoke as recipe
from rankline.errors import OutOfMemory
from rankline.runtime import ledger, memory
from rankline.runtime.run_context import RunContext
from rankline.runtime.run_step import StepSpec, run_step
from tests.cli.command import refused
from tests.conftest import SmokeRun
from tests.pipelines.hurt import starving
from tests.pipelines.test_faults import REUSABLE, at_entry, forget


@pytest.mark.slow  # the default run starves finetune
def test_distill_that_may_have_no_more_memory(smoke: SmokeRun, tmp_path: Path) -> None:
    """The real step in a process that gets one and a half gigabytes more once its work has begun."""
    workspace = smoke.copy(tmp_path / "ws")
    forget(workspace, "distill")
    command = at_entry(smoke, workspace, tmp_path / "out", "distill")
    hurt = starving(tmp_path / "hurt", "os.rename:distill.progress", megabytes=1500)
    message = refused(*command, "--set", "distill.requests_per_step=50000", **hurt)
    assert "distill ran out of memory" in message
    assert "distill.requests_per_step=25000 (now 50000)" in message


def small_duckdb() -> None:
    with duckdb.connect(config={"memory_limit": "64MB", "temp_directory": ""}) as db:
        db.execute("SELECT list(range) FROM range(1000000000)").fetchone()


ENDLESS: dict[str, Callable[[], object]] = {
    "python": lambda: bytearray(10**18),
    "numpy": lambda: np.empty(10**16),
    "torch": lambda: torch.empty(10**16),
    "arrow": lambda: pyarrow.allocate_buffer(10**17),
    "duckdb": small_duckdb,
}


@pytest.mark.parametrize("library", ENDLESS)
def test_every_librarys_own_words_are_understood(library: str) -> None:
    with (
        pytest.raises(OutOfMemory, match=r"(?s)distill ran out of memory.*batch_size"),
        memory.explain_out_of_memory("distill", DistillConfig()),
    ):
        ENDLESS[library]()


@pytest.mark.parametrize("step", REUSABLE)
def test_every_step_names_settings_that_need_less(tmp_path: Path, step: str) -> None:
    config = getattr(recipe(), step)

    def work(**given: Any) -> None:
        np.empty(10**16)

    run = RunContext(tmp_path, "run")
    with pytest.raises(SystemExit) as end:
        run_step(StepSpec(step, work, config, reuse=False), run)
    message = ledger.read_entries(run.folder)[step].error
    assert str(end.value) == message
    assert message.startswith(f"{step} ran out of memory")
    assert config.smaller()
    for name, (now, smaller) in config.smaller().items():
        assert f"{step}.{name}={smaller} (now {now})" in message
        assert getattr(config, name) == now != smaller
        type(config)(**{**config.model_dump(), name: smaller})  # a value that the setting takes


def test_duckdb_that_reached_its_own_limit_asks_for_a_higher_one() -> None:
    for config, wanted in ((FeaturizeConfig(memory_limit_mb=256), 512), (recipe().validate, 2048)):
        with (
            pytest.raises(OutOfMemory, match=rf"x\.memory_limit_mb={wanted} "),
            memory.explain_out_of_memory("x", config),
        ):
            small_duckdb()


def test_a_machine_that_has_no_more_asks_duckdb_for_less() -> None:
    with (
        pytest.raises(OutOfMemory, match=r"memory_limit_mb=1024 \(now 2048\); featurize\.join_chunk=50000"),
        memory.explain_out_of_memory("featurize", FeaturizeConfig()),
    ):
        raise duckdb.OutOfMemoryException("Out of Memory Error: Failed to allocate block of 1 bytes (bad allocation)")


def test_another_error_is_not_taken_for_it() -> None:
    with pytest.raises(RuntimeError, match="shape mismatch"), memory.explain_out_of_memory("distill", DistillConfig()):
        raise RuntimeError("shape mismatch")


def test_what_a_gpu_says_when_it_is_full_is_known() -> None:
    """The exception is torch's own, its message that of torch's CUDA allocator: no GPU is needed."""
    config = recipe().finetune
    with (
        pytest.raises(OutOfMemory, match="finetune ran out of memory") as refusal,
        memory.explain_out_of_memory("finetune", config),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of …")
    assert f"(now {config.batch_size})" in refusal.value.hint

"""Out of memory, for real: one message that names the settings of the step that take less."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from components.distill.config import DistillConfig
from components.export.config import ExportConfig
from components.featurize.config import FeaturizeConfig
from components.ingest.config import IngestConfig
from components.validate.config import ValidateConfig
from rankline import memory
from rankline.errors import OutOfMemory
from tests.cli.command import refused
from tests.conftest import SmokeRun
from tests.pipelines.hurt import starving
from tests.pipelines.test_faults import at_door, forget

# step -> (a setting that asks for too much, what the process may have more once its work began, what the hint says)
GREEDY = {
    "distill": ("requests_per_step=50000", 1500, "distill.requests_per_step=25000 (now 50000)"),
    "export": ("parity_samples=20000000", 3000, "export.parity_samples=10000000 (now 20000000)"),
    "evaluate": ("bootstrap_samples=100000", 100, "evaluate.bootstrap_samples=50000 (now 100000)"),
}


@pytest.mark.parametrize("step", [pytest.param(s, marks=() if s == "distill" else pytest.mark.slow) for s in GREEDY])
def test_a_step_that_runs_out_of_memory_names_what_takes_less(smoke: SmokeRun, tmp_path: Path, step: str) -> None:
    setting, megabytes, hint = GREEDY[step]
    workspace = smoke.copy(tmp_path / "ws")
    forget(workspace, step)
    message = refused(
        *at_door(smoke, workspace, tmp_path / "out", step), "--set", f"{step}.{setting}",
        **starving(tmp_path / "hurt", f"open:{step}.progress", megabytes=megabytes),
    )  # fmt: skip
    assert f"{step} ran out of memory" in message
    assert hint in message


@pytest.mark.parametrize(
    ("step", "config"),
    [
        ("ingest", IngestConfig(source="x", memory_limit_mb=64)),
        ("validate", ValidateConfig(memory_limit_mb=64)),
        ("featurize", FeaturizeConfig(memory_limit_mb=256)),
    ],
)
def test_duckdb_that_reached_its_limit_asks_for_a_higher_one(step: str, config: IngestConfig) -> None:
    limit = config.memory_limit_mb
    settings = {"memory_limit": f"{limit}MB", "temp_directory": ""}
    with (
        duckdb.connect(config=settings) as db,
        pytest.raises(OutOfMemory, match=rf"{step}\.memory_limit_mb={2 * limit} \(now {limit}\)"),
        memory.told(step, config),
    ):
        db.execute("SELECT list(range) FROM range(1000000000)").fetchone()


def test_a_machine_that_has_no_more_asks_duckdb_for_less() -> None:
    config = FeaturizeConfig(memory_limit_mb=2048)
    with (
        pytest.raises(OutOfMemory, match=r"memory_limit_mb=1024 \(now 2048\); featurize\.join_chunk=50000"),
        memory.told("featurize", config),
    ):
        raise duckdb.OutOfMemoryException("Out of Memory Error: Failed to allocate block of 1 bytes (bad allocation)")


def test_another_error_is_not_taken_for_it() -> None:
    with pytest.raises(RuntimeError, match="shape mismatch"), memory.told("finetune", DistillConfig()):
        raise RuntimeError("shape mismatch")
    with (
        pytest.raises(OutOfMemory, match=r"no room for another object(.|\n)*distill\.batch_size=16 \(now 32\)"),
        memory.told("distill", DistillConfig()),
    ):
        raise MemoryError
    with pytest.raises(OutOfMemory) as told, memory.told("export", ExportConfig(index="exact", fp16=False, int8=False)):
        raise RuntimeError("bad allocation")
    assert told.value.hint == "the most effective first: export.parity_samples=128 (now 256)"

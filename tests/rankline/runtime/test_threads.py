"""The libraries of a process use the processors that it may use: by its affinity, and by the quota of its container."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rankline.runtime.threads import OURS, VARIABLES, allowed_cpus, limit_threads, session_threads

MACHINE = len(os.sched_getaffinity(0))


def cgroups(folder: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    """What /sys/fs/cgroup and /proc/self/cgroup hold."""
    for name, text in files.items():
        (folder / "sys" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "sys" / name).write_text(text)
    (folder / "own").write_text(own)
    return folder / "sys", folder / "own"


V1 = "12:memory:/pod\n4:cpu,cpuacct:/pod/c\n0::/pod/c\n"
ONE = pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/\n", {"cpu.max": "100000 100000\n"}),  # version 2, seen from the container
        ("0::/pod/c\n", {"pod/c/cpu.max": "max 100000\n", "pod/cpu.max": "60000 100000\n"}),  # the pod's, not its own
        ("0::/of/the/host\n", {"cpu.max": "50000 100000\n"}),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "100000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}),
        (V1, {"cpu/pod/c/cpu.cfs_quota_us": "25000", "cpu/pod/c/cpu.cfs_period_us": "100000"}),
    ],
)
NONE = pytest.mark.parametrize(
    ("own", "files"),
    [
        ("", {}),
        ("0::/\n", {"cpu.max": "max 100000\n"}),
        ("0::/\n", {"cpu.max": "no quota"}),
        ("0::/\n", {"cpu.max": "99900000 100000\n"}),
        ("3:cpuset:/a\n", {"cpuset/a/cpu.cfs_quota_us": "1000", "cpuset/a/cpu.cfs_period_us": "100000"}),
        (V1, {"cpu/pod/cpu.cfs_quota_us": "-1", "cpu/pod/cpu.cfs_period_us": "100000"}),
    ],
)


@ONE
def test_a_quota_is_read_in_both_versions(tmp_path: Path, own: str, files: dict[str, str]) -> None:
    assert allowed_cpus(*cgroups(tmp_path, own, files)) == 1


@NONE
def test_without_a_quota_the_affinity_counts(tmp_path: Path, own: str, files: dict[str, str]) -> None:
    assert allowed_cpus(*cgroups(tmp_path, own, files)) == MACHINE
    assert allowed_cpus(tmp_path / "missing", tmp_path / "missing") == MACHINE


def test_a_part_of_a_processor_counts_as_one(tmp_path: Path) -> None:
    quota = int((MACHINE - 0.5) * 100_000)
    assert allowed_cpus(*cgroups(tmp_path, "0::/\n", {"cpu.max": f"{quota} 100000"})) == MACHINE


POOLS = """
import json, os, sys
from pathlib import Path
os.cpu_count = lambda: 64  # a node with many more
import numpy  # its OpenBLAS is loaded before the pools are set, as in a step
import pyarrow
from rankline.runtime import threads
from threadpoolctl import threadpool_info
threads.CGROUPS, threads.OWN_CGROUPS = Path(sys.argv[1]), Path(sys.argv[2])
threads.allowed_cpus.__defaults__ = (threads.CGROUPS, threads.OWN_CGROUPS)
for processes in json.loads(sys.argv[3]):
    threads.limit_threads(processes=processes)
import torch
import faiss
print(json.dumps({
    "pools": [pool["num_threads"] for pool in threadpool_info()],
    "torch": torch.get_num_threads(),
    "arrow": pyarrow.cpu_count(),
    "faiss": faiss.omp_get_max_threads(),
    "environment": {name: os.environ.get(name) for name in threads.VARIABLES},
}))
"""


def pools(
    own: str, files: dict[str, str], tmp_path: Path, *, processes: tuple[int, ...] = (1,), omp: str = ""
) -> dict[str, object]:
    """How many threads the libraries of a process have that may use every processor of this machine."""
    unset = {name: value for name, value in os.environ.items() if name not in (*VARIABLES, OURS)}
    done = subprocess.run(
        [sys.executable, "-c", POOLS, *map(str, cgroups(tmp_path, own, files)), json.dumps(processes)],
        env={**unset, **({"OMP_NUM_THREADS": omp} if omp else {})}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    result: dict[str, object] = json.loads(done.stdout)
    return result


@pytest.mark.integration
def test_every_pool_of_a_process_heeds_the_quota(tmp_path: Path) -> None:
    result = pools("0::/\n", {"cpu.max": "50000 100000"}, tmp_path)
    assert set(result.pop("pools")) == {1}  # type: ignore[call-overload]
    assert result == {"torch": 1, "arrow": 1, "faiss": 1, "environment": dict.fromkeys(VARIABLES, "1")}


@pytest.mark.integration
@pytest.mark.skipif(MACHINE < 2, reason="one processor has nothing to share")
def test_processes_on_one_machine_share_its_processors(tmp_path: Path) -> None:
    assert pools("", {}, tmp_path, processes=(MACHINE,))["torch"] == 1
    # the process that started them has limited itself before
    assert pools("", {}, tmp_path, processes=(1, MACHINE))["torch"] == 1


@pytest.mark.integration
@pytest.mark.skipif(MACHINE < 2, reason="with one processor there is no other number")
def test_a_number_that_the_user_has_set_counts(tmp_path: Path) -> None:
    result = pools("0::/\n", {"cpu.max": "50000 100000"}, tmp_path, omp="2")
    assert (result["torch"], result["arrow"], result["faiss"]) == (2, 2, 2)
    assert result["environment"] == {name: "2" if name == "OMP_NUM_THREADS" else None for name in VARIABLES}


@pytest.mark.parametrize(("number", "threads"), [("", 0), ("3", 3), ("4,2", 4), ("all", 0)])
def test_a_library_that_reads_no_variable_gets_the_number(
    number: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", number)
    assert session_threads() == threads


def test_where_nothing_is_limited_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, OURS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: allowed_cpus())
    limit_threads()
    assert not {*VARIABLES, OURS} & os.environ.keys()


@pytest.mark.integration
def test_a_step_and_the_server_limit_themselves(tmp_path: Path) -> None:
    """On a process that may use one processor of this machine."""
    script = (
        "import os; os.cpu_count = lambda: 64; import serving.server as server; server.serve = lambda settings: None\n"
        "import json; server.main([]); served = os.environ.pop('OMP_NUM_THREADS'); os.environ.pop('RANKLINE_THREADS')\n"
        "from pathlib import Path; from rankline.contracts import FrozenModel\n"
        "from rankline.runtime.run_context import RunContext\n"
        "from rankline.runtime.run_step import StepSpec, run_step\n"
        "def work(**given): return {'threads': os.environ['OMP_NUM_THREADS']}\n"
        "spec = StepSpec('ingest', work, FrozenModel(), reuse=False)\n"
        "print(served, json.dumps(run_step(spec, RunContext(Path.cwd(), 'r'))))\n"
    )
    unset = {name: value for name, value in os.environ.items() if name not in (*VARIABLES, OURS)}
    first = str(min(os.sched_getaffinity(0)))
    done = subprocess.run(
        ["taskset", "-c", first, sys.executable, "-c", script],
        env={**unset, "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\n")[-2] == '1 {"threads": "1"}'


LOADED = "from rankline.runtime.threads import limit_threads; limit_threads(); import torch"


@pytest.mark.integration
@pytest.mark.parametrize(("chosen", "expected"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_threads_of_torch_sleep_while_they_wait_unless_the_user_says_otherwise(
    chosen: dict[str, str], expected: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_DISPLAY_ENV": "TRUE", **chosen}  # the library prints what it has read
    result = subprocess.run([sys.executable, "-c", LOADED], env=environment, capture_output=True, text=True)
    assert f"OMP_WAIT_POLICY = '{expected}'" in result.stderr

"""As many threads as this process may use processors, in every library that has a pool of them.

Most libraries count the processors of the machine. A container may use fewer: its share is a quota of its control group
(`cpu.max`; `cpu.cfs_quota_us` in version 1), which slows down whoever starts more threads than that.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
CHOSEN, OURS = "OMP_NUM_THREADS", "RANKLINE_THREADS"  # the first counts where a user has set it, and not we ourselves
# Libraries read them when they are loaded, child processes when they start. The first one covers torch and FAISS, too.
VARIABLES = (CHOSEN, "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "POLARS_MAX_THREADS",
             "RAYON_NUM_THREADS")  # fmt: skip

WAITING = "OMP_WAIT_POLICY"


def allowed_cpus(cgroups: Path = CGROUPS, own_cgroups: Path = OWN_CGROUPS) -> int:
    """The number of processors that this process may use: its affinity, and the quota of its control groups."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in _own_folders(cgroups, own_cgroups) for quota in _quotas(folder)]
    return max(1, min([affinity, *map(math.ceil, quotas)]))


def limit_threads(*, processes: int = 1) -> None:
    """Let the libraries of this process use the processors that it may use, shared with the other ``processes``.

    Their number stays where it may use all of the machine's, or where the user has set OMP_NUM_THREADS. Threads that
    wait sleep instead of spinning, unless the user has set OMP_WAIT_POLICY: beside another process that spins, each of
    a model's many short operations waits for a thread that does not get the processor.
    """
    os.environ.setdefault(WAITING, "PASSIVE")
    ours, threads = os.environ.get(OURS), max(1, allowed_cpus() // processes)
    if os.environ.get(CHOSEN, ours) != ours or threads >= (os.cpu_count() or 1):
        return
    names = [name for name in VARIABLES if os.environ.get(name, ours) == ours]
    os.environ.update(dict.fromkeys([*names, OURS], str(threads)))
    # libraries that are loaded already do not read the environment again
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads)
    if pyarrow := sys.modules.get("pyarrow"):
        pyarrow.set_cpu_count(threads)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)


def session_threads() -> int:
    """The threads of a library that does not read OMP_NUM_THREADS itself; 0 for its own number."""
    number = os.environ.get(CHOSEN, "").partition(",")[0]
    return int(number) if number.isdecimal() else 0


def _own_folders(cgroups: Path, own_cgroups: Path) -> Iterator[Path]:
    """The folders of the control groups that this process is in, and of those around them.

    In a container the path may be that of the host: its own group is then what is mounted.
    """
    try:
        lines = own_cgroups.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for root in (cgroups / controllers, cgroups / "cpu") if controllers else (cgroups,):
            folder = root / path.lstrip("/")
            yield from (each for each in (folder, *folder.parents) if each.is_relative_to(root))


def _quotas(folder: Path) -> Iterator[float]:
    """The processors that a control group may use; nothing where it has no quota."""
    with contextlib.suppress(OSError, ValueError):  # `max` is no number
        quota, period = map(int, (folder / "cpu.max").read_text().split())
        yield quota / period
    with contextlib.suppress(OSError, ValueError):
        quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        if quota > 0:
            yield quota / period

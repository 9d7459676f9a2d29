"""The machine: processor, memory, disk, file system, clock, port."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from cli.formats import format_bytes
from cli.project.checks.model import Check, CheckContext, Finding, Status
from rankline.runtime.threads import allowed_cpus
from rankline.utc import parse_utc

MEMORY_WANTED, MEMORY_LEAST = 2e9, 1e9  # bytes; the demo peaks at 1.3 GB in one step
DISK_WANTED, DISK_LEAST = 5e9, 2e8  # bytes
MAX_SKEW_S = 60.0


def processor(context: CheckContext) -> Iterator[Finding]:
    """The usable cores, and the instructions that make int8 and bf16 fast."""
    cores = allowed_cpus()
    flags = _cpu_flags()
    int8 = any(flag in flags for flag in ("avx512_vnni", "avx_vnni", "asimddp"))
    bf16 = any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))
    summary = f"{cores} core{'s' * (cores != 1)}; int8 {'fast (VNNI)' if int8 else 'not faster than fp32 (no VNNI)'}"
    summary += f"; bf16 {'fast' if bf16 else 'slow (no BF16 instructions)'}"
    wants_bf16 = context.recipe.finetune.precision == "bf16" and not bf16
    hint = "set finetune.precision=fp32 or auto" if wants_bf16 else ""
    yield Finding("processor", "warn" if wants_bf16 else "ok", summary, hint)


def _cpu_flags() -> set[str]:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith(("flags", "features")):
                return set(line.split(":", 1)[1].split())
    return set()


def memory(context: CheckContext) -> Iterator[Finding]:
    """The free memory, within the limit of a container."""
    import psutil

    free = float(psutil.virtual_memory().available)
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # "max" is no limit
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
    status = _status(free, wanted=MEMORY_WANTED, least=MEMORY_LEAST)
    hint = "" if status == "ok" else "stop other processes, or raise the container's limit; a step takes up to 1.5 GB"
    yield Finding("memory", status, f"{format_bytes(free)} free", hint)


def _status(free: float, *, wanted: float, least: float) -> Status:
    return "ok" if free >= wanted else "warn" if free >= least else "fail"


def disk(context: CheckContext) -> Iterator[Finding]:
    """The free disk space where the workspace is or will be."""
    free = shutil.disk_usage(context.nearest_folder).free
    status = _status(free, wanted=DISK_WANTED, least=DISK_LEAST)
    hint = f"free some space (rm -r {context.workspace}/cache is safe), or use another --workspace"
    summary = f"{format_bytes(free)} free at {context.nearest_folder}"
    yield Finding("disk", status, summary, "" if status == "ok" else hint)


def file_system(context: CheckContext) -> Iterator[Finding]:
    """A file can be written, hard-linked and renamed over another, as runs do."""
    folder = context.nearest_folder
    first, second = (folder / f".rankline-doctor-{uuid.uuid4().hex}" for _ in range(2))
    operation = "written"
    try:
        with first.open("xb") as stream:
            stream.write(b"x" * 65_536)
            stream.flush()
            os.fsync(stream.fileno())
        written = first.stat().st_mtime
        operation = "linked"
        os.link(first, second)
        operation = "replaced"
        os.replace(first, second)
        yield Finding("file system", "ok", f"files can be written, linked and replaced in {folder}")
        skew = abs(written - time.time())
        if skew > MAX_SKEW_S:
            yield Finding(
                "clock", "fail", f"a file written now has a time that is {skew:.0f} s off",
                "synchronize the clocks of this machine and of the file server (NTP)",
            )  # fmt: skip
    except OSError as error:
        hint = "free some space, fix its permissions, or use another --workspace"
        if operation == "linked":
            hint = "the model registry needs hard links: use a --workspace on another file system"
        yield Finding("file system", "fail", f"a file cannot be {operation} in {folder}: {error.strerror}", hint)
    finally:
        for path in (first, second):
            with contextlib.suppress(OSError):
                path.unlink()


def clock(context: CheckContext) -> Iterator[Finding]:
    """Nothing in the workspace is from the future, since reuse and history depend on the order of times."""
    from datetime import UTC, datetime

    from rankline.errors import RanklineError
    from rankline.registry.model_registry import ModelRegistry

    if not context.workspace.is_dir() and not context.recipe.storage.repository:
        return
    now, ahead = time.time(), []
    for path in context.workspace.glob("runs/*/*.json"):
        if (late := path.stat().st_mtime - now) > MAX_SKEW_S:
            ahead.append((late, str(path.relative_to(context.workspace))))
    with contextlib.suppress(RanklineError, ValueError, OSError):  # another check reports that
        for event in ModelRegistry(context.repository).history():
            if (late := (parse_utc(event.at) - datetime.now(UTC)).total_seconds()) > MAX_SKEW_S:
                ahead.append((late, f"event {event.n} of the model registry"))
    if ahead:
        late, name = max(ahead)
        summary = f"{len(ahead)} files or events are from the future; {name} by {late:.0f} s"
        yield Finding(
            "clock", "fail", summary, "synchronize this machine's clock (NTP), or touch the files if it is right"
        )
    else:
        yield Finding("clock", "ok", f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC; nothing here is from the future")


def port(context: CheckContext) -> Iterator[Finding]:
    """The server's port is free, or a Rankline server listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", context.port))
            yield Finding("port", "ok", f"{context.port} is free")
            return
        except OSError as error:
            reason = error.strerror
    if _is_rankline_server(context.port):
        yield Finding("port", "ok", f"{context.port}: a Rankline server answers there")
    else:
        hint = "rankline serve --port 0 takes a free one"
        yield Finding("port", "warn", f"{context.port} is not available: {reason}", hint)


def _is_rankline_server(number: int) -> bool:
    """Whether a Rankline server listens on this port."""
    import httpx

    try:
        response = httpx.get(f"http://127.0.0.1:{number}/readyz", timeout=2, trust_env=False)
        return "features" in response.json()
    except (httpx.HTTPError, ValueError, TypeError):
        return False


CHECKS: tuple[Check, ...] = (processor, memory, disk, file_system, clock, port)

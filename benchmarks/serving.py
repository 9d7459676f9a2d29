"""Load on a server of the demo's champion: closed loop, open loop, probes, start and memory; two versions side by side.

The versions take turns within one run, because the absolute times of a shared machine drift. The clients are a process
of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[1]
USERS = 943  # of MovieLens-100k


@dataclass(frozen=True)
class Load:
    """``callers`` who each wait for their answer, or ``rate`` requests per second whoever waits."""

    url: str
    seconds: float
    callers: int = 1
    rate: float = 0.0
    probes: bool = False  # ask /livez, /readyz and /metrics meanwhile, and measure them alone


@dataclass(frozen=True)
class Measured:
    """Requests per second, and milliseconds of an answer; ``refused`` had another status than 200."""

    per_s: float
    p50_ms: float
    p99_ms: float
    refused: int = 0
    cpu_ms: float = 0.0  # of the server, per answer: what a shared machine changes least


class Connection:
    """One HTTP/1.1 connection with one request at a time."""

    async def open(self, url: str) -> Connection:
        """Connect to a server."""
        address = urlsplit(url)
        self._reader, self._writer = await asyncio.open_connection(address.hostname, address.port)
        return self

    async def status(self, request: bytes) -> int:
        """Send a request; the status of its response."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        await self._reader.readexactly(int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]))
        return int(head[9:12])


def post(body: dict[str, Any]) -> bytes:
    """A request for recommendations."""
    content = json.dumps(body).encode()
    head = f"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    return head.encode() + b"\r\n\r\n" + content


def draw(rng: random.Random) -> bytes:
    """A request of a user drawn at random."""
    return post({"user_id": str(rng.randint(1, USERS)), "k": 10})


async def closed_loop(load: Load) -> list[tuple[float, int]]:
    """(seconds, status) of every answer."""
    answers: list[tuple[float, int]] = []
    end = time.perf_counter() + load.seconds

    async def ask(seed: int) -> None:
        rng, connection = random.Random(seed), await Connection().open(load.url)
        while (began := time.perf_counter()) < end:
            status = await connection.status(draw(rng))
            answers.append((time.perf_counter() - began, status))

    await asyncio.gather(*(ask(seed) for seed in range(load.callers)))
    return answers


async def open_loop(load: Load) -> list[tuple[float, int]]:
    """As many requests as the rate says, at random times; the seconds count from the time a request was due."""
    rng, answers, free = random.Random(0), [], [await Connection().open(load.url) for _ in range(64)]
    due, end, asked = time.perf_counter(), time.perf_counter() + load.seconds, []

    async def ask(due: float, request: bytes) -> None:
        connection = free.pop() if free else await Connection().open(load.url)
        status = await connection.status(request)
        answers.append((time.perf_counter() - due, status))
        free.append(connection)

    while due < end:
        await asyncio.sleep(due - time.perf_counter())
        asked.append(asyncio.create_task(ask(due, draw(rng))))
        due += rng.expovariate(load.rate)
    await asyncio.gather(*asked)
    return answers


async def probe(load: Load) -> list[tuple[float, int]]:
    """What the probes take beside the callers."""
    answers: list[tuple[float, int]] = []
    connection, callers = await Connection().open(load.url), asyncio.create_task(closed_loop(load))
    while not callers.done():
        for path in ("livez", "readyz", "metrics"):
            began = time.perf_counter()
            status = await connection.status(f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            answers.append((time.perf_counter() - began, status))
        await asyncio.sleep(0.02)
    await callers
    return answers


def measure(load: Load) -> Measured:
    """Put a load on a server and measure its answers."""
    answers = asyncio.run(probe(load) if load.probes else open_loop(load) if load.rate else closed_loop(load))
    times = sorted(seconds * 1000 for seconds, status in answers if status == 200) or [float("inf")]
    return Measured(
        per_s=len(times) / load.seconds,
        p50_ms=times[len(times) // 2],
        p99_ms=times[min(len(times) - 1, int(len(times) * 0.99))],
        refused=sum(status != 200 for _, status in answers),
    )


@dataclass(frozen=True)
class Server:
    """A running server, and what its start took."""

    name: str
    url: str
    pid: int
    start_s: float
    start_processor_s: float = 0.0

    @property
    def memory_mb(self) -> float:
        """Its resident memory."""
        import psutil

        return float(psutil.Process(self.pid).memory_info().rss) / 1e6

    def processor_s(self) -> float:
        """The processor seconds that it has used so far."""
        import psutil

        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)


@contextmanager
def running(name: str, tree: Path, workspace: Path, options: Sequence[str]) -> Iterator[Server]:
    """A server of the workspace's champion by the code of a tree, once it reads its features."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        arguments = ["--repository", workspace / "repository", "--features", workspace / "online" / "ranking_v1"]
        command = [sys.executable, "-m", "serving", *map(str, arguments), "--port", "0", "--ready-file", str(ready)]
        environment = os.environ | {"PYTHONPATH": str(tree)}
        # a session of its own: Linux shares the processors among sessions, whatever their number of threads
        process = subprocess.Popen(
            [*command, *options], cwd=tree, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
        )
        try:
            while not ready.exists():
                assert process.poll() is None, f"the server {name} does not start"
                time.sleep(0.01)
            url = json.loads(ready.read_text())["url"]
            while _get(f"{url}/readyz")["features"]["state"] != "ready":
                time.sleep(0.01)
            server = Server(name, url, process.pid, time.perf_counter() - began)
            yield replace(server, start_processor_s=server.processor_s())
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def tree_of(commit: str) -> Iterator[Path]:
    """The code of a commit in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        yield Path(folder)


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as response:
        return json.load(response)


def compare(servers: Sequence[Server], seconds: float, repetitions: int) -> None:
    """Print what each server reaches; they take turns."""
    with multiprocessing.get_context("spawn").Pool(1, os.setsid) as clients:

        def rounds(**load: Any) -> dict[str, Measured]:
            results: dict[str, list[Measured]] = {server.name: [] for server in servers}
            for _ in range(repetitions):
                for server in servers:
                    rate = load.get("rate", {}).get(server.name, 0.0)
                    each = Load(server.url, seconds, **{**load, "rate": rate})
                    before = server.processor_s()
                    measured = clients.apply(measure, (each,))
                    answers = max(1.0, measured.per_s * seconds)
                    cpu_ms = (server.processor_s() - before) * 1000 / answers
                    results[server.name].append(replace(measured, cpu_ms=cpu_ms))
            return {name: _median(each) for name, each in results.items()}

        for server in servers:  # the first requests compile and fill caches
            clients.apply(measure, (Load(server.url, 2, callers=8),))
        before = {server.name: server.processor_s() for server in servers}
        time.sleep(5)
        idle = {server.name: (server.processor_s() - before[server.name]) / 5 for server in servers}
        print(
            "| load | server | requests/s | p50 ms | p99 ms | processor ms each | refused | ratio |\n|" + " --- |" * 8
        )
        _row("1 caller", rounds(callers=1))
        full = rounds(callers=32)
        _row("32 callers", full)
        half = {name: measured.per_s / 2 for name, measured in full.items()}
        _row("open loop, half of that", rounds(rate=half))
        first = servers[0].name
        _row(f"open loop, half of {first}'s", rounds(rate=dict.fromkeys(half, half[first])))
        _row("probes beside 200 callers", rounds(callers=200, probes=True))
    print("\n| server | start s | of a processor | memory MB | idle: processor seconds per second |\n|" + " --- |" * 5)
    for server in servers:
        start = f"{server.start_s:.1f} | {server.start_processor_s:.1f}"
        print(f"| {server.name} | {start} | {server.memory_mb:.0f} | {idle[server.name]:.3f} |")


def _median(rounds: Sequence[Measured]) -> Measured:
    middle = {
        name: statistics.median(getattr(each, name) for each in rounds)
        for name in ("per_s", "p50_ms", "p99_ms", "cpu_ms")
    }
    return Measured(**middle, refused=sum(each.refused for each in rounds))


def _row(load: str, results: dict[str, Measured]) -> None:
    first = next(iter(results.values()))
    for name, each in results.items():
        numbers = f"{each.per_s:.0f} | {each.p50_ms:.1f} | {each.p99_ms:.1f} | {each.cpu_ms:.2f} | {each.refused}"
        print(f"| {load} | {name} | {numbers} | {each.per_s / first.per_s:.2f} |", flush=True)


def main() -> None:
    """Compare the server of this tree with one of another commit, or with itself with other options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path, default=Path(".rankline"), help="of the demo (`rankline run`)")
    parser.add_argument("--against", default="", metavar="COMMIT", help="a commit whose server is measured as well")
    parser.add_argument("--options", default="", help="options of the server of this tree, such as '--workers 1'")
    parser.add_argument("--other-options", default="", help="measure this tree with these options as well")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one load")
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    workspace = arguments.workspace.resolve()
    with ExitStack() as stack:
        trees = []
        if arguments.against:
            trees.append((arguments.against, stack.enter_context(tree_of(arguments.against)), ""))
        if arguments.other_options:
            trees.append((arguments.other_options, ROOT, arguments.other_options))
        trees.append(("now", ROOT, arguments.options))
        servers = [
            stack.enter_context(running(name, tree, workspace, options.split())) for name, tree, options in trees
        ]
        print(f"load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors\n")
        compare(servers, arguments.seconds, arguments.repetitions)


if __name__ == "__main__":
    main()

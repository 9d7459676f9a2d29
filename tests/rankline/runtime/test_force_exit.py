"""A process that waits in native code for ever is ended by a signal all the same, and says so before."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# a step whose work takes a lock of the C library twice: Python never runs a signal handler again
STUCK = """
import ctypes, signal, sys
from pathlib import Path
from rankline.contracts import FrozenModel
from rankline.runtime import code_digest, force_exit
from rankline.runtime.run_context import RunContext
from rankline.runtime.run_step import StepSpec, run_step

code_digest.of_code = lambda *code: ""
force_exit.ForceExit.__init__.__kwdefaults__["timeout_s"] = 0.5
signal.signal(signal.SIGTERM, signal.default_int_handler)

def work(config, progress):
    print("working", flush=True)
    library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(128)
    for _ in range(int(sys.argv[2])):
        library.pthread_mutex_lock(mutex)
    signal.pause()

run_step(StepSpec("ingest", work, FrozenModel(), reuse=False), RunContext(Path(sys.argv[1]), "run"))
"""


@pytest.mark.parametrize(
    ("locks", "code", "message"),
    [(2, 128 + signal.SIGTERM, "during a library call that did not return"), (1, 1, "it was interrupted; run again")],
)
def test_a_signal_ends_a_step(tmp_path: Path, locks: int, code: int, message: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, str(tmp_path), str(locks)], text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    time.sleep(0.2)
    for _ in range(locks):  # a supervisor that repeats itself does not lengthen it
        process.terminate()
        time.sleep(0.05)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert message in err
    entry = json.loads((tmp_path / "runs" / "run" / "ingest.json").read_text())
    assert (entry["status"], entry["exit_code"]) == ("failed", 1)
    assert message in entry["error"]
    assert not (tmp_path / "runs" / "run" / ".reserve").exists()

"""What a step says to those who can read only the log of its pod: where its own lines begin, and how it ended.

In a pod of Kubeflow a step's lines stand between those of the launcher. So the step prints a line before its first one
and, after its last one, its entry of the ledger as JSON. On one machine it prints neither.

    rankline-step: finetune
    rankline-result: {"step": "finetune", "status": "done", "result": {…}, …}

A pod that does the work of several steps prints them for each, one after the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rankline.io.files import json_object
from rankline.pod import in_pod
from rankline.runtime.ledger import Entry

STARTED, RESULT = "rankline-step: ", "rankline-result: "
# the two formats of Go programs: the launcher's (klog), and that of Argo's executor and Kubeflow's driver (logfmt)
_KLOG = re.compile(r"^[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ [\w.-]+:\d+\] ")
_LOGFMT = re.compile(r'^time="?\d{4}-\S+ level=\w+ msg=')
_EXIT_STATUS = re.compile(r"exit status (\d+)")  # the launcher's last words on a process that failed


@dataclass
class PodOutput:
    """The log of a step's pod."""

    lines: list[str] = field(default_factory=list)  # the step's own
    begun: bool = False  # whether its work has begun
    result: dict[str, Any] = field(default_factory=dict)  # its entry of the ledger; empty where it did not end itself
    exit_status: int | None = None  # of its process, as the launcher reports a failure


def print_start(step: str) -> None:
    """Print that the step's own lines begin."""
    if in_pod():
        print(f"{STARTED}{step}", flush=True)


def print_result(entry: Entry) -> None:
    """Print how the step ended."""
    if in_pod():
        payload = entry.model_dump(mode="json", exclude={"pid", "inputs", "outputs", "paths", "settings"})
        print(f"{RESULT}{json.dumps(payload)}", flush=True)


def read_pod_output(log: Sequence[str]) -> PodOutput:
    """A step's own lines in the log of its pod, and how it ended.

    A step of an earlier version, or one that stopped before its work began, printed neither line: then all lines that
    are not of Kubeflow's own programs are the step's.
    """
    output = PodOutput()
    for line in log:
        if _KLOG.match(line) or _LOGFMT.match(line):
            if status := _EXIT_STATUS.search(line):
                output.exit_status = int(status[1])
        elif STARTED in line:
            output.lines.clear()
            output.begun = True
        elif RESULT in line:  # what the step wrote last may lack its line end
            before, _, payload = line.partition(RESULT)
            output.result = json_object(payload)
            output.lines += [before] if before else []
            output.lines += str(output.result.get("error", "")).splitlines()
        elif not output.result:
            output.lines.append(line)
    return output


def part_of_log(log: Sequence[str], step: str, *, is_first: bool) -> list[str]:
    """The lines of one of several steps in the log of their pod; none of a step that has not begun.

    What a pod wrote that stopped before its work began is of the first step.
    """
    begins = [number for number, line in enumerate(log) if STARTED in line]
    if not begins:
        return list(log) if is_first else []
    for begin, end in zip(begins, [*begins[1:], len(log)]):
        if log[begin].partition(STARTED)[2].strip() == step:
            return list(log[begin:end])
    return []

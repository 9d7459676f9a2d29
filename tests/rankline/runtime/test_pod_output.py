"""A step in a pod of Kubeflow says where its lines begin and how it ended, between the launcher's lines."""

import json

import pytest

from rankline.runtime import ledger
from rankline.runtime.pod_output import RESULT, STARTED, print_result, print_start, read_pod_output

# as Argo's executor, Kubeflow's launcher and kfp's executor write them
BEFORE = """time="2026-11-30T05:45:40.103Z" level=INFO msg="capturing logs" argo=true
I1130 05:45:40.244031      17 launcher_v2.go:160] input ComponentSpec:{
  "inputDefinitions": {
    "parameters": {}
  }
}
I1130 05:45:40.251007      17 cache.go:77] Connecting to cache endpoint 10.96.119.219:8887
[KFP Executor 2026-11-30 05:45:41,522 INFO]: Looking for component `finetune` in --component_module_path
""".splitlines()
AFTER = """I1130 05:46:21.342306      17 launcher_v2.go:193] publish success.
I1130 05:46:21.401212      17 client.go:752] Attempting to update DAG state
time="2026-11-30T05:46:21.812Z" level=INFO msg="sub-process exited" argo=true error="<nil>"
""".splitlines()
KILLED = """F1130 05:45:50.332347      17 main.go:53] failed to execute component: exit status 137
time="2026-11-30T05:45:50.387Z" level=INFO msg="sub-process exited" argo=true error="<nil>"
Error: exit status 1
""".splitlines()


def entry(**fields: object) -> ledger.Entry:
    return ledger.Entry.model_validate({"step": "decide", "status": "done", "started": 1.0, **fields})


def test_a_step_prints_both_lines_in_a_pod_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    print_start("decide")
    print_result(entry())
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("ARGO_NODE_ID", "rankline-smoke-v8n6p-1")
    print_start("decide")
    print_result(entry(result={"outcome": "refused"}, paths={"verdict": "decide/verdict"}))
    first, last = capsys.readouterr().out.splitlines()
    assert first == f"{STARTED}decide"
    payload = json.loads(last.removeprefix(RESULT))
    assert payload["result"] == {"outcome": "refused"}
    assert "paths" not in payload


def test_only_the_lines_of_the_step_are_its_own() -> None:
    result = f'{RESULT}{{"status": "done", "result": {{"loss": 0.5}}}}'
    output = read_pod_output([*BEFORE, f"{STARTED}finetune", "epoch 1", "<html> is a line, too", result, *AFTER])
    assert output.lines == ["epoch 1", "<html> is a line, too"]
    assert output.begun
    assert output.result["result"] == {"loss": 0.5}
    assert output.exit_status is None


def test_the_error_of_a_step_is_its_last_line_even_where_the_one_before_has_no_end() -> None:
    result = RESULT + json.dumps({"status": "failed", "error": "the champion changed\n  try: run it again"})
    output = read_pod_output([*BEFORE, f"{STARTED}decide", f"epoch 1{result}", "the champion changed", *KILLED])
    assert output.lines == ["epoch 1", "the champion changed", "  try: run it again"]


def test_a_killed_step_has_lines_and_the_launchers_exit_status() -> None:
    output = read_pod_output([*BEFORE, f"{STARTED}finetune", "epoch 1", *KILLED[:2]])
    assert (output.lines, output.result, output.exit_status) == (["epoch 1"], {}, 137)


def test_a_step_that_never_began_its_work_is_shown_without_the_lines_of_go_programs() -> None:
    output = read_pod_output([*BEFORE, "ModuleNotFoundError: No module named 'torch'", *AFTER])
    assert output.lines[-1] == "ModuleNotFoundError: No module named 'torch'"
    assert not output.begun
    assert not any("launcher_v2" in line or "level=INFO" in line for line in output.lines)


@pytest.mark.parametrize("payload", ["{", "[1]", "nothing"])
def test_a_result_that_cannot_be_read_is_none(payload: str) -> None:
    assert read_pod_output([f"{STARTED}decide", "a", f"{RESULT}{payload}"]).result == {}

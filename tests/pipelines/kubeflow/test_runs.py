"""A cluster through kfp's own client: signing in, uploading, running, and its errors."""

# ruff: noqa: F811 (fixtures are asked for by their name)
from __future__ import annotations

import json
import socket
import stat
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.kubeflow import auth
from pipelines.kubeflow.client import Access, Cluster, connect, connected
from pipelines.kubeflow.conformance import package_problems
from pipelines.kubeflow.packages import upload
from pipelines.kubeflow.runs import ClusterRuns, follow, submit
from pipelines.runs.store import Runs
from rankline.errors import AccessError, RanklineError, UsageError
from rankline.runtime.steps import TRAINING_STEPS
from tests.pipelines import golden
from tests.pipelines.kubeflow.kubeflow_world import cluster, compiled_once, kubeflow, nothing_of_ours, reach  # noqa: F401
from tests.servers.kubeflow import NAMESPACE, PASSWORD, TOKEN, USER, Kubeflow, kubeflow_server
from tests.servers.process import free_port

VERDICTS = {"promote": "promoted", "already_serving": "already serving", "refused": "refused"}  # by their branches


def submitted(cluster: Cluster) -> str:
    return submit(cluster, upload(cluster, golden.pinned("smoke"))).run


# the double itself


def test_the_double_refuses_fields_and_values_that_the_client_does_not_know(kubeflow: Kubeflow) -> None:
    def post(body: dict[str, Any]) -> tuple[int, str]:
        request = urllib.request.Request(
            f"{kubeflow.host}/apis/v2beta1/experiments", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    assert post({"display_name": "a", "namespace": NAMESPACE})[0] == 200
    assert "colour" in post({"display_name": "a", "namespace": NAMESPACE, "colour": "red"})[1]
    status, message = post({"display_name": "a", "namespace": NAMESPACE, "storage_state": "SOMEWHERE"})
    assert status == 400
    assert "SOMEWHERE" in message


def test_the_double_refuses_a_package_that_breaks_a_rule(kubeflow: Kubeflow, cluster: Cluster, tmp_path: Path) -> None:
    version = upload(cluster, golden.pinned("smoke"))
    documents = list(yaml.safe_load_all(golden.path("train").read_text()))
    documents[0]["schemaVersion"] = "2.2.0"
    package = tmp_path / "flow.yaml"
    package.write_text(yaml.safe_dump_all(documents))
    assert list(package_problems(package))
    with pytest.raises(UsageError, match=r"schemaVersion 2\.2\.0"):
        cluster.client.upload_pipeline_version(str(package), "other", pipeline_id=version.pipeline_id)


# signing in


def test_none(cluster: Cluster) -> None:
    assert cluster.namespace == NAMESPACE
    assert ClusterRuns(cluster).list() == []


def test_with_a_single_user_no_namespace_is_sent(tmp_path: Path) -> None:
    with kubeflow_server(tmp_path, multi_user=False) as server:
        cluster = reach(server, namespace="mine")
        assert cluster.namespace_or_none is None
        assert follow(cluster, submitted(cluster), poll_s=0)["outcome"] == "promoted"
        assert server.api.pipelines
        assert all("namespace" not in each for each in server.api.pipelines.values())


def test_several_users_need_a_namespace(kubeflow: Kubeflow) -> None:
    with pytest.raises(UsageError, match="no namespace is given"):
        reach(kubeflow, namespace="")


def test_a_token_of_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with kubeflow_server(tmp_path, auth="token") as server:
        with pytest.raises(AccessError, match=r"who asks \(401\)"):
            reach(server)
        with pytest.raises(UsageError, match="no service account token"):
            reach(server, auth="token")
        monkeypatch.setenv(auth.TOKEN, TOKEN)
        assert reach(server, auth="token").namespace == NAMESPACE
        monkeypatch.delenv(auth.TOKEN)
        projected = tmp_path / "token"
        projected.write_text(TOKEN + "\n")
        monkeypatch.setenv(auth.TOKEN_FILE, str(projected))
        cluster = reach(server, auth="token")
        projected.write_text("expired")  # what it holds is read for each request
        with pytest.raises(AccessError, match="401") as refusal:
            ClusterRuns(cluster).list()
        assert TOKEN not in str(refusal.value)
        projected.write_text(TOKEN)
        assert ClusterRuns(cluster).list() == []
        projected.write_text("")
        with pytest.raises(UsageError, match="token is empty"):
            reach(server, auth="token")


def test_a_cookie_and_a_session_that_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with kubeflow_server(tmp_path, auth="cookie") as server:
        with pytest.raises(UsageError, match="no session cookie"):
            reach(server, auth="cookie")
        monkeypatch.setenv(auth.COOKIE, "fresh")
        with pytest.raises(UsageError, match="has no name"):
            reach(server, auth="cookie")
        monkeypatch.setenv(auth.COOKIE, "authservice_session=stale")
        with pytest.raises(AccessError, match="sign-in page"):
            reach(server, auth="cookie")
        monkeypatch.setenv(auth.COOKIE, server.api.session)
        cluster = reach(server, auth="cookie")
        run = submitted(cluster)
        server.api.expired = True
        with pytest.raises(AccessError, match="the session has expired") as refusal:
            follow(cluster, run, poll_s=0)
        assert auth.COOKIE in str(refusal.value)
        assert server.api.session not in str(refusal.value)


def test_dex_with_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with kubeflow_server(tmp_path, auth="cookie") as server:
        with pytest.raises(UsageError, match=f"no {auth.USER} and {auth.PASSWORD}"):
            reach(server, auth="dex")
        monkeypatch.setenv(auth.USER, USER)
        monkeypatch.setenv(auth.PASSWORD, "wrong")
        with pytest.raises(UsageError, match="does not accept this password") as refusal:
            reach(server, auth="dex")
        assert "wrong" not in str(refusal.value)
        monkeypatch.setenv(auth.PASSWORD, PASSWORD)
        cluster = reach(server, auth="dex")
        assert "POST /dex/approval" in server.api.asked
        assert ClusterRuns(cluster).list() == []


def test_dex_where_nobody_is_asked_to_sign_in(kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(auth.USER, USER)
    monkeypatch.setenv(auth.PASSWORD, PASSWORD)
    with pytest.raises(AccessError, match="does not ask for a sign-in"):
        reach(kubeflow, auth="dex")


def test_existing_settings(kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the address of Kubeflow Pipelines is not set"):
        connect(Access(namespace=NAMESPACE))
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", kubeflow.host)
    assert connect(Access(namespace=NAMESPACE)).host == kubeflow.host
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    # a kubeconfig leads through the cluster's own proxy
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "far",
        "clusters": [{"name": "far", "cluster": {"server": kubeflow.host.removesuffix("/pipeline")}}],
        "users": [{"name": "me", "user": {"token": TOKEN}}],
        "contexts": [{"name": "far", "context": {"cluster": "far", "user": "me"}}],
    }  # fmt: skip
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    import kubernetes.config.kube_config as places

    monkeypatch.setattr(places, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    cluster = connect(Access(namespace=NAMESPACE, context="far"))
    assert ClusterRuns(cluster).list() == []
    assert kubeflow.api.proxied == 4  # every one: is it there (twice), our pipelines, their runs
    assert not (tmp_path / "context.json").exists()  # the user's own settings are left alone
    with pytest.raises(UsageError, match="no context 'near'"):
        connect(Access(namespace=NAMESPACE, context="near"))


KUBECTL = """#!{python}
import socket, sys, threading
*options, service, port = sys.argv[1:]
assert options == ["--context", "far", "-n", "kubeflow", "port-forward", "--address", "127.0.0.1"], options
if (service, port) != ({service!r}, {service_port!r}):
    sys.exit(f'Error from server (NotFound): services "{{service}}" not found')
listener = socket.create_server(("127.0.0.1", 0))
print(f"Forwarding from 127.0.0.1:{{listener.getsockname()[1]}} -> 3000", flush=True)
def pump(a, b):
    while data := a.recv(65536):
        b.sendall(data)
    b.shutdown(socket.SHUT_WR)
while True:
    here, _ = listener.accept()
    there = socket.create_connection(("127.0.0.1", {port}))
    threading.Thread(target=pump, args=(here, there), daemon=True).start()
    threading.Thread(target=pump, args=(there, here), daemon=True).start()
"""


@pytest.mark.parametrize("service", ["svc/ml-pipeline-ui :80", "svc/ml-pipeline :8888"])
def test_a_port_is_forwarded_as_long_as_it_is_needed(
    kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, service: str
) -> None:
    import sys

    program = tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    name, port = service.split()
    program.write_text(KUBECTL.format(python=sys.executable, port=kubeflow.port, service=name, service_port=port))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(program.parent))
    with connected(Access(namespace=NAMESPACE, auth="port-forward", context="far")) as cluster:
        assert str(kubeflow.port) not in cluster.host
        assert ClusterRuns(cluster).list() == []
    with pytest.raises(AccessError, match="cannot be reached"):
        ClusterRuns(cluster).list()
    program.write_text("#!/bin/sh\necho 'error: no context far' >&2\nexit 1\n")
    with pytest.raises(AccessError, match="error: no context far"):
        connected(Access(namespace=NAMESPACE, auth="port-forward", context="far")).__enter__()
    program.unlink()
    with pytest.raises(UsageError, match="kubectl is not installed"):
        connected(Access(namespace=NAMESPACE, auth="port-forward")).__enter__()


# errors of a cluster


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="connection refused"):
        connect(Access(host=f"http://127.0.0.1:{free_port()}", auth="none"))
    with pytest.raises(AccessError, match="no such host"):
        connect(Access(host="http://kubeflow.invalid", auth="none"))


@pytest.mark.parametrize(
    ("host", "expected"), [("", "needs a host"), ("kubeflow.example.com", "is not a URL"), ("ftp://a", "is not a URL")]
)
def test_a_host_that_is_none(host: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        connect(Access(host=host, auth="none"))


def test_a_certificate_that_nobody_trusts(tmp_path: Path) -> None:
    with kubeflow_server(tmp_path, tls=True) as server:
        with pytest.raises(AccessError, match="certificate is not trusted") as refusal:
            reach(server)
        assert "--ca" in str(refusal.value)
        assert reach(server, ca=server.ca).namespace == NAMESPACE
        with pytest.raises(UsageError, match="file of --ca does not exist"):
            reach(server, ca=str(tmp_path / "nothing"))


def test_a_namespace_of_somebody_else(kubeflow: Kubeflow) -> None:
    cluster = reach(kubeflow, namespace="theirs")
    with pytest.raises(AccessError, match=r"may not do that there \(403\)"):
        upload(cluster, golden.pinned("smoke"))


def test_an_address_without_its_path(kubeflow: Kubeflow) -> None:
    with pytest.raises(AccessError, match="no Kubeflow Pipelines API at this address"):
        reach(kubeflow, host=f"http://127.0.0.1:{kubeflow.port}/elsewhere")


def test_a_gateway_that_fails_for_a_moment_is_asked_again(kubeflow: Kubeflow, cluster: Cluster) -> None:
    run = submitted(cluster)
    kubeflow.api.broken = 2
    assert follow(cluster, run, poll_s=0)["outcome"] == "promoted"
    kubeflow.api.broken = 1000
    with pytest.raises(AccessError, match="HTTP 503"):
        follow(cluster, run, poll_s=0.01, timeout_s=0.2)


def test_what_creates_something_is_never_sent_twice(kubeflow: Kubeflow, cluster: Cluster) -> None:
    version = upload(cluster, golden.pinned("smoke"))
    cluster.client.create_experiment("rankline", namespace=NAMESPACE)
    kubeflow.api.asked.clear()
    listener = socket.create_server(("127.0.0.1", 0))  # takes the request and hangs up
    taken: list[int] = []

    def hang_up() -> None:
        while True:
            try:
                here, _ = listener.accept()
            except OSError:
                return
            taken.append(len(here.recv(65536)))
            here.close()

    threading.Thread(target=hang_up, daemon=True).start()
    cluster.client._existing_config.host = f"http://127.0.0.1:{listener.getsockname()[1]}"
    import kfp_server_api

    with pytest.raises(AccessError, match="cannot be reached"):
        cluster.client._run_api.run_service_create_run(run=kfp_server_api.V2beta1Run(display_name=version.name))
    listener.close()
    assert len(taken) == 1


# uploading


def test_the_same_content_is_uploaded_once(kubeflow: Kubeflow, cluster: Cluster) -> None:
    first = upload(cluster, golden.pinned("smoke"))
    again = upload(reach(kubeflow), golden.pinned("smoke"))
    other = upload(cluster, golden.pinned("smoke", "finetune.epochs=7"))
    assert first.uploaded
    assert not again.uploaded
    assert (again.version_id, again.pipeline_id) == (first.version_id, first.pipeline_id)
    assert other.uploaded
    assert other.pipeline_id == first.pipeline_id
    assert other.name != first.name
    assert kubeflow.api.asked.count("POST /apis/v2beta1/pipelines/upload_version") == 2
    assert [each["display_name"] for each in kubeflow.api.pipelines.values()] == ["rankline-smoke"]
    assert {each["display_name"] for each in kubeflow.api.versions.values()} == {first.name, other.name}


def test_of_two_who_upload_the_same_at_once_the_slower_takes_the_others(
    kubeflow: Kubeflow, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.kubeflow import packages as module

    first = upload(cluster, golden.pinned("smoke"))

    def blind_at_first(real: Any) -> Any:
        answers = iter([None])  # nothing was there yet
        return lambda *given: next(answers) if answers.__length_hint__() else real(*given)

    for name in ("_version_id", "_pipeline_id"):
        monkeypatch.setattr(module, name, blind_at_first(getattr(module, name)))
    second = upload(cluster, golden.pinned("smoke"))
    assert (second.pipeline_id, second.version_id, second.uploaded) == (first.pipeline_id, first.version_id, False)


# runs


@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_verdict_is_read_off_the_tasks_that_ran(kubeflow: Kubeflow, cluster: Cluster, verdict: str) -> None:
    from rankline.runtime.outcomes import exit_code

    kubeflow.api.verdict = verdict
    summaries: list[dict[str, Any]] = []
    summary = follow(cluster, submitted(cluster), watch=summaries.append, poll_s=0)
    assert summary["outcome"] == VERDICTS[verdict]
    assert exit_code(summary["outcome"]) in (0, 3)
    assert [step["step"] for step in summary["steps"]][:9] == list(TRAINING_STEPS[:9])
    running = [step["step"] for each in summaries for step in each["steps"] if step["status"] == "running"]
    assert running[:9] == list(TRAINING_STEPS[:9])
    assert summary["url"].endswith(f"/#/runs/details/{summary['run']}")


def test_a_model_that_waits_for_its_review_has_a_task_of_that_name(kubeflow: Kubeflow, cluster: Cluster) -> None:
    kubeflow.api.verdict = "pending"
    recipe = golden.pinned("smoke", "decide.mode=review", "cluster.small.timeout_s=901")
    run = submit(cluster, upload(cluster, recipe)).run
    assert follow(cluster, run, poll_s=0)["outcome"] == "waiting for review"


@pytest.mark.parametrize("missing", ["condition-", "decide", "summary"])
def test_a_run_without_a_verdict_is_not_taken_for_one(
    kubeflow: Kubeflow, cluster: Cluster, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API shows that it has ended, and not all of its tasks yet."""
    kubeflow.api.verdict = "already_serving"
    run = submitted(cluster)
    follow(cluster, run, poll_s=0)
    workflow = kubeflow.api.workflows[run]
    tasks = workflow.tasks
    monkeypatch.setattr(
        workflow, "tasks", lambda now: [each for each in tasks(now) if not each["display_name"].startswith(missing)]
    )
    summary = follow(cluster, run, poll_s=0.01, settle_s=0.1)
    assert summary["outcome"] == "incomplete"
    assert "without a verdict" in summary["verdict"]


def test_a_branch_that_was_taken_and_whose_task_is_unknown_is_no_verdict(kubeflow: Kubeflow, cluster: Cluster) -> None:
    kubeflow.api.verdict = "refused"
    run = submitted(cluster)
    tasks = kubeflow.api.workflows[run].spec["components"]["comp-condition-3"]["dag"]["tasks"]
    tasks["something-new"] = tasks.pop("refused")
    assert follow(cluster, run, poll_s=0.01, settle_s=0.1)["outcome"] == "incomplete"


@pytest.mark.parametrize("step", ["resolve_inputs", "finetune", "promote"])
def test_a_step_that_fails(kubeflow: Kubeflow, cluster: Cluster, step: str) -> None:
    kubeflow.api.fails_at = step
    summary = follow(cluster, submitted(cluster), poll_s=0)
    assert (summary["outcome"], summary["failed_step"]) == ("failed", step)
    retries = "" if step == "resolve_inputs" else "retry-"
    assert f"see `kubectl -n {NAMESPACE} logs rankline-smoke-" in summary["error"]
    assert f"-{retries}system-container-impl-" in summary["error"]


@pytest.mark.parametrize("task", ["resolve-inputs", "look"])  # as Kubeflow writes it, and as it was called before
def test_the_names_of_a_task(kubeflow: Kubeflow, cluster: Cluster, task: str) -> None:
    run = submitted(cluster)
    follow(cluster, run, poll_s=0)
    for each in kubeflow.api.runs[run]["run_details"]["task_details"]:
        if each["display_name"] == "resolve-inputs":
            each["display_name"] = task
    assert ClusterRuns(cluster).show(run)["steps"][0]["step"] == "resolve_inputs"


def test_list_goes_through_all_pages_and_leaves_out_what_is_not_ours(kubeflow: Kubeflow, cluster: Cluster) -> None:
    kubeflow.api.page = 2
    runs = [submitted(cluster) for _ in range(5)]
    for run in runs[:2]:
        follow(cluster, run, poll_s=0)
    theirs = kubeflow.api.create_pipeline({"display_name": "theirs", "namespace": NAMESPACE})
    kubeflow.api.runs[runs[2]]["pipeline_version_reference"]["pipeline_id"] = theirs["pipeline_id"]
    lines = ClusterRuns(cluster).list()
    assert [line.run for line in lines] == [runs[0], runs[1], runs[3], runs[4]]
    assert [line.outcome for line in lines] == ["promoted", "promoted", "running", "running"]
    assert {line.recipe for line in lines} == {"smoke"}
    assert ClusterRuns(cluster).show("last")["run"] == runs[4]
    assert len(ClusterRuns(cluster, limit=1).list()) == 1
    with pytest.raises(UsageError, match="no experiment 'none'"):
        ClusterRuns(cluster, experiment="none").list()


def test_a_cluster_answers_what_a_workspace_does(cluster: Cluster) -> None:
    assert isinstance(ClusterRuns(cluster), Runs)


def test_a_run_that_is_not_there(cluster: Cluster) -> None:
    with pytest.raises(UsageError, match="there is no run 'nope'"):
        ClusterRuns(cluster).show("nope")
    with pytest.raises(UsageError, match="has no run of Rankline yet"):
        ClusterRuns(cluster).show("last")


def test_logs_as_the_api_server_hands_them_on(kubeflow: Kubeflow, cluster: Cluster) -> None:
    run, runs = submitted(cluster), ClusterRuns(cluster, poll_s=0)
    followed = list(runs.logs(run, follow=True))
    assert [each.step for each in followed if each.line.startswith("hello")][:9] == list(TRAINING_STEPS[:9])
    one = list(runs.logs(run, "finetune"))
    assert [each.step for each in one] == ["finetune", "finetune"]
    assert one[1].line == "it is SUCCEEDED"
    with pytest.raises(UsageError, match="there is no step 'paint'"):
        list(runs.logs(run, "paint"))
    kubeflow.api.logs = False
    with pytest.raises(RanklineError, match="the log of finetune cannot be read") as refusal:
        list(runs.logs(run, "finetune"))
    assert f"kubectl -n {NAMESPACE} logs rankline-smoke-" in str(refusal.value)


@pytest.mark.integration
@pytest.mark.parametrize("errors_are_ok", [True, False])
def test_logs_of_a_server_that_knows_pods_alone(kubeflow: Kubeflow, cluster: Cluster, errors_are_ok: bool) -> None:
    kubeflow.api.logs_by_node, kubeflow.api.log_errors_are_ok = False, errors_are_ok
    run, runs = submitted(cluster), ClusterRuns(cluster, poll_s=0)
    followed = list(runs.logs(run, follow=True))
    assert [each.step for each in followed if each.line.startswith("hello")][:9] == list(TRAINING_STEPS[:9])
    kubeflow.api.logs = False
    with pytest.raises(RanklineError, match="the log of finetune cannot be read") as refusal:
        list(runs.logs(run, "finetune"))
    assert "pod rankline-smoke-" in str(refusal.value)


def test_a_step_that_prints_an_object_has_a_log(kubeflow: Kubeflow, cluster: Cluster) -> None:
    kubeflow.api.log = '{{"loss": 1.0}}\n'
    run, runs = submitted(cluster), ClusterRuns(cluster, poll_s=0)
    follow(cluster, run, poll_s=0)
    assert [each.line for each in runs.logs(run, "finetune")] == ['{"loss": 1.0}']

"""A server that stands in for Kubeflow Pipelines 2.17.0, on a real port: the calls that we make, and no more.

It answers as the recordings beside it do (`tests/servers/kubeflow_recordings`), which a test compares field by field.
It is asked by kfp's own client. Each body it gets has to fit the models of `kfp_server_api` to the last field, and so
does each of its answers. What it runs comes out of the package that was uploaded: the tasks in their order, and the
branches whose condition holds; each request for a run moves it on, so that nothing here waits for a clock.

answers.py     fields, times, errors and lengths
api.py         what the server knows and what its calls do; argo.py the workflows of its runs
schedules.py   recurring runs and their ScheduledWorkflows; cron.py
recordings.py  the recordings, and how one is played
packages.py    what is uploaded; lists.py, handler.py, signing_in.py, server.py the ways to it
"""

from tests.servers.kubeflow.api import GONE, NAMESPACE, Api
from tests.servers.kubeflow.cron import cron
from tests.servers.kubeflow.recordings import ENDED, RUNS, recording
from tests.servers.kubeflow.server import Kubeflow, kubeflow_server
from tests.servers.kubeflow.signing_in import PASSWORD, TOKEN, USER

__all__ = [
    "ENDED", "GONE", "NAMESPACE", "PASSWORD", "RUNS", "TOKEN", "USER",
    "Api", "Kubeflow", "cron", "kubeflow_server", "recording",
]  # fmt: skip

"""A Kubeflow cluster.

client.py          a connection: kfp's client, signed in (auth.py), with errors of one message (errors.py)
packages.py        the pipeline of a recipe and its versions; conformance.py checks a package before it is uploaded
runs.py            submit, follow, list, cancel and retry runs; run_summary.py, logs.py
recurring_runs.py  the API's recurring runs; triggers.py tells which of them started a run
schedules.py       `rankline schedule` on a cluster, by way of recurring runs; backfill.py
orphans.py         what fires without being governed here; scheduled_workflows.py, what Kubernetes has of a schedule
limits.py          how long names and texts may be; kubernetes_api.py, the way to Kubernetes itself
plan.py            what `rankline submit` would do
trainjob.py        finetune on several machines, for Kubeflow Trainer
"""

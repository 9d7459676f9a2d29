"""Whether this process is a step in a pod of Kubeflow, where some advice is another than on one machine."""

import os


def in_pod() -> bool:
    """Whether Argo started this process."""
    return "ARGO_NODE_ID" in os.environ


def advice(*, on_one_machine: str, on_a_cluster: str) -> str:
    """What to try, for the place where this process runs."""
    return on_a_cluster if in_pod() else on_one_machine

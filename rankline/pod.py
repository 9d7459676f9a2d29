"""Whether this process is a step in a pod of Kubeflow, where some advice is another than on one machine."""

import os


def in_pod() -> bool:
    """Whether Argo started this process."""
    return "ARGO_NODE_ID" in os.environ


def advice(*, on_one_machine: str, on_a_cluster: str) -> str:
    """What to try, for the place where this process runs."""
    return on_a_cluster if in_pod() else on_one_machine


def compare_again() -> str:
    """What to try where another model came to serve after a model was evaluated."""
    return advice(
        on_one_machine="run the pipeline again: it reuses what is done and compares with the new champion",
        on_a_cluster="`rankline submit` again: it reuses what is done and compares with the new champion; "
        "`rankline runs retry` would keep this evaluation",
    )


def refresh_again(why: str) -> str:
    """What to try where another model or catalogue came to serve after a catalogue was made."""
    return advice(
        on_one_machine=f"refresh again: {why}",
        on_a_cluster=f"`rankline submit --flow refresh` again: {why}; `rankline runs retry` would keep this catalogue",
    )

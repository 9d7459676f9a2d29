"""The subjects of `rankline doctor`, and how their checks are run."""

from __future__ import annotations

from collections.abc import Iterator

from cli.project.checks import cluster, gpu, libraries, machine, stores, workspace
from cli.project.checks.model import CheckContext, Finding

SUBJECTS = {"machine": machine, "libraries": libraries, "gpu": gpu, "stores": stores, "workspace": workspace}


def run_checks(context: CheckContext) -> Iterator[tuple[str, Finding]]:
    """(subject, finding) of every check, in order; a check that raises an error is itself a failure."""
    subjects = {"cluster": cluster} if context.cluster else SUBJECTS
    for name, subject in subjects.items():
        for check in subject.CHECKS:
            try:
                for finding in check(context):
                    yield name, finding
            except Exception as error:  # whatever is broken, the other checks still run
                message = " ".join(str(error).split())[:300]
                hint = "this check itself failed; the other lines are valid"
                yield name, Finding(check.__name__.strip("_"), "fail", f"{type(error).__name__}: {message}", hint)

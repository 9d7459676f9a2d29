"""The Kubeflow door of look."""

from typing import NamedTuple

from kfp import dsl

from components.images import DATA


@dsl.component(base_image=DATA, install_kfp_package=False)
def look(data: dict, run: dict, job: str) -> NamedTuple("Seen", [("source_digest", str), ("champion", str)]):
    """Say what the flow is about to work on: the source's digest and the model that serves."""
    from typing import NamedTuple

    from components.look.config import LookConfig
    from components.look.step import look
    from rankline.door import Run, perform

    config = LookConfig(**{name: data[name] for name in LookConfig.model_fields if name in data})
    here = Run.of(run, job)
    seen = perform(
        "look",
        look,
        config,
        run=here,
        inputs={},
        outputs={},
        reuse=False,
        workspace=here.workspace,
        repository=here.repository,
        catalogue=run["catalogue"],
    )
    return NamedTuple("Seen", [("source_digest", str), ("champion", str)])(**seen)

"""The Kubeflow component of resolve_inputs."""

from typing import NamedTuple

from kfp import dsl

from components.images import DATA


@dsl.component(base_image=DATA, install_kfp_package=False)
def resolve_inputs(data: dict, run: dict, job: str) -> NamedTuple(
    "ResolvedInputs", [("source_digest", str), ("champion", str)]
):
    """Say what the flow is about to work on: the source's digest and the model that serves."""
    from typing import NamedTuple

    from components.resolve_inputs.config import ResolveInputsConfig
    from components.resolve_inputs.step import resolve_inputs
    from rankline.runtime.run_step import RunContext, run_step

    config = ResolveInputsConfig(**{name: data[name] for name in ResolveInputsConfig.model_fields if name in data})
    context = RunContext.from_parameters(run, job)
    resolved = run_step(
        "resolve_inputs",
        resolve_inputs,
        config,
        run=context,
        inputs={},
        outputs={},
        reuse=False,
        workspace=context.workspace,
        repository=context.repository,
        catalogue=run["catalogue"],
    )
    return NamedTuple("ResolvedInputs", [("source_digest", str), ("champion", str)])(**resolved)

"""The Kubeflow component of resolve_inputs."""

from typing import NamedTuple

from kfp import dsl

from components.images import DATA


@dsl.component(base_image=DATA, install_kfp_package=False)
def resolve_inputs(data: dict, run: dict, job: str, recipe: str = "") -> NamedTuple(
    "ResolvedInputs", [("source_digest", str), ("champion", str)]
):
    """Find out what this run works on: the digest of the source and the champion."""
    from typing import NamedTuple

    from components.resolve_inputs.config import ResolveInputsConfig
    from components.resolve_inputs.step import resolve_inputs
    from rankline.runtime.run_context import RunContext
    from rankline.runtime.run_step import StepSpec, run_step

    context = RunContext.from_parameters(run, job)
    result = run_step(
        StepSpec(
            name="resolve_inputs",
            function=resolve_inputs,
            config=ResolveInputsConfig(
                **{name: data[name] for name in ResolveInputsConfig.model_fields if name in data}
            ),
            arguments={
                "workspace": context.workspace,
                "repository": context.repository,
                "catalogue": run["catalogue"],
                "recipe": (context.folder, recipe) if recipe else None,
            },
            reuse=False,
        ),
        context,
    )
    return NamedTuple("ResolvedInputs", [("source_digest", str), ("champion", str)])(**result)

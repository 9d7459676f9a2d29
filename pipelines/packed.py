"""The first and the last steps of a flow as one task each, for a cluster where pods take longer than the steps' work.

Each part goes through its own component's function: it keeps its settings, ledger entry, log and cache key, so what a
packed run makes is reused by one that is not, and the other way round (docs/decisions/0022-small-steps-share-a-pod.md).
"""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.images import DATA
from components.ingest import component as ingest_component
from components.promote import component as promote_component
from components.resolve_inputs import component as resolve_inputs_component
from components.validate import component as validate_component

# their code is compiled into the tasks, under these names
resolve_inputs = resolve_inputs_component.resolve_inputs.python_func
ingest, validate = ingest_component.ingest.python_func, validate_component.validate.python_func
decide, promote = promote_component.decide.python_func, promote_component.promote.python_func


@dsl.component(base_image=DATA, install_kfp_package=False, additional_funcs=[resolve_inputs, ingest, validate])
def prepare(
    ingest_config: dict,
    validate_config: dict,
    prices: dict,
    run: dict,
    job: str,
    raw: Output[Dataset],
    clean: Output[Dataset],
    report: Output[Dataset],
    scheduled_at: str = "",
    schedule_time: str = "",
    recipe: str = "",
) -> str:
    """Find out what this run works on, convert the source and check the tables; returns the champion."""
    from rankline.runtime.run_context import RunContext
    from rankline.runtime.run_summary import Prices, begin_without_exit_handler

    begin_without_exit_handler(RunContext.from_parameters(run, job).folder, Prices(**prices))
    source_digest, champion = resolve_inputs(data=ingest_config, run=run, job=job, recipe=recipe)
    ingest(
        config=ingest_config,
        run=run,
        job=job,
        source_digest=source_digest,
        raw=raw,
        scheduled_at=scheduled_at,
        schedule_time=schedule_time,
    )
    validate(raw=raw, config=validate_config, run=run, job=job, clean=clean, report=report)
    return champion


@dsl.component(base_image=DATA, install_kfp_package=False, additional_funcs=[decide, promote])
def conclude(
    bundle: Input[Model],
    evaluation: Input[Dataset],
    teacher: Input[Model],
    features: Input[Dataset],
    checks: Input[Dataset],
    decide_config: dict,
    promote_config: dict,
    prices: dict,
    run: dict,
    job: str,
    verdict: Output[Dataset],
) -> str:
    """Judge the candidate, and make it the champion if every gate is met; returns the branch that was taken."""
    from pathlib import Path

    from components.promote.saved_verdict import restore_verdict, save_verdict
    from rankline.runtime.run_context import RunContext

    context, branch = RunContext.from_parameters(run, job), "promote"
    context.download_run()
    candidate = {"bundle": bundle, "evaluation": evaluation, "run": run, "job": job}
    if not restore_verdict(context.folder, Path(verdict.path)):
        judged_with = {"teacher": teacher, "checks": checks, "prices": prices}
        branch = decide(**candidate, **judged_with, config=decide_config, verdict=verdict)
        save_verdict(context.folder, Path(verdict.path))
    if branch == "promote":
        promote(**candidate, verdict=verdict, features=features, config=promote_config)
    return branch

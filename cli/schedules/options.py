"""The options that `rankline schedule create` and `update` share, declared once."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from rankline.errors import UsageError
from rankline.runtime.steps import Flow

if TYPE_CHECKING:
    from pipelines.schedules.protocol import ScheduleChanges
    from rankline.contracts import FrozenModel


@dataclass(frozen=True)
class ScheduleOptions:
    """The settings of a schedule on the command line; None leaves a setting as it is."""

    recipe: Annotated[str | None, typer.Option("--recipe", "-r", help="Name of a recipe, or module:function.")] = None
    cron: Annotated[
        str | None,
        typer.Option(
            help="When it fires: second, minute, hour, day of the month, month, day of the week. "
            "Five fields start with the minute."
        ),
    ] = None
    seconds_first: Annotated[bool, typer.Option("--seconds-first", help="Refuse a cron expression of five fields.")] = (
        False
    )
    when: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TRIGGER",
            help="Start a run by need, too, or without --cron by need alone: events>=10000, events>=20%, "
            'drift:price>=0.2, "scores>=0.2 in PATH", decay:ndcg@10>=5%, "decay:ctr>=5% in PATH", code, '
            "webhook:VARIABLE. Repeat all of them on an update.",
        ),
    ] = None
    check_every: Annotated[str | None, typer.Option(help="How often the triggers are checked, such as 30m (1h).")] = (
        None
    )
    cooldown: Annotated[str | None, typer.Option(help="Shortest time between two firings by need (1d).")] = None
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="runs=N,core_hours=H,cost=C", help="What firings by need may use within 24 hours (runs=2)."
        ),
    ] = None
    false_alarms: Annotated[
        float | None,
        typer.Option(
            help="Probability that drift, scores or decay fire at all in a year in which nothing changes (0.05)."
        ),
    ] = None
    zone: Annotated[str | None, typer.Option(help="Time zone of the cron expression, such as Europe/Berlin (UTC).")] = (
        None
    )
    window: Annotated[
        str | None, typer.Option(help="Length of the data window: 30d, 8w, 1mo, 12h; empty for all data up to its end.")
    ] = None
    lag: Annotated[
        str | None, typer.Option(help="How long before the scheduled time the data window ends, such as 6h.")
    ] = None
    source: Annotated[
        str | None, typer.Option("--source", help="Where the data is, for a recipe that reads any source.")
    ] = None
    map: Annotated[
        str | None, typer.Option("--map", help="File that maps the columns of the source (`rankline init`).")
    ] = None
    flow: Annotated[
        Flow | None,
        typer.Option(help="Flow of the recipe: train (the default), features alone, or a refresh of the catalogue."),
    ] = None
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", help="Change a setting: section.setting=value. Repeat all of them on an update."),
    ] = None
    runner: Annotated[
        Literal["local", "docker"] | None, typer.Option(help="Where the steps run, as in `rankline run`.")
    ] = None
    catch_up: Annotated[
        Literal["coalesce", "all"] | None,
        typer.Option(help="Missed fire times: run the latest only (coalesce, the default), or all, oldest first."),
    ] = None
    catch_up_limit: Annotated[
        int | None, typer.Option(help="With all: how many missed fire times run; older ones are skipped (10).")
    ] = None
    max_runs: Annotated[int | None, typer.Option(help="Concurrent runs of this schedule (1).")] = None
    jitter_s: Annotated[float | None, typer.Option("--jitter", help="Largest delay of a start, in seconds (0).")] = None
    scratch_every: Annotated[
        int | None,
        typer.Option(help="With finetune.warm_start: train every N-th finished run from scratch (0: never)."),
    ] = None
    keep: Annotated[
        str | None,
        typer.Option(
            "--keep", metavar="runs=N,bundles=N,catalogues=N,days=D",
            help='Remove old runs and files after each run, as `rankline gc` does with these; "defaults" for its own.',
        ),
    ] = None  # fmt: skip
    webhook: Annotated[str | None, typer.Option(help="URL that receives a POST for each failed run.")] = None
    webhook_headers: Annotated[
        str | None,
        typer.Option(metavar="VARIABLE", help="Environment variable with more headers as JSON, such as secrets."),
    ] = None
    webhook_on_refusal: Annotated[
        bool | None,
        typer.Option("--webhook-on-refusal/--no-webhook-on-refusal", help="Post refused models, too."),
    ] = None
    experiment: Annotated[
        str | None, typer.Option("--experiment", "-e", help="On a cluster: experiment of its runs (rankline).")
    ] = None
    account: Annotated[
        str | None, typer.Option("--service-account", help="On a cluster: service account of its pods.")
    ] = None

    def changes(self, **more: Any) -> ScheduleChanges:
        """What was given, as a place that stores schedules takes it."""
        from pipelines.schedules.protocol import ScheduleChanges

        separate = ("seconds_first", "experiment", "account")
        given = {**dataclasses.asdict(self), **more}
        values = {name: value for name, value in given.items() if value is not None and name not in separate}
        for name in ("source", "map"):
            if values.get(name) == "":
                values[name] = None
        if "settings" in values:
            values["settings"] = tuple(each for each in values["settings"] if each)
        if "keep" in values:
            values["keep"] = _parse_keep(values["keep"])
        if "when" in values:
            values["when"] = tuple(each for each in values["when"] if each)
        if "budget" in values:
            values["budget"] = _parse_budget(values["budget"])
        return ScheduleChanges(values, self.seconds_first, self.experiment, self.account)


def with_schedule_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `ScheduleOptions` in place of its parameter ``options``."""
    signature = inspect.signature(command, eval_str=True)
    hints = get_type_hints(ScheduleOptions, include_extras=True)
    fields = dataclasses.fields(ScheduleOptions)

    @functools.wraps(command)
    def wrapper(**given: Any) -> None:
        options = ScheduleOptions(**{each.name: given.pop(each.name) for each in fields})
        command(**given, options=options)

    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if parameter.name != "options":
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        parameters += [
            inspect.Parameter(
                each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=hints[each.name]
            )
            for each in fields
        ]
    wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return wrapper


def _parse_keep(text: str) -> dict[str, Any] | None:
    """The settings of `rankline gc` in --keep; None for an empty value."""
    from pipelines.retention.policy import Keep

    known = "`rankline gc --help` explains each setting"
    return _parse_pairs(Keep, "--keep", text, "runs=10,days=3", hint=known).model_dump() if text else None


def _parse_budget(text: str) -> dict[str, Any]:
    """The settings in --budget; the default for an empty value."""
    from pipelines.schedules.triggers.budget import Budget

    hint = "runs, core_hours and cost of firings by need within 24 hours"
    return _parse_pairs(Budget, "--budget", text, "runs=2,core_hours=8", hint=hint).model_dump()


def _parse_pairs(kind: type[FrozenModel], option: str, text: str, example: str, *, hint: str) -> FrozenModel:
    """The values of an option such as runs=10,days=3."""
    from pydantic import ValidationError

    parts = [part.strip() for part in text.split(",")]
    values = dict(part.partition("=")[::2] for part in parts if part not in ("", "defaults"))
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        setting = ".".join(str(part) for part in first["loc"])
        known = setting in kind.model_fields
        expected = f"some of {', '.join(kind.model_fields)}, such as {example}"
        raise UsageError(
            f"the {setting} in {option} is not valid" if known else f"{option} has no setting {setting!r}",
            expected=f"{expected}: {first['msg']}" if known else expected,
            found=text,
            hint=hint,
        ) from error

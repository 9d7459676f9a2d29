"""What labels say of an event, as SQL over columns of their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rankline.errors import RanklineError
from rankline.io.sql import fetch_row, identifier
from rankline.labels import Label

ColumnOf = Callable[[str], str]  # name of a label -> SQL of its values


def counts(column: str, label: Label) -> str:
    """Whether the values of a label count; null where there is none."""
    return f"{column} > 0" if label.at_least is None else f"{column} >= {label.at_least!r}"


def quantile_limit(
    db: Any, name: str, share: float, *, value: str, rows: str, error: type[RanklineError], where: str = ""
) -> float | None:
    """The value of a label at a quantile of ``rows``, such as `logged WHERE …`; ``where`` names these in words.

    None where no row has a value.

    Raises:
        RanklineError: it is the smallest value, so that every value counts; of the type ``error``.
    """
    limit: float | None
    limit, low = fetch_row(db, f"SELECT quantile_disc({value}, {share}), min({value}) FROM {rows}")
    if limit is not None and limit == low:
        raise error(
            f"every value of the label {name} counts{where}",
            expected=f"a quantile of {name} above its smallest value, so that some events do not count",
            found=f"{limit:g}, the smallest value{where}, at the quantile {share:g}",
            where=f"ingest.labels.{name}.at_quantile",
            hint=f"raise it, or set ingest.labels.{name}.at_least",
        )
    return limit


def is_against(labels: Mapping[str, Label], column_of: ColumnOf = identifier) -> str:
    """Whether a label of negative feedback counts; never null."""
    against = " OR ".join(
        f"coalesce({counts(column_of(name), label)}, false)" for name, label in labels.items() if label.weight < 0
    )
    return f"({against or 'false'})"


def feedback(labels: Mapping[str, Label], column_of: ColumnOf = identifier) -> str:
    """The weight of a positive, 0 for a negative, null for neither."""
    weights = ", ".join(
        f"CASE WHEN {counts(column_of(name), label)} THEN {_weight(column_of(name), label)} "
        f"WHEN {column_of(name)} IS NOT NULL THEN 0 END"
        for name, label in labels.items()
        if label.weight > 0
    )
    return f"CASE WHEN {is_against(labels, column_of)} THEN 0 ELSE list_max([{weights}]::DOUBLE[]) END"


def _weight(column: str, label: Label) -> str:
    if label.type != "graded":
        return repr(label.weight)
    # a scale may have grades that count and are not above 0; the weight of a positive is
    above = f" - {label.at_least!r} + 1" if label.at_least is not None and label.at_least <= 0 else ""
    return f"{label.weight!r} * ({column}{above})"

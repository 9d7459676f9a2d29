"""The trial of a mapping: ingest's own expressions read the samples, and what they cannot read is no good guess."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from pydantic import ValidationError

from components.ingest.canonical import SELECTS
from components.ingest.config import IngestConfig
from components.ingest.expressions import INFINITE_WORDS, ColumnExpressions, sql_list
from components.ingest.readers.parts import Column, Part
from onboarding.inference.map_settings import map_settings
from onboarding.inference.schema import LIST_SETTINGS, SURE_ABOVE, ColumnMapping, SchemaMapping
from rankline.errors import SourceError
from rankline.io.sql import fetch_row, identifier

MAX_REJECTED_SHARE: float = IngestConfig.model_fields["max_rejected_share"].default
UNREADABLE = SURE_ABOVE / 2  # the confidence of a column that ingest cannot read


def without_unreadable(mapping: SchemaMapping, role: str) -> list[ColumnMapping]:
    """The columns of a role, without candidates that ingest cannot read; a time that it cannot read is unsure."""
    import duckdb

    columns = mapping.column_mappings[role]
    try:
        shares = _unreadable_shares(mapping, role)
    except (duckdb.Error, SourceError):  # what the dry run will say more about
        return columns
    except ValidationError:  # settings that ingest refuses; the dry run will say which
        return [_unsure(each, "ingest refuses it") if _says_what_happened(each) else each for each in columns]
    readable = []
    for each in columns:
        share = max(shares.get(reason, 0.0) for reason in _reasons(each))
        if share <= MAX_REJECTED_SHARE or each.confidence == 1.0:
            readable.append(each)
        elif not each.setting.startswith("labels.") and each.setting not in (*LIST_SETTINGS, "price", "available"):
            readable.append(_unsure(each, f"ingest cannot read {share:.0%} of its values"))
    return readable


def _unsure(column: ColumnMapping, why: str) -> ColumnMapping:
    confidence = min(column.confidence, UNREADABLE)
    return dataclasses.replace(column, confidence=confidence, why=f"{column.why}; but {why}")


def _says_what_happened(column: ColumnMapping) -> bool:
    return column.setting.startswith("labels.") or column.setting in ("event_type", "request_id", "position")


def _unreadable_shares(mapping: SchemaMapping, role: str) -> dict[str, float]:
    """Reason -> the share of a sample's rows that ingest would reject for it."""
    table = mapping.table(role)
    settings = map_settings(mapping)
    settings["columns"].setdefault("time_zone", "UTC")  # one that is missing is asked for
    config = IngestConfig(source=mapping.survey.source or "here", **settings)
    part = Part(
        table=role,
        where=table.place,
        columns={name: Column(identifier(name), stats.kind) for name, stats in table.columns.items()},
        schema=None,
        batches=iter(()),
        raw="''",
    )
    source = ColumnExpressions(part, config, list(mapping.roles))
    expressions = SELECTS[role](source, config.columns)
    checks = [(reason.split("'")[1], check) for check, reason in source.checks]
    if config.columns.price and role == "items":
        checks.append(
            (
                "price",
                f"lower({expressions['price_as_written']}) NOT IN {sql_list(INFINITE_WORDS)} "
                f"AND ({expressions['price']}) IS NULL",
            )
        )
    if not checks:
        return {}
    counts = ", ".join(f"avg(CAST(coalesce({check}, false) AS INTEGER))" for _, check in checks)
    row = fetch_row(mapping.survey.db, f"SELECT {counts} FROM {source.relation(identifier(table.name))}")
    shares: dict[str, float] = {}
    for (reason, _), share in zip(checks, row, strict=True):
        shares[reason] = max(shares.get(reason, 0.0), float(share or 0))
    return shares


def _reasons(column: ColumnMapping) -> Iterable[str]:
    """The reasons for which ingest would reject rows because of a column."""
    setting = column.setting.rpartition(".")[2]
    yield from (f"unparsable {setting}", f"unparsable {column.column}")
    yield from (f"{setting} is not a plain value", f"{setting} of more digits than its type can hold")
    if setting == "price":
        yield "price"
    if setting == "timestamp":
        yield "implausible time"

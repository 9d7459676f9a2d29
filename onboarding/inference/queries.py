"""The queries that make one table of a source that no map can read as it is; each is run before it is shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from onboarding.inference.joins import History, Join
from onboarding.inference.nested import ID, Keys, NestedItems
from onboarding.survey.survey import Survey, TableSurvey
from onboarding.tables import MEMORY_MB
from rankline.io import sources
from rankline.io.sql import identifier, literal, memory_database, source_database

PARQUET = ("parquet", "pq")
JSON = ("json", "jsonl", "ndjson")


def flattening_query(survey: Survey, log: TableSurvey, nested: NestedItems) -> str:
    """How to write one row for each item of a log: a command, or the query to name; empty if it does not run."""
    purpose = "write one row for each item"
    if is_postgres(survey):
        return answer(survey, _postgres_flattening(log, nested), purpose, "events")
    writings = [nested.writing]
    if survey.format == "tables" and _kind(log) in JSON:  # DuckDB types the lists of these files
        writings = ["typed", *({nested.writing} - {"typed"})]
    for writing in writings:
        if text := answer(survey, _flattening(survey, log, nested._replace(writing=writing)), purpose, "events"):
            return text
    return ""


def _flattening(survey: Survey, log: TableSurvey, nested: NestedItems) -> str:
    is_flat = survey.format == "tables" and _kind(log) not in (*PARQUET, *JSON)
    column = identifier(nested.column) if is_flat else ".".join(map(identifier, nested.column.split(".")))
    relation, levels = relation_of(survey, log), []
    for depth, keys in enumerate(nested.lists, start=1):
        above = f"CAST({column} AS JSON)" if depth == 1 and nested.writing == "json" else column
        above = above if depth == 1 else f"level_{depth - 1}"
        if nested.writing in ("ids", "judged"):
            values = f"regexp_extract_all({column}, {literal(ID)})"
        elif nested.writing == "json":
            values = f"CAST({_inside(above, keys)} AS JSON[])"
        else:
            values = ".".join([above, *map(identifier, keys)])
        relation = f"(SELECT *, unnest({values}) AS level_{depth} FROM {relation})"
        levels.append(f"level_{depth}")
    chosen = _chosen(nested, log, as_text=nested.writing == "json")
    top = nested.column if is_flat else nested.column.split(".")[0]
    is_list = top == nested.column and not nested.lists[0]
    left_out = [*levels, *([identifier(top)] if is_list else []), *(["item_id"] if "item_id" in log.columns else [])]
    named = ", ".join(f"{value} AS {identifier(name)}" for name, value in chosen.items())
    where = _only_parameter(nested, as_text=nested.writing == "json")
    return f"SELECT * EXCLUDE ({', '.join(left_out)}), {named} FROM {relation}{where}"


def _postgres_flattening(log: TableSurvey, nested: NestedItems) -> str:
    column = "log." + identifier(nested.column)
    if nested.writing in ("ids", "judged"):
        lists = [f"(SELECT each[1] AS level_1 FROM regexp_matches({column}, {literal(ID)}, 'g') AS each) AS ids"]
    elif not nested.key:
        lists = [f"unnest({column}) AS level_1"]
    else:
        above = [f"CAST({column} AS jsonb)", *(f"level_{depth}" for depth in range(1, len(nested.lists)))]
        lists = [
            f"jsonb_array_elements({_inside(each, keys)}) AS level_{depth}"
            for depth, (each, keys) in enumerate(zip(above, nested.lists, strict=True), start=1)
        ]
    lists = [f"LATERAL {each}" if each.startswith("(") else each for each in lists]
    named = ", ".join(
        f"{value} AS {identifier(name)}" for name, value in _chosen(nested, log, as_text=bool(nested.key)).items()
    )
    return f"SELECT log.*, {named} FROM {_table(log)} AS log, {', '.join(lists)}{_only_parameter(nested, as_text=True)}"


def _only_parameter(nested: NestedItems, *, as_text: bool) -> str:
    """The condition that keeps the pairs whose value is the item."""
    name = _value(f"level_{len(nested.lists)}", ("key",), as_text)
    return f" WHERE {name} = {literal(nested.parameter)}" if nested.parameter else ""


def _chosen(nested: NestedItems, log: TableSurvey, *, as_text: bool) -> dict[str, str]:
    """Name -> value, of the item and of what else the elements say."""
    last = f"level_{len(nested.lists)}"
    if nested.writing == "judged":
        return {
            "item_id": f"regexp_extract({last}, '(.*)-[01]', 1)",
            "clicked": f"CAST(right({last}, 1) AS INTEGER)",
        }
    chosen = {"item_id": _value(last, nested.key, as_text)}
    top = {name.split(".")[0] for name in log.columns}
    for depth, keys in nested.others:
        name = keys[-1]
        if name in chosen or name in top:
            name = "_".join([*(part for each in nested.lists[:depth] for part in each), *keys])
            name = f"{nested.column.rpartition('.')[2]}_{name}" if name in chosen or name in top else name
        if name not in chosen and name not in top:
            chosen[name] = _value(f"level_{depth}", keys, as_text)
    return chosen


def _inside(value: str, keys: Keys) -> str:
    """A value inside one that is JSON."""
    return " -> ".join([value, *map(literal, keys)])


def _value(value: str, keys: Keys, as_text: bool) -> str:
    """A plain value inside an element."""
    if not as_text:
        return ".".join([value, *map(identifier, keys)])
    return f"{_inside(value, keys[:-1])} ->> {literal(keys[-1])}" if keys else f"{value} ->> '$'"


def joining_query(survey: Survey, join: Join) -> str:
    """How to write the lines of orders and who ordered them as one log; empty if the query does not run."""
    lines, orders = (_top_columns(survey.tables[name]) for name in (join.lines, join.orders))
    further = [name for name in orders if name not in (*lines, join.orders_key)]
    columns = ", ".join(["lines.*", *(f"orders.{identifier(name)}" for name in further)])
    left, right = f"lines.{identifier(join.lines_key)}", f"orders.{identifier(join.orders_key)}"
    tables = [relation_of(survey, survey.tables[name]) for name in (join.lines, join.orders)]
    query = (
        f"SELECT {columns} FROM {tables[0]} AS lines JOIN {tables[1]} AS orders "
        f"ON CAST({left} AS VARCHAR) = CAST({right} AS VARCHAR)"
    )
    return answer(survey, query, "write both as one log", "events")


def newest_price_query(survey: Survey, items: TableSurvey, key: str, prices: TableSurvey, history: History) -> str:
    """How to write the items with the newest of their prices; empty if the query does not run."""
    if is_postgres(survey):
        return ""
    item, price, time = (f"prices.{identifier(name)}" for name in history)
    newest = (
        f"SELECT CAST({item} AS VARCHAR) AS priced_item, arg_max({price}, {time}) AS {identifier(history.price)} "
        f"FROM {relation_of(survey, prices)} AS prices GROUP BY 1"
    )
    left_out = f" EXCLUDE ({identifier(history.price)})" if history.price in items.columns else ""
    query = (
        f"SELECT items.*{left_out}, newest.{identifier(history.price)} FROM {relation_of(survey, items)} AS items "
        f"LEFT JOIN ({newest}) AS newest ON CAST(items.{identifier(key)} AS VARCHAR) = priced_item"
    )
    return answer(survey, query, "write the items with the newest price of each", "items")


def _top_columns(table: TableSurvey) -> list[str]:
    """The columns of a table without those inside of others."""
    return [name for name in table.columns if name.rpartition(".")[0] not in table.columns]


def is_postgres(survey: Survey) -> bool:
    """Whether a source is a Postgres database."""
    return survey.format == "sql" and bool(survey.connection or "://" in survey.source)


def relation_of(survey: Survey, table: TableSurvey) -> str:
    """SQL of a table where it is, for DuckDB or the database itself."""
    if survey.format != "tables":
        return _table(table)
    places = [
        place if "://" in place else f"{survey.source.rstrip('/')}/{place}"
        for place in table.place.split(sources.BETWEEN_PLACES)
    ]
    where = ", ".join(map(literal, places))
    where = f"[{where}], union_by_name = true" if len(places) > 1 else where
    kind = _kind(table)
    if kind in PARQUET:
        return f"read_parquet({where})"
    return f"read_json({where})" if kind in JSON else f"read_csv({where}{_csv_options(survey, table)})"


def _csv_options(survey: Survey, table: TableSurvey) -> str:
    """How a CSV file is written, where DuckDB might take it for something else."""
    options = [", all_varchar = true"]
    if names := survey.names.get(table.place):
        options.append(f", header = false, names = [{', '.join(map(literal, names))}]")
    if _kind(table) == "tsv":
        options.append(r", delim = '\t'")
    if survey.files.delimiter:
        options.append(f", delim = {literal(survey.files.delimiter)}")
    if survey.files.quote is not None or _kind(table) == "tsv":
        options.append(f", quote = {literal(survey.files.quote or '')}")
    if survey.files.escape:
        options.append(f", escape = {literal(survey.files.escape)}")
    return "".join(options)


def _table(table: TableSurvey) -> str:
    return ".".join(map(identifier, table.place.split(".")))


def _kind(table: TableSurvey) -> str:
    return sources.File(table.place).kind


def answer(survey: Survey, query: str, purpose: str, role: str) -> str:
    """What to do with a query: a command that writes a file, or the query itself; empty if it does not run."""
    if not is_postgres(survey) and not _runs(survey, query):
        return ""
    if survey.format != "tables":
        return f"{purpose} and name the query: {query}"
    command = re.sub(r'(["\\`]|\$(?=\w|[({]))', r"\\\1", f"COPY ({query}) TO '{role}.parquet'")  # for a shell
    return f'{purpose}: duckdb -c "{command}"'


def _runs(survey: Survey, query: str) -> bool:
    """Whether DuckDB runs the query on the source, of which it reads the first rows; other machines are not asked."""
    import duckdb

    if survey.format == "tables" and re.search(r"://", survey.source):
        return True
    try:
        db: Any
        if survey.format == "sql":
            db = source_database(Path(survey.source), memory_mb=MEMORY_MB)
        else:
            db = memory_database(memory_mb=MEMORY_MB)
        with db:
            return bool(db.execute(f"SELECT * FROM ({query}) LIMIT 1").fetchall())
    except duckdb.Error:
        return False

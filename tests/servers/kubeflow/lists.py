"""Lists: pages, their order, and what is left out."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from tests.servers.kubeflow.answers import Refused

# what a list can be sorted and filtered by, as the server's models say
KEYS = {
    "pipelines": {"pipeline_id", "name", "display_name", "created_at", "description", "namespace"},
    "pipeline_versions": {"pipeline_version_id", "name", "display_name", "created_at", "description", "pipeline_id"},
    "experiments": {"experiment_id", "name", "display_name", "created_at", "description", "storage_state", "namespace"},
    "runs": {"run_id", "name", "display_name", "created_at", "description", "scheduled_at", "finished_at", "state",
             "storage_state", "experiment_id", "service_account"},
    "recurringruns": {"recurring_run_id", "name", "display_name", "created_at", "description", "updated_at"},
}  # fmt: skip
PAGE, MOST = 20, 200  # entries of a page that nobody asked a size of, and of any


def page(
    noun: str,
    table: dict[str, dict[str, Any]],
    query: dict[str, str],
    keep: Callable[[dict[str, Any]], bool],
    most: int,
) -> dict[str, Any]:
    """One page of a table as it was asked for: filtered, in order. A token goes with what the first page asked."""
    rows = [row for row in table.values() if keep(row)]
    order = _order(noun, query.get("sort_by") or "")
    predicates = _predicates(noun, query.get("filter") or "")
    begin = 0
    if query.get("page_token"):
        token = _token(query["page_token"])
        if (query.get("sort_by") and token["order"] != order) or (
            query.get("filter") and token["predicates"] != predicates
        ):
            raise Refused(
                400, "Invalid input error: page token does not match the supplied sort by and/or filtering criteria"
            )
        begin, order, predicates = token["begin"], token["order"], token["predicates"]
    for key, how, value in predicates:
        rows = [row for row in rows if (row.get(key) == value if how == "EQUALS" else value in row.get(key, ""))]
    rows.sort(key=lambda row: row.get(order[0], ""), reverse=order[1] == "desc")
    try:
        size = int(query.get("page_size") or PAGE)
    except ValueError:
        raise Refused(400, "type mismatch, parameter: page_size") from None
    if size < 0:
        raise Refused(400, f"Invalid input error: The page size should be greater than 0. Got {size}")
    end = begin + min(size, most, MOST)
    token = {"begin": end, "order": order, "predicates": predicates}
    more = base64.b64encode(json.dumps(token).encode()).decode() if end < len(rows) else ""
    return {"rows": rows[begin:end], "total_size": len(rows), "next_page_token": more}


def _order(noun: str, sort_by: str) -> list[str]:
    words = sort_by.lower().split() or ["created_at"]
    if len(words) > 2 or words[1:] not in ([], ["asc"], ["desc"]):
        raise Refused(400, f"Invalid input error: Received invalid sort by format {sort_by!r}")
    if words[0] not in KEYS[noun]:
        raise Refused(400, f"Invalid input error: Invalid sorting field: {words[0]!r} on listable type {noun}")
    return [words[0], (words[1:] or ["asc"])[0]]


def _predicates(noun: str, text: str) -> list[list[str]]:
    try:
        given = json.loads(text or "{}")
        matches = [[each["key"], each["operation"], each["stringValue"]] for each in given.get("predicates", [])]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(400, f"Invalid input error: failed to parse valid filter from {text!r}: {error}") from error
    for predicate in matches:
        key, how, _ = predicate
        predicate[1] = {1: "EQUALS", 9: "IS_SUBSTRING"}.get(how, how)
        if predicate[1] not in ("EQUALS", "IS_SUBSTRING"):
            raise Refused(400, f"Invalid input error: operation {how}")
        if key not in KEYS[noun]:
            raise Refused(400, f"Invalid input error: no support for filtering on unrecognized field {key!r}")
    return matches


def _token(text: str) -> dict[str, Any]:
    try:
        token = json.loads(base64.b64decode(text, validate=True))
        return {"begin": int(token["begin"]), "order": token["order"], "predicates": token["predicates"]}
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(400, "Invalid input error: Invalid page token") from error

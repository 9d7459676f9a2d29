"""What every answer has in common: its fields, its times, its errors, and how long a text may be."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 500: 13}  # HTTP status -> the code of gRPC
COLUMN = 255  # characters of a column that has no size of its own


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message

    def body(self) -> dict[str, Any]:
        """The error as the gateway in front of the API writes it."""
        code, message = CODES.get(self.status, 2), self.message.rpartition(": ")[2]
        detail = {"@type": "type.googleapis.com/google.rpc.Status", "code": code, "message": message}
        return {"code": code, "message": self.message, "details": [detail]}


def timestamp(instant: datetime | None) -> str:
    """A time as the API writes it; none is 1970."""
    return (instant or datetime(1970, 1, 1, tzinfo=UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")


def check_length(field: str, text: str, most: int) -> None:
    """Refuse a name that is too long, in bytes, before anything is stored."""
    if len(text.encode()) > most:
        raise Refused(400, f"Invalid input error: {field} length cannot exceed {most}")


def check_columns(failed: str, **columns: str) -> None:
    """Fail as the database does where a text, in characters, does not fit its column."""
    for column, text in columns.items():
        if len(text) > COLUMN:
            raise Refused(500, f"{failed}: Error 1406 (22001): Data too long for column '{column}' at row 1")


def bare(value: Any) -> Any:
    """An answer without its empty fields, which the API leaves out."""
    if isinstance(value, dict):
        fields = {name: bare(each) for name, each in value.items()}
        return {name: each for name, each in fields.items() if each not in (None, "", [], {}, False)}
    return [bare(each) for each in value] if isinstance(value, list) else value


def fitting(model: str, body: dict[str, Any]) -> dict[str, Any]:
    """A body or an answer that fits the client's own model: no unknown field, no unknown state."""
    import kfp_server_api

    def strip(value: Any, of: Any) -> Any:
        kind = getattr(of, "openapi_types", None)
        if isinstance(value, dict) and kind:
            names = {json_name: attribute for attribute, json_name in of.attribute_map.items()}
            if unknown := set(value) - set(names):
                raise Refused(400, f"unknown field {sorted(unknown)} in {of.__name__}")
            return {name: strip(each, _type(kind[names[name]])) for name, each in value.items()}
        if isinstance(value, list):
            return [strip(each, of) for each in value]
        if (known := getattr(of, "allowable_values", None)) and value not in known:
            raise Refused(400, f"{value!r} is no {of.__name__}: {known}")
        return value

    def _type(text: str) -> Any:
        inner = re.sub(r"^list\[(.*)\]$", r"\1", text)
        return getattr(kfp_server_api.models, inner, None)

    stripped: dict[str, Any] = strip(body, getattr(kfp_server_api.models, model))
    return stripped


def accepted(model: str, body: dict[str, Any]) -> dict[str, Any]:
    """A body whose values have the types of the client's own model, too; of an answer the client sees to that."""
    import kfp_server_api

    class Answer:
        data = json.dumps(fitting(model, body))

    try:
        kfp_server_api.ApiClient().deserialize(Answer, model)
    except (ValueError, TypeError) as error:
        raise Refused(400, f"{model}: {error}") from error
    return body

"""The declared fields of users and of requests: their kinds, their source for Feast, and each request's inputs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from components.featurize.config import FeaturizeConfig
from components.featurize.split import Ints
from rankline import contracts
from rankline.contracts import TIME_ZONE
from rankline.errors import UsageError
from rankline.features.profile import CONTEXT, DECLARED, GIVEN, PROFILE, Kind, ProfileFields

_TYPES: dict[Kind, Any] = {
    "number": pa.float64(), "choice": pa.string(), "choices": pa.list_(pa.string()), "text": pa.string(),
}  # fmt: skip
ALWAYS = 0  # the time from which a user's fields are valid, in µs: a table of users knows no earlier values


@dataclass(frozen=True)
class Profiles:
    """The declared ``fields``, the users' own (an Arrow table by user_id), and those of every row of the events."""

    fields: ProfileFields
    users: pa.Table
    events: pa.Table

    @classmethod
    def read(cls, clean: Path, config: FeaturizeConfig) -> Profiles:
        """Read the declared columns of users.parquet and events.parquet.

        Raises:
            UsageError: a declared column is missing, or its type cannot be encoded.
        """
        summary = json.loads((clean / "summary.json").read_text())
        paths = {table: clean / f"{table}.parquet" for table in ("users", "events")}
        schemas = {table: parquet.read_schema(path) for table, path in paths.items() if path.is_file()}
        user = _kinds("user_features", config.user_features, schemas.get("users"), summary.get("user_texts", ()))
        context = _kinds("context_features", config.context_features, schemas.get("events"), ())
        zoned = summary.get("time_zones", ())
        fields = ProfileFields(user=user, context=context, time_zone=bool(zoned))

        def columns(table: str, kinds: dict[str, Kind], *keys: str) -> pa.Table:
            names = [*keys, *kinds, *([TIME_ZONE] if table in zoned else [])]
            return parquet.read_table(paths[table], columns=list(dict.fromkeys(names))) if names else pa.table({})

        return cls(
            fields, columns("users", user, "user_id") if fields.any else pa.table({}), columns("events", context)
        )

    def write_sources(self, sources: Path) -> None:
        """Write the source of the view of users, and the declared fields beside it; nothing where none are declared."""
        if not self.fields.any:
            return
        (sources / DECLARED).write_text(self.fields.model_dump_json(indent=2) + "\n")
        if not (self.fields.user or self.fields.time_zone):
            return
        users = self.users.sort_by("user_id")
        zone = {TIME_ZONE: "choice"} if self.fields.time_zone else {}
        table = pa.table(
            {
                "user_id": users["user_id"],
                **{
                    f"{PROFILE}{name}": users[name] if name in users.column_names else pa.nulls(len(users), pa.string())
                    for name in {**self.fields.user, **zone}
                },
                **dict.fromkeys(
                    ("event_timestamp", "known_at"),
                    pa.array(np.full(len(users), ALWAYS)).cast(contracts.UTC_TIMESTAMP),
                ),
            }
        )
        parquet.write_table(table, sources / "user_profile.parquet", compression="zstd")

    def with_inputs(self, entity_rows: pa.Table, event_rows: Ints) -> pa.Table:
        """The entity rows of requests with what on-demand views read of the request: that of each request's event."""
        for name, kind in self.fields.context.items():
            entity_rows = entity_rows.append_column(f"{GIVEN}{name}", _present(self.events[name], kind, event_rows))
        if self.fields.time_zone:
            entity_rows = entity_rows.append_column(TIME_ZONE, self._zones(entity_rows["user_id"], event_rows))
        return entity_rows

    def _zones(self, user_ids: Any, event_rows: Ints) -> pa.Array:
        """[R] the zone of the clock of each request: of the event, else of the user, else empty."""
        zones = [None] * len(event_rows)
        if TIME_ZONE in self.events.column_names:
            zones = self.events[TIME_ZONE].take(pa.array(event_rows)).to_pylist()
        of_user: dict[str, str | None] = {}
        if TIME_ZONE in self.users.column_names:
            of_user = dict(zip(self.users["user_id"].to_pylist(), self.users[TIME_ZONE].to_pylist()))
        return pa.array(
            [zone or of_user.get(user) or "" for zone, user in zip(zones, user_ids.to_pylist())], pa.string()
        )

    def of_events(self, event_rows: Ints) -> dict[str, Any]:
        """The columns of requests without a user: what their events say of the request, and nothing of the user."""
        count = len(event_rows)
        users = {f"{PROFILE}{name}": pa.nulls(count, _TYPES[kind]) for name, kind in self.fields.user.items()}
        context = {
            f"{CONTEXT}{name}": _present(self.events[name], kind, event_rows)
            for name, kind in self.fields.context.items()
        }
        zone = {TIME_ZONE: self._zones(pa.nulls(count, pa.string()), event_rows)} if self.fields.time_zone else {}
        return {**users, **context, **zone}


def _present(column: Any, kind: Kind, rows: Ints) -> Any:
    """Values at some rows, with NaN, or an empty text or list, in place of nulls: on-demand views read no nulls."""
    values = column.take(pa.array(rows)).to_pylist()
    if kind == "number":
        return pa.array([np.nan if value is None else float(value) for value in values], _TYPES[kind])
    return pa.array([value or ([] if kind == "choices" else "") for value in values], _TYPES[kind])


def _kinds(setting: str, names: tuple[str, ...], schema: Any, texts: Any) -> dict[str, Kind]:
    """Field -> how it is read, by the type of its column.

    Raises:
        UsageError: there is no such column, or it is of another type.
    """
    kinds: dict[str, Kind] = {}
    for name in names:
        kind = _kind(schema.field(name).type, name in texts) if schema is not None and name in schema.names else None
        if kind is None:
            actual = "no such column" if schema is None or name not in schema.names else str(schema.field(name).type)
            raise UsageError(
                f"featurize.{setting} names {name}, which cannot be a feature",
                expected="a declared column of numbers, of texts, or of lists of texts",
                found=actual,
                where="users" if setting == "user_features" else "events",
                hint=f"declare it in ingest.columns, or take it out of featurize.{setting}",
            )
        kinds[name] = kind
    return kinds


def _kind(type: Any, is_text: bool) -> Kind | None:
    if pa.types.is_floating(type) or pa.types.is_integer(type):
        return "number"
    if pa.types.is_string(type):
        return "text" if is_text else "choice"
    return "choices" if pa.types.is_list(type) and pa.types.is_string(type.value_type) else None

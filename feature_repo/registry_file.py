"""Feast's registry file, without the times and versions that Feast adds.

A step's cache compares the digests of its inputs. The same definitions must therefore give the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

_TIMESTAMP_FIELDS = ("created_timestamp", "last_updated_timestamp", "last_updated", "version_id", "project_uuid")


def strip_timestamps(registry: Path) -> None:
    """Rewrite a registry file so that it depends on the definitions alone."""
    from feast.protos.feast.core.Registry_pb2 import Registry

    content = Registry.FromString(registry.read_bytes())
    content.ClearField("feature_view_version_history")
    _strip_fields(content)
    registry.write_bytes(content.SerializeToString(deterministic=True))


def _strip_fields(message: Any) -> None:
    """Clear the timestamp fields of a message and its parts, and sort data sources, which have no order."""
    for field, value in message.ListFields():
        if field.name in _TIMESTAMP_FIELDS:
            message.ClearField(field.name)
        elif field.message_type and field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type:
                for inner in value.values():
                    _strip_fields(inner)
        elif field.message_type:
            for inner in value if field.is_repeated else [value]:
                _strip_fields(inner)
    for field, value in message.ListFields():
        if field.name == "data_sources":
            value.sort(key=lambda source: source.name)

"""Arrow types that DuckDB does not read, or not whole, as types that it does."""

import json
from typing import Any

from components.ingest.readers.parts import truncated_error
from rankline.errors import SourceError

MAX_US = 1 << 62  # of times; in seconds and milliseconds there are later ones


def plain_type(type: Any) -> Any:
    """A type without its encoding: that of the values of a dictionary or of runs, that of an extension's storage."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_dictionary(type) or types.is_run_end_encoded(type):
        return plain_type(type.value_type)
    if isinstance(type, pa.BaseExtensionType) and not isinstance(type, pa.UuidType | pa.OpaqueType | pa.Bool8Type):
        return plain_type(type.storage_type)
    return type


def transfer_type(type: Any, *, nested: bool = False) -> Any:
    """The type in which a column arrives: decimals as text, since DuckDB has 38 digits; half floats as floats."""
    import pyarrow as pa
    from pyarrow import types

    type = plain_type(type)
    if types.is_decimal256(type) or (types.is_decimal(type) and not nested) or types.is_null(type):
        return pa.string()
    if types.is_float16(type):
        return pa.float32()
    if types.is_timestamp(type) and type.unit in ("s", "ms"):
        return pa.timestamp("us", type.tz)
    if types.is_union(type):
        return pa.string()
    if types.is_fixed_size_list(type):
        return pa.list_(transfer_type(type.value_type, nested=True), type.list_size)
    if is_list(type):
        value = transfer_type(type.value_type, nested=True)
        return type if value == type.value_type else pa.large_list(value)
    if types.is_struct(type):
        return pa.struct([field.with_type(transfer_type(field.type, nested=True)) for field in type])
    if types.is_map(type):
        return pa.map_(transfer_type(type.key_type, nested=True), transfer_type(type.item_type, nested=True))
    return type


def transferred(array: Any, where: str, name: str) -> Any:
    """A column in the type in which it arrives.

    Raises:
        SourceError: nothing reads its type.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import types

    target = transfer_type(array.type)
    if array.type == target:
        return array
    try:
        if types.is_union(array.type):
            return pa.array([None if each is None else _json(each) for each in array.to_pylist()], target)
        if _has_views(array.type):  # Arrow casts lists of this layout to others, but not right
            return pa.array(array.to_pylist(), target)
        if types.is_run_end_encoded(array.type):
            array = pc.run_end_decode(array)
        if types.is_timestamp(array.type):
            limit = MAX_US // {"s": 1_000_000, "ms": 1_000}.get(array.type.unit, 1)
            numbers = pc.min_element_wise(array.cast(pa.int64()), limit, skip_nulls=False)
            numbers = pc.max_element_wise(numbers, -limit, skip_nulls=False)
            return numbers.cast(array.type).cast(target)
        return array.cast(target)
    except pa.ArrowException as error:
        raise unreadable_column(where, name, array.type, error) from error


def unreadable_column(where: str, name: str, type: Any, error: BaseException) -> SourceError:
    """The error for a column whose type nothing reads."""
    return SourceError(
        f"the column {name!r} cannot be read",
        expected="numbers, texts, times, booleans, or lists and objects of these",
        found=f"{type}: {' '.join(str(error).split())[:200]}",
        where=where,
        hint="export the column in another type, such as text, or leave it out",
    )


def batch_error(where: str, error: BaseException) -> SourceError:
    """The error for a batch of a file that Arrow cannot read: it is damaged, or has what Arrow does not read."""
    import pyarrow as pa

    if isinstance(error, pa.ArrowNotImplementedError | pa.ArrowTypeError):
        return SourceError(
            "a file has a part that cannot be read",
            expected="columns of numbers, texts, times, booleans, or lists and objects of these, not encrypted",
            found=" ".join(str(error).split())[:300],
            where=where,
            hint="export the file again with such columns only",
        )
    return truncated_error(where, error)


def is_list(type: Any) -> bool:
    """Whether the values are lists, in any layout."""
    from pyarrow import types

    return bool(
        types.is_list(type)
        or types.is_large_list(type)
        or types.is_fixed_size_list(type)
        or types.is_list_view(type)
        or types.is_large_list_view(type)
    )


def _has_views(type: Any) -> bool:
    from pyarrow import types

    is_view = types.is_list_view(type) or types.is_large_list_view(type)
    return is_view or any(_has_views(type.field(position).type) for position in range(type.num_fields))


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)

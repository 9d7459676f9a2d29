"""Point-in-time joins through Feast: what the store knew at a moment, and of which nothing is lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rankline.errors import IntegrityError
from rankline.progress import Progress

ROW = "request_row"


def as_of(store: Any, asked: Any, features: Sequence[str], *, chunk: int, progress: Progress) -> Any:
    """The features of every row of ``asked`` as they were known at its `event_timestamp`, in the same order.

    ``asked`` is an Arrow table of entity keys, moments (µs, UTC) and what on-demand views want; the answer is
    an Arrow table of ``features`` ("view:name") by their names, with nulls where nothing was known.

    Raises:
        IntegrityError: Feast gave back fewer or more rows than it was asked for.
    """
    import numpy as np
    import pyarrow as pa

    names = [feature.split(":")[1] for feature in features]
    parts = []
    for start in range(0, len(asked), chunk):
        part = asked.slice(start, chunk)
        part = part.append_column(ROW, pa.array(np.arange(start, start + len(part))))
        # without the filter a row known only later would be found by its earlier event_timestamp
        answer = store.get_historical_features(
            part.to_pandas(), features=list(features), filter_by_created_timestamp=True
        ).to_arrow()
        if sorted(answer[ROW].to_pylist()) != part[ROW].to_pylist():
            raise IntegrityError(
                "the feature store did not give back the rows it was asked for",
                expected=f"{len(part)} rows, each once",
                found=f"{len(answer)} rows, {len(set(answer[ROW].to_pylist()))} different",
                where=f"{store.repo_path}, {', '.join(sorted({f.split(':')[0] for f in features}))}",
                hint="use the duckdb offline store; the dask one drops rows outside the TTL",
            )
        parts.append(answer.sort_by(ROW).select(names))
        progress.update(start + len(part), len(asked))
    return pa.concat_tables(parts)

"""What decides a step's outcome besides its settings, inputs and code: the source, the champion, the stores.

Each step that has a lineage computes it in components/<step>/lineage.py, from these facts. The component fills them in
from what it was given; the plan of a run leaves UNKNOWN what only the run itself will tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rankline.runtime.step_cache import UNKNOWN

if TYPE_CHECKING:
    from rankline.runtime.run_context import RunContext


@dataclass(frozen=True)
class LineageFacts:
    """What the lineage of a step is computed from; UNKNOWN where only the run will tell."""

    run: RunContext
    source: Any = UNKNOWN  # digest of the source
    data: Any = UNKNOWN  # digest of the tables that ingest writes
    model_id: Any = UNKNOWN  # of the bundle that export writes
    champion: str = ""  # empty: none serves
    anchor: str = ""  # the model that losses are measured against
    encoder_missing: bool = False  # it is not downloaded yet

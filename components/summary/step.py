"""summary: what a run did, from its ledger. It runs at the end of every run, however that ended.

Reads    <run>/*.json        the ledger
Writes   <run>/summary.json  outcome, steps, durations, peak memory, cost

The work is in rankline/runtime/run_summary.py, as the last step of a retried run does it, too.
"""

from rankline.runtime.run_summary import INTERRUPTED_MESSAGE, KILLED_MESSAGE, SUMMARY, summarize

__all__ = ["INTERRUPTED_MESSAGE", "KILLED_MESSAGE", "SUMMARY", "summarize"]

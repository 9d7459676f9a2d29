"""The settings of summary."""

from rankline.runtime.run_summary import Prices


class SummaryConfig(Prices):
    """The prices that a run's cost is computed from."""

"""Charts for HTML pages: inline SVG in one palette, whose text is selectable and in the font of the page."""

from __future__ import annotations

import html
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

INK, FAINT, GRID, BLUE, AMBER, PURPLE = "#1f2933", "#7b8794", "#e4e7eb", "#0b6e99", "#d97706", "#6d5bd0"


@contextmanager
def style(*, named_rows: bool) -> Iterator[None]:
    """The common style of figures; ``named_rows`` prints the labels of the y axis like text, not like faint numbers."""
    import matplotlib

    settings: Any = {
        "svg.fonttype": "none", "svg.hashsalt": "rankline", "font.family": "sans-serif", "font.size": 10,
        "text.parse_math": False,  # names from the data may have dollar signs
        "text.color": INK, "axes.edgecolor": GRID, "axes.labelcolor": FAINT, "axes.spines.top": False,
        "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True, "grid.color": GRID,
        "xtick.color": FAINT, "ytick.color": INK if named_rows else FAINT, "xtick.major.size": 0, "ytick.major.size": 0,
    }  # fmt: skip
    with matplotlib.rc_context(settings):
        yield


def figure(height: float, width: float = 6.2) -> tuple[Any, Any]:
    """A figure without a window, of a size in inches, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(fig)
    return fig, fig.subplots()


def svg(fig: Any, label: str) -> str:
    """A figure as SVG for a page; the same figure gives the same bytes."""
    stream = io.StringIO()
    fig.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    name = html.escape(label)
    start, _, rest = text[text.index("<svg") :].partition(">")
    start = start.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)
    return f"{start}><title>{name}</title>{rest}"

"""Every figure of the book, in one style: labelled axes, seeds and error bars, colours safe for colour-blind readers.

Figures are returned, not shown. They know no method by name: what is drawn, and what it is called, comes in.
"""

from .cells import heatmap
from .charts import bars, by_depth, by_method, curves, gaps, intervals, sweep
from .images import noise_card, pictures
from .page import as_png, chooser, show, slider, sortable, table
from .seeds import mean_sd, t_interval
from .style import COLOURS, STYLE

__all__ = [
    "COLOURS",
    "STYLE",
    "as_png",
    "bars",
    "by_depth",
    "by_method",
    "chooser",
    "curves",
    "gaps",
    "heatmap",
    "intervals",
    "mean_sd",
    "noise_card",
    "pictures",
    "show",
    "slider",
    "sortable",
    "sweep",
    "t_interval",
    "table",
]
